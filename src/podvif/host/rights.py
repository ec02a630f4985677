"""Owner, mode, access control list and label of files in directories that a pod can write to.

Law: a name is resolved once, below a directory's descriptor and following no link, and everything else is asked of and done to
the inode that was found (O_PATH and /proc/self/fd: a socket cannot be opened).  Whatever a pod lays there between, it is
not what is changed: only a socket, or only a directory, that was found and looked at.
"""

import errno
import grp
import os
import pwd
import stat
import struct
from collections.abc import Callable

from podvif import errors
from podvif.core.rights import is_as
from podvif.errors import Refused, Retry
from podvif.host import files
from podvif.model import Account, Rights

_ACL, _LABEL = "system.posix_acl_access", "security.selinux"

# linux/posix_acl_xattr.h
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF

_NONE = {errno.ENODATA, errno.EOPNOTSUPP}


def look_at(path: str) -> Rights | None:
    """The rights of the socket or the directory at `path`; None when nothing or something else lies there."""
    directory, _, name = path.rpartition("/")
    try:
        with files.opened(directory or "/") as parent:
            descriptor = _reach(parent, name)
    except (OSError, Refused):
        return None
    try:
        return _observed(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def mend(path: str, wanted: Callable[[Rights], Rights]) -> None:
    """Give the socket or the directory at `path` the rights that `wanted` makes of those it has.

    What is something else, or gone, is left alone: looking again says what to do then.

    Raises:
        Refused: the directory is missing, or the file system has no access control lists or labels.
        Retry: an I/O error.
    """
    directory, _, name = path.rpartition("/")
    with files.opened(directory or "/") as parent:
        mend_at(parent, name, wanted, path)


def mend_at(parent: int, name: str, wanted: Callable[[Rights], Rights], path: str) -> None:
    """Likewise for a name below a directory's descriptor; `path` is for the message.

    Raises:
        Refused: the file system has no access control lists or labels.
        Retry: an I/O error.
    """
    try:
        descriptor = _reach(parent, name)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
        raise files.io_error(error, f"{path} cannot be looked at") from error
    try:
        found = _observed(descriptor)
        if found is not None:
            _apply(descriptor, found, wanted(found), path)
    finally:
        os.close(descriptor)


def has_lists(path: str) -> bool:
    """Whether the file system of `path`, which is there, has access control lists."""
    try:
        os.getxattr(path, _ACL)
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def ensure_directory(path: str, wanted: Callable[[Rights], Rights]) -> None:
    """Make the directory if it is missing, for root alone at first, and mend its rights; the one above it has to be there.

    Raises:
        Refused: it cannot be made, or something else lies there.
        Retry: the disk is full or an I/O error.
    """
    directory, _, name = path.rstrip("/").rpartition("/")
    with files.opened(directory or "/") as parent:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        except OSError as error:
            raise files.io_error(error, f"directory {path} cannot be made") from error
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise Refused(f"{path} is no directory", "remove what lies there", code=errors.IO_FAILURE)
        mend_at(parent, name, wanted, path)


def _reach(parent: int, name: str) -> int:
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _observed(descriptor: int) -> Rights | None:
    found = os.fstat(descriptor)
    if not stat.S_ISSOCK(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        return None
    mode = stat.S_IMODE(found.st_mode)
    label = _attribute(descriptor, _LABEL).rstrip(b"\0").decode(errors="replace")
    rights = Rights(found.st_uid, found.st_gid, mode, label=label)
    data = _attribute(descriptor, _ACL)
    return _parse(rights, data) if data else rights


def _attribute(descriptor: int, name: str) -> bytes:
    try:
        return os.getxattr(f"/proc/self/fd/{descriptor}", name)
    except OSError as error:
        if error.errno in _NONE:
            return b""
        raise


def _parse(rights: Rights, data: bytes) -> Rights:
    """What an access control list adds to a file's mode: there the group's bits are the mask."""
    users: list[tuple[int, int]] = []
    groups: list[tuple[int, int]] = []
    own, mask = rights.mode >> 3 & 7, None
    for tag, permission, who in _ENTRY.iter_unpack(data[len(_VERSION) :]):
        match tag:
            case 0x02:
                users.append((who, permission))
            case 0x04:
                own = permission
            case 0x08:
                groups.append((who, permission))
            case 0x10:
                mask = permission
    mode = rights.mode & ~0o070 | own << 3
    return Rights(rights.uid, rights.gid, mode, tuple(sorted(users)), tuple(sorted(groups)), mask, rights.label)


def _render(rights: Rights) -> bytes:
    entries = [
        (_USER_OBJ, rights.mode >> 6 & 7, _NOBODY),
        *((_USER, permission, uid) for uid, permission in sorted(rights.users)),
        (_GROUP_OBJ, rights.mode >> 3 & 7, _NOBODY),
        *((_GROUP, permission, gid) for gid, permission in sorted(rights.groups)),
        *([] if rights.mask is None else [(_MASK, rights.mask, _NOBODY)]),
        (_OTHER, rights.mode & 7, _NOBODY),
    ]
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)


def _apply(descriptor: int, found: Rights, wanted: Rights, path: str) -> None:
    """Narrow first and widen last: at no moment has anybody a right that is neither in `found` nor in `wanted`."""
    if is_as(found, wanted):
        return
    inode = f"/proc/self/fd/{descriptor}"
    try:
        if wanted.label and wanted.label != found.label:
            os.setxattr(inode, _LABEL, wanted.label.encode() + b"\0")
        if (found.uid, found.gid) != (wanted.uid, wanted.gid):
            # A new owner or group must not have what the former one had.
            os.chmod(inode, found.mode & 0o7000)  # noqa: PTH101
            os.chown(inode, wanted.uid, wanted.gid)
        if found.mask is not None or wanted.mask is not None:
            os.setxattr(inode, _ACL, _render(wanted))
        mode = wanted.mode if wanted.mask is None else wanted.mode & ~0o070 | wanted.mask << 3
        os.chmod(inode, mode)  # noqa: PTH101
    except OSError as error:
        raise _failed(error, path) from error


def _failed(error: OSError, path: str) -> Refused | Retry:
    if error.errno == errno.EOPNOTSUPP:
        return Refused(
            f"{path} cannot be opened to ovs-vswitchd or be labelled: its file system has no extended attributes for it",
            "use one that has POSIX access control lists (tmpfs, ext4, xfs), or run ovs-vswitchd as root",
            code=errors.IO_FAILURE,
        )
    return files.io_error(error, f"the rights of {path} cannot be mended")


def group_id(group: str) -> int | None:
    """The number of a group, by its name or number; None for an empty text.

    Raises:
        Refused: there is no such group.
    """
    if not group or group.isdecimal():
        return _number(group) if group else None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise Refused(f"there is no group {group} on this node", "mend [vhostuser]; a number does as well") from None


def account(user: str) -> Account | None:
    """Whom USER or USER:GROUP names, by names or numbers; None for an empty text.

    Raises:
        Refused: there is no such user or group.
    """
    if not user:
        return None
    name, _, group = user.partition(":")
    try:
        known = pwd.getpwuid(_number(name)) if name.isdecimal() else pwd.getpwnam(name)
        uid, gid = known.pw_uid, known.pw_gid
    except KeyError:
        if not name.isdecimal():
            raise Refused(f"there is no user {name} on this node", "mend [vhostuser] vswitchd_user") from None
        uid = gid = _number(name)
    chosen = group_id(group)
    return Account(uid, gid if chosen is None else chosen, everywhere=uid == 0)


def _number(text: str) -> int:
    number = int(text)
    if number >= _NOBODY:  # chown(2) takes that one for "leave it"
        raise Refused(f"{text} is no number of a user or a group", f"mend [vhostuser]: they go up to {_NOBODY - 1}")
    return number
