"""The kernel's list of bound sockets."""

import os
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from podvif.host import sockdiag
from podvif.host.sockdiag import _File, is_bound


def bound(stack: ExitStack, path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    made = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    made.bind(str(path))
    return made


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_bound(tmp_path: Path, kind: int) -> None:
    """A socket of any kind is in the list from bind to close, and a file beside it is not."""
    path, other = tmp_path / "vhu", tmp_path / "other"
    other.touch()
    with ExitStack() as stack:
        bound(stack, path, kind)
        assert is_bound(str(path), path.stat())
        assert not is_bound(str(other), other.stat())

    assert not is_bound(str(path), path.stat())


def test_moved(tmp_path: Path) -> None:
    """A socket is known by its file after the file was renamed."""
    with ExitStack() as stack:
        bound(stack, tmp_path / "vhu")
        moved = (tmp_path / "vhu").rename(tmp_path / "moved")

        assert is_bound(str(moved), moved.stat())


def test_asked_for_alone(tmp_path: Path) -> None:
    """Who was found bound once is asked for alone, and is believed only as long as he is bound to that very file."""
    path, other = tmp_path / "vhu", tmp_path / "other"
    with ExitStack() as stack:
        first = bound(stack, path)
        assert is_bound(str(path), path.stat())
        found = path.stat()
        holder = sockdiag._HOLDERS[found.st_dev, found.st_ino]
        assert holder == os.fstat(first.fileno()).st_ino

        bound(stack, other)
        sockdiag._HOLDERS[other.stat().st_dev, other.stat().st_ino] = holder
        assert is_bound(str(other), other.stat()), "another's socket was asked for first"

        first.close()
        assert not is_bound(str(path), found)
        assert is_bound(str(other), other.stat())


def test_bounded(tmp_path: Path) -> None:
    """No more files are remembered than a host has ports; the rest is forgotten."""
    sockdiag._HOLDERS.update({(0, number): 1 for number in range(sockdiag._HOLDERS_MAX)})
    with ExitStack() as stack:
        bound(stack, tmp_path / "vhu")
        assert is_bound(str(tmp_path / "vhu"), (tmp_path / "vhu").stat())

    assert len(sockdiag._HOLDERS) == 1


def test_many(tmp_path: Path) -> None:
    """Every one of more sockets than one message of the kernel holds is in the list."""
    paths = [tmp_path / f"vhu{number}" for number in range(600)]
    with ExitStack() as stack:
        for path in paths:
            bound(stack, path)

        assert all(is_bound(str(path), path.stat()) for path in paths)


def test_abstract_and_unbound_sockets() -> None:
    """Sockets without a file are no hindrance."""
    with ExitStack() as stack:
        stack.enter_context(socket.socket(socket.AF_UNIX)).bind("\0podvif-test-" + str(os.getpid()))
        stack.enter_context(socket.socket(socket.AF_UNIX))

        assert not is_bound("", os.stat_result(range(10)))


SOCKET = 4711
"""The inode of a socket itself."""


def message(inode: int, device: int, name: bytes) -> bytes:
    """A unix_diag_msg with the name it was bound to and its file, as the kernel packs them."""
    attributes = b""
    for kind, value in ((0, name), (1, struct.pack("=II", inode, device))):
        padding = b"\0" * (-len(value) % 4)
        attributes += struct.pack("=HH", 4 + len(value), kind) + value + padding
    return struct.pack("=BBBBIII", socket.AF_UNIX, socket.SOCK_STREAM, 10, 0, SOCKET, 0, 0) + attributes


def test_another_device_and_the_bound_name(tmp_path: Path) -> None:
    """Where stat and the kernel disagree about the device (btrfs), inode and bound name tell the file; either alone does not."""
    path = tmp_path / "vhu"
    path.touch()
    found = path.stat()

    def holds(inode: int, device: int, name: str) -> bool:
        file, told = _File(str(path), found), message(inode, device, name.encode() + b"\0")
        return file.mark in told and file.holder(told) == SOCKET

    device = os.major(found.st_dev) << 20 | os.minor(found.st_dev)
    assert holds(found.st_ino, device, "/elsewhere")
    assert holds(found.st_ino, device + 1, str(path))
    assert not holds(found.st_ino, device + 1, "/elsewhere")
    assert not holds(found.st_ino + 1, device, str(path))


@pytest.mark.parametrize("length", [0, 15, 16, 17, 19, 20, 25, 28, 31, 35])
def test_message_that_ends_early(tmp_path: Path, length: int) -> None:
    """A message without a file holds nothing, and is no error."""
    found = tmp_path.stat()

    assert not _File("/vhu", found).holder(message(found.st_ino, 0, b"/vhu")[:length])


def test_namespace_that_is_gone() -> None:
    """Asking in a namespace that is not there is FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        is_bound("", os.stat_result(range(10)), "/proc/nobody/ns/net")


def test_links_that_are_kept(tmp_path: Path) -> None:
    """A link is kept to the namespace that is asked at each look and to no other, which would not end while it is kept."""
    with ExitStack() as stack:
        bound(stack, tmp_path / "vhu")
        for namespace in ("/proc/self/ns/net", f"/proc/{os.getpid()}/ns/net"):
            assert is_bound(str(tmp_path / "vhu"), (tmp_path / "vhu").stat(), namespace)
            assert namespace not in sockdiag._KEPT
        sockdiag.keep(namespace)
        assert is_bound(str(tmp_path / "vhu"), (tmp_path / "vhu").stat(), namespace)
        assert namespace in sockdiag._KEPT
        sockdiag.keep("/proc/nobody/ns/net")
        assert is_bound(str(tmp_path / "vhu"), (tmp_path / "vhu").stat(), namespace)


def test_own_namespace_by_its_path(tmp_path: Path) -> None:
    """Our own namespace has the same sockets when it is named by a path; no privilege is needed for that."""
    with ExitStack() as stack:
        bound(stack, tmp_path / "vhu")

        assert is_bound(str(tmp_path / "vhu"), (tmp_path / "vhu").stat(), "/proc/self/ns/net")
