"""Network namespaces: who a path is, and asking something inside of one.

Law: the daemon's own threads never change their namespace.  What has to be asked inside of another one is asked by a thread
that enters it and ends there; a netlink socket made in it goes on speaking of that namespace.
"""

import _thread
import ctypes
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from podvif import errors
from podvif.errors import Bug, Refused

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_libc = ctypes.CDLL(None, use_errno=True)


def inode(path: str) -> int:
    """The inode of the namespace at `path`, which tells it from every other living one.

    Raises:
        Refused: there is nothing, or it is not a namespace; CNI code 4.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(
            f"CNI_NETNS {path} cannot be opened: {error.strerror}",
            "the runtime makes the namespace before it calls ADD",
            code=errors.INVALID_ENVIRONMENT,
        ) from error
    try:
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
        found = os.fstat(descriptor).st_ino
    except OSError:
        kind, found = 0, 0  # it is no namespace of any kind
    finally:
        os.close(descriptor)
    if kind != _CLONE_NEWNET:
        raise Refused(
            f"CNI_NETNS {path} is not a network namespace",
            "name one, as /var/run/netns/…",
            code=errors.INVALID_ENVIRONMENT,
        )
    return found


def inside(path: str, ask: Callable[[], T]) -> T:
    """Run `ask` in the network namespace at `path`, in a thread that ends with it; blocks for the time that takes.

    Raises:
        OSError: the namespace is gone or may not be entered.
        Exception: whatever `ask` raises.
    """
    if same(path, "/proc/thread-self/ns/net"):
        return ask()  # entering one's own takes a right that asking does not
    outcome: list[T] = []
    failure: list[BaseException] = []
    ended = _thread.allocate_lock()
    ended.acquire()

    def enter() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), path)
            finally:
                os.close(descriptor)
            outcome.append(ask())
        except BaseException as error:  # noqa: BLE001  carried over to the caller's thread
            failure.append(error)
        finally:
            ended.release()

    # No `threading.Thread`: its book-keeping and its two hand-overs cost more than entering a namespace.
    _thread.start_new_thread(enter, ())
    ended.acquire()
    if failure:
        raise failure[0]
    if not outcome:
        raise Bug(f"nothing came back from namespace {path}")
    return outcome[0]


def has_interface(path: str, name: str) -> bool:
    """Whether the namespace at `path` has a network interface called `name`.

    Raises:
        Refused: the namespace cannot be entered; CNI code 4.
    """

    def ask() -> bool:
        try:
            socket.if_nametoindex(name)
        except OSError:
            return False
        return True

    try:
        return inside(path, ask)
    except OSError as error:
        raise Refused(
            f"CNI_NETNS {path} cannot be entered: {error.strerror}",
            "it has to stand until DEL; podvif has to run as root",
            code=errors.INVALID_ENVIRONMENT,
        ) from error


def is_still(path: str, found: int) -> bool:
    """Whether `path` is the namespace that had the inode `found`: a path may come to name another one."""
    try:
        return inode(path) == found
    except Refused as error:
        # Who cannot open anything just now does not know that it is gone.
        return getattr(error.__cause__, "errno", 0) in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def same(path: str, other: str) -> bool:
    """Whether two paths are one namespace; False when one of them cannot be looked at."""
    try:
        left, right = os.stat(path), os.stat(other)  # noqa: PTH116
    except OSError:
        return False
    return (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino)
