"""Which Unix sockets somebody is bound to, asked of the kernel.

Law: a socket is never connected to in order to learn whether it lives: the application's only accept would be spent on us,
or vswitchd would see a guest.  NETLINK_SOCK_DIAG lists the sockets of one network namespace with the inode and device of
the file they are bound to, also after a rename (linux/unix_diag.h).  pyroute2's DiagSocket reads the same, but decodes every
socket of the host into dictionaries and has its error handling switched off.

Whoever was found bound to a file once is asked for alone the next time, and everybody only when that one has gone: the whole list
takes 0.02 ms on a small host and 1.8 ms with 2,000 sockets.
"""

import atexit
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

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
_NO_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIIIII")
_MESSAGE = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_VFS = struct.Struct("=II")
_INODE = struct.Struct("=I")
_BUFFER = 1 << 17


class _File:
    """A file that somebody may be bound to.

    The kernel speaks of the superblock's device; on file systems with many devices to a superblock (btrfs) stat does not, so
    the inode and the name that was bound count as well.
    """

    def __init__(self, path: str, found: os.stat_result) -> None:
        self._inode = found.st_ino & 0xFFFFFFFF
        self._device = os.major(found.st_dev) << 20 | os.minor(found.st_dev)
        self._name = os.fsencode(path)
        # Nearly all messages are other sockets', and are not taken apart: this tells them from those that may be ours.
        self.mark = _ATTRIBUTE.pack(_ATTRIBUTE.size + _VFS.size, _UNIX_DIAG_VFS) + _INODE.pack(self._inode)

    def holder(self, payload: bytes) -> int:
        """The inode of the socket of one unix_diag_msg if that is bound to the file, else 0."""
        offset, inode, device, name = _MESSAGE.size, 0, 0, b""
        while offset + _ATTRIBUTE.size <= len(payload):
            length, kind = _ATTRIBUTE.unpack_from(payload, offset)
            if length < _ATTRIBUTE.size:
                break
            value = payload[offset + _ATTRIBUTE.size : offset + length]
            if kind == _UNIX_DIAG_VFS and len(value) == _VFS.size:
                inode, device = _VFS.unpack(value)
            elif kind == _UNIX_DIAG_NAME:
                name = value.rstrip(b"\0")
            offset += length + 3 & ~3
        same = inode and inode == self._inode and (device == self._device or name == self._name)
        return _MESSAGE.unpack_from(payload)[4] if same else 0


def is_bound(path: str, found: os.stat_result, namespace: str | None = None) -> bool:
    """Whether a socket of the namespace at that path, or of our own, is bound to the file `found` at `path`.

    Raises:
        OSError: the namespace is gone, or may not be entered.
        Refused: the kernel has no such list.
    """
    key, file = (found.st_dev, found.st_ino), _File(path, found)
    with _link(namespace) as link:
        last = _HOLDERS.get(key)
        if last and _ask(link, file, last):
            return True
        holder = _ask(link, file)
    if holder:
        if len(_HOLDERS) >= _HOLDERS_MAX:
            _HOLDERS.clear()
        _HOLDERS[key] = holder
    return holder != 0


_HOLDERS: dict[tuple[int, int], int] = {}
"""The inode of the socket that was bound to a file last: whom to ask for first, and nothing to be believed."""

_HOLDERS_MAX = 4096


_KEPT_FOR: set[str] = set()


def keep(namespace: str) -> None:
    """Keep a link to the namespace at that path, vswitchd's, which is asked at each look; and to no other but our own."""
    if namespace not in _KEPT_FOR:
        _KEPT_FOR.clear()
        _KEPT_FOR.add(namespace)


@contextlib.contextmanager
def _link(namespace: str | None) -> Iterator[socket.socket]:
    if namespace not in {None, *_KEPT_FOR}:
        with netns.inside(str(namespace), _open) as link:  # a pod's: a link that is kept would keep the namespace
            yield link
        return
    link = _kept_link(namespace)
    try:
        yield link
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


def _ask(link: socket.socket, file: _File, last: int = 0) -> int:
    """The inode of the socket that is bound to the file, 0 when there is none; of all sockets, or of the one with the inode `last`."""
    flags, cookie = (_NLM_F_REQUEST, _NO_COOKIE) if last else (_NLM_F_REQUEST | _NLM_F_DUMP, 0)
    show = _UDIAG_SHOW_NAME | _UDIAG_SHOW_VFS
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, last, show, cookie, cookie)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    link.sendto(header + request, (0, 0))
    holder = 0
    while True:
        data = link.recv(_BUFFER)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            payload = data[offset + _HEADER.size : offset + length]
            if kind == _NLMSG_DONE:
                return holder
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", payload)[0]
                if last and number == errno.ENOENT:
                    return 0
                raise Refused(
                    f"the kernel does not list Unix sockets (sock_diag): {os.strerror(number)}",
                    "load its module: modprobe unix_diag",
                    code=errors.IO_FAILURE,
                )
            if file.mark in payload:
                holder = file.holder(payload) or holder
            offset += length + 3 & ~3
        if last:  # one answer, and nothing that says it was the last
            return holder
