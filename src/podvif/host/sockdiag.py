"""Which Unix sockets somebody is bound to, asked of the kernel.

Law: a socket is never connected to in order to learn whether it lives: the application's only accept would be spent on us,
or vswitchd would see a guest.  NETLINK_SOCK_DIAG lists the sockets of one network namespace with the inode and device of
the file they are bound to, also after a rename (linux/unix_diag.h).  pyroute2's DiagSocket reads the same, but decodes every
socket of the host into dictionaries and has its error handling switched off.
"""

import atexit
import os
import socket
import struct

from podvif import errors
from podvif.errors import Refused
from podvif.host import netns

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_UDIAG_SHOW_NAME, _UDIAG_SHOW_VFS = 0x1, 0x2
_UNIX_DIAG_NAME, _UNIX_DIAG_VFS = 0, 1
_ALL_STATES = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIIIII")
_MESSAGE = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_VFS = struct.Struct("=II")
_BUFFER = 1 << 17


class BoundSockets:
    """The files that sockets of one namespace are bound to, as of one moment."""

    def __init__(self) -> None:
        self._files: set[tuple[int, int]] = set()
        self._names: set[tuple[int, bytes]] = set()

    def holds(self, path: str, found: os.stat_result) -> bool:
        """Whether somebody is bound to the file `found` at `path`.

        The kernel speaks of the superblock's device; on file systems with many devices to a superblock (btrfs) stat does
        not, so the inode and the name that was bound count as well.
        """
        inode = found.st_ino & 0xFFFFFFFF
        device = os.major(found.st_dev) << 20 | os.minor(found.st_dev)
        return (inode, device) in self._files or (inode, os.fsencode(path)) in self._names

    def add(self, payload: bytes) -> None:
        """Take in one unix_diag_msg with its attributes."""
        offset, inode, device, name = _MESSAGE.size, 0, 0, b""
        while offset + _ATTRIBUTE.size <= len(payload):
            length, kind = _ATTRIBUTE.unpack_from(payload, offset)
            if length < _ATTRIBUTE.size:
                break
            value = payload[offset + _ATTRIBUTE.size : offset + length]
            if kind == _UNIX_DIAG_VFS:
                inode, device = _VFS.unpack(value)
            elif kind == _UNIX_DIAG_NAME:
                name = value.rstrip(b"\0")
            offset += length + 3 & ~3
        if inode:
            self._files.add((inode, device))
            self._names.add((inode, name))


def bound_sockets(namespace: str | None = None) -> BoundSockets:
    """The bound sockets of the namespace at that path, or of our own.

    Raises:
        OSError: the namespace is gone, or may not be entered.
        Refused: the kernel has no such list.
    """
    if namespace is not None and not namespace.startswith("/proc/"):
        with netns.inside(namespace, _open) as link:  # a pod's: a link that is kept would keep the namespace
            return _dump(link)
    link = _kept_link(namespace)
    try:
        return _dump(link)
    except BaseException:
        _KEPT.pop(namespace)[1].close()  # half an answer may still lie in it
        raise


_KEPT: dict[str | None, tuple[int, socket.socket]] = {}
"""Links to our own namespace (None) and to that of one process, vswitchd, with the namespace's inode: asked at each look."""


def _kept_link(namespace: str | None) -> socket.socket:
    inode = 0 if namespace is None else os.stat(namespace).st_ino  # noqa: PTH116
    kept = _KEPT.get(namespace)
    if kept is not None and kept[0] == inode:
        return kept[1]
    if namespace is not None:
        for other in [path for path in _KEPT if path is not None]:
            _KEPT.pop(other)[1].close()
    link = _open() if namespace is None else netns.inside(namespace, _open)
    _KEPT[namespace] = (inode, link)
    return link


@atexit.register
def _close() -> None:
    for _, link in _KEPT.values():
        link.close()


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)


def _dump(link: socket.socket) -> BoundSockets:
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _UDIAG_SHOW_NAME | _UDIAG_SHOW_VFS, 0, 0)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    link.sendto(header + request, (0, 0))
    found = BoundSockets()
    while True:
        data = link.recv(_BUFFER)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            payload = data[offset + _HEADER.size : offset + length]
            if kind == _NLMSG_DONE:
                return found
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", payload)[0]
                raise Refused(
                    f"the kernel does not list Unix sockets (sock_diag): {os.strerror(number)}",
                    "load its module: modprobe unix_diag",
                    code=errors.IO_FAILURE,
                )
            found.add(payload)
            offset += length + 3 & ~3
