"""Network namespaces."""

import os
import resource
import socket
import threading
from pathlib import Path

import pytest

from podvif import errors
from podvif.errors import Refused
from podvif.host import netns

OWN = "/proc/self/ns/net"


def test_inode() -> None:
    """A namespace is known by its inode."""
    assert netns.inode(OWN) == Path(OWN).stat().st_ino


@pytest.mark.parametrize(
    "path", ["/proc/nobody/ns/net", "", "/proc/self/status", "/dev/null", "/", "/proc/self/ns/mnt"]
)
def test_no_namespace(path: str) -> None:
    """A path that is missing or no network namespace is refused with it, as a wrong CNI_NETNS."""
    with pytest.raises(Refused) as caught:
        netns.inode(path)

    assert caught.value.code == errors.INVALID_ENVIRONMENT
    assert f"CNI_NETNS {path} " in caught.value.message


def test_same() -> None:
    """Two paths of one namespace are one, others are not, and what cannot be looked at is the same as nothing."""
    assert netns.same(OWN, f"/proc/{os.getpid()}/ns/net")
    assert not netns.same(OWN, "/proc/self/ns/mnt")
    assert not netns.same(OWN, "/proc/nobody/ns/net")
    assert not netns.same("/proc/nobody/ns/net", "/proc/nobody/ns/net")


def test_inside() -> None:
    """What is asked inside of our own namespace is answered, which needs no privilege."""
    assert netns.inside(OWN, lambda: socket.if_nametoindex("lo")) == socket.if_nametoindex("lo")


def test_inside_fails() -> None:
    """What the question raises, and that the namespace is gone, is raised to the caller."""
    with pytest.raises(ZeroDivisionError):
        netns.inside(OWN, lambda: 1 // 0)
    with pytest.raises(FileNotFoundError):
        netns.inside("/proc/nobody/ns/net", lambda: 1)


def test_own_thread_stays() -> None:
    """Our own thread is where it was after a question, and none is left behind."""
    before, threads = Path("/proc/thread-self/ns/net").stat().st_ino, threading.active_count()

    netns.inside(OWN, lambda: None)

    assert (Path("/proc/thread-self/ns/net").stat().st_ino, threading.active_count()) == (before, threads)


def test_has_interface() -> None:
    """A namespace has its loopback and no interface that nobody made."""
    assert netns.has_interface(OWN, "lo")
    assert not netns.has_interface(OWN, "podvif-none")


def test_nothing_left_to_look_with() -> None:
    """Who can open nothing more does not know that a namespace is gone."""
    path = "/proc/self/ns/net"
    found = netns.inode(path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        assert netns.is_still(path, found)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
