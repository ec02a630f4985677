"""Who may use a pod's directory and sockets, and what their files have to say for it.

Law: nothing is opened to everybody, and nothing is taken away from an application that made a socket.  A directory of a pod's
own and the sockets that Open vSwitch makes for it get exactly the rights that are written here; the socket that an
application makes, with whatever umask, is opened to vswitchd alone, by one more line in its access control list.

| what                                  | owner and group          | mode                        | vswitchd, unless it may everything |
|---------------------------------------|--------------------------|-----------------------------|------------------------------------|
| directories on the way to the pods'   | root                     | 0700                        | may go through (ACL)               |
| a pod's own directory                 | the pod's uid, its group | 2770; 0700 without a group  | may go through (ACL)               |
| socket in it that OVS has made        | the pod's uid, its group | 0660; 0600 without a group  | listens already                    |
| socket in it that an application made | as it was made           | as it was made              | may write, that is connect (ACL)   |
| the shared mount_point                | root, socket_group       | 3775; as it is without one  | may go through, as everybody       |
| socket in it that OVS has made        | its maker, socket_group  | socket_mode                 | listens already                    |
| socket in it that an application made | as it was made           | as it was made              | may write (ACL)                    |

To connect takes the right to write to the socket and to go through the directories on the way (unix(7)).  vswitchd needs a line
of its own because --user leaves it one group, which is not the pod's (OVS lib/daemon-unix.c).  The line comes after the socket:
the kernel applies the umask to a socket before it looks at the directory's default list, so that one would not help.
"""

import msgspec

from podvif.model import Access, Account, Rights

READ, WRITE, SEARCH = 4, 2, 1

_SETGID, _STICKY = 0o2000, 0o1000


def may(rights: Rights, who: Account, need: int) -> bool:
    """Whether somebody may do all of `need` to a file (acl(5), "Access check algorithm")."""
    if who.everywhere:
        return True
    mask = 7 if rights.mask is None else rights.mask
    if who.uid == rights.uid:
        return _all(rights.mode >> 6, need)
    if who.uid in dict(rights.users):
        return _all(dict(rights.users)[who.uid] & mask, need)
    theirs = {who.gid, *who.groups}
    matching = [permission for gid, permission in ((rights.gid, rights.mode >> 3), *rights.groups) if gid in theirs]
    if matching:
        return any(_all(permission & mask, need) for permission in matching)
    return _all(rights.mode, need)


def _all(permission: int, need: int) -> bool:
    return permission & need == need


def granted(rights: Rights, who: Account, need: int) -> Rights:
    """The same rights, and `need` for `who`; everybody else has what he had."""
    if may(rights, who, need):
        return rights
    if who.uid == rights.uid:
        return msgspec.structs.replace(rights, mode=rights.mode | need << 6)
    # A wider mask must not wake up what the narrower one has kept from others.
    mask = 7 if rights.mask is None else rights.mask
    users = {uid: permission & mask for uid, permission in rights.users}
    users[who.uid] = users.get(who.uid, _others_of(rights, who)) | need
    groups = tuple((gid, permission & mask) for gid, permission in rights.groups)
    own = rights.mode & (mask << 3 | ~0o070)
    wide = _union(own >> 3 & 7, *users.values(), *(permission for _, permission in groups))
    return msgspec.structs.replace(rights, mode=own, users=tuple(sorted(users.items())), groups=groups, mask=wide)


def _others_of(rights: Rights, who: Account) -> int:
    """What somebody without a line of his own may do already: a line of his own replaces it."""
    return _union(*(bit for bit in (READ, WRITE, SEARCH) if may(rights, who, bit)))


def _union(*permissions: int) -> int:
    found = 0
    for permission in permissions:
        found |= permission
    return found


def parent_directory(vswitchd: Account | None) -> Rights:
    """A directory on the way to the pods' own: nobody but vswitchd goes that way, pods have theirs mounted."""
    return _through(Rights(0, 0, 0o700), vswitchd)


def pod_directory(access: Access, vswitchd: Account | None, label: str = "") -> Rights:
    """A pod's own directory; what is made in it has the pod's group."""
    mode = 0o700 if access.gid is None else _SETGID | 0o770
    return _through(Rights(access.uid, access.gid or 0, mode, label=label), vswitchd)


def shared_directory(found: Rights, group: int | None) -> Rights:
    """The mount_point: as it is, or its group makes sockets in it and removes nobody else's."""
    if group is None:
        return found
    return msgspec.structs.replace(found, gid=group, mode=_SETGID | _STICKY | 0o775)


def socket_of_ovs(found: Rights, access: Access, label: str = "") -> Rights:
    """A socket that Open vSwitch has made for a pod with a directory of its own."""
    mode = 0o600 if access.gid is None else 0o660
    return Rights(access.uid, access.gid or 0, mode, label=label or found.label)


def shared_socket_of_ovs(found: Rights, group: int | None, mode: int | None, label: str = "") -> Rights:
    """A socket that Open vSwitch has made, in the mount_point."""
    gid = found.gid if group is None else group
    if mode is None and group is not None:
        mode = 0o660
    kept = msgspec.structs.replace(found, gid=gid, label=label or found.label)
    return kept if mode is None else msgspec.structs.replace(kept, mode=mode, users=(), groups=(), mask=None)


def socket_of_application(found: Rights, vswitchd: Account | None) -> Rights:
    """A socket that an application has made: vswitchd connects to it."""
    return found if vswitchd is None else granted(found, vswitchd, READ | WRITE)


def is_as(found: Rights, wanted: Rights) -> bool:
    """Whether nothing has to be changed; no label is wanted where none is named."""
    return found == wanted or (
        not wanted.label and msgspec.structs.replace(found, label="") == wanted and wanted.label != found.label
    )


def _through(rights: Rights, who: Account | None) -> Rights:
    return rights if who is None else granted(rights, who, SEARCH)
