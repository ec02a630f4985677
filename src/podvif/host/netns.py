"""Network namespaces: who a path is, and asking something inside of one.

Law: the daemon's working threads never change their namespace.  What has to be asked inside of another one is asked by a thread
that does nothing else: it enters, asks and goes home again, or ends where it cannot.  A netlink socket made inside goes on
speaking of that namespace.
"""

import _thread
import ctypes
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from typing import TypeVar, cast

from podvif import errors
from podvif.errors import Refused

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


class _Visitor:
    """A thread that visits namespaces for one caller at a time."""

    def __init__(self) -> None:
        self._asked, self._answered = _thread.allocate_lock(), _thread.allocate_lock()
        self._asked.acquire()
        self._answered.acquire()
        self._path = ""
        self._ask: Callable[[], object] = lambda: None
        self._outcome: object = None
        self._failure: BaseException | None = None
        self._at_home = True
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # No `threading.Thread`: its book-keeping and its two hand-overs cost more than entering a namespace.
            _thread.start_new_thread(self._work, (home,))
        except RuntimeError as error:
            os.close(home)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def visit(self, path: str, ask: Callable[[], T]) -> T:
        """Have it go, and keep it for the next caller."""
        self._path, self._ask = path, ask
        self._asked.release()
        self._answered.acquire()
        outcome, failure = cast("T", self._outcome), self._failure
        self._ask, self._outcome, self._failure = lambda: None, None, None  # an answer lives no longer than its reader
        if self._at_home:
            _VISITORS.append(self)
        if failure:
            raise failure
        return outcome

    def _work(self, home: int) -> None:
        try:
            while self._at_home:
                self._asked.acquire()
                try:
                    _enter(self._path)
                    self._outcome = self._ask()
                except BaseException as error:  # noqa: BLE001  carried over to the caller's thread
                    self._failure = error
                self._at_home = _libc.setns(home, _CLONE_NEWNET) == 0
                self._answered.release()
        finally:
            os.close(home)


_VISITORS: list[_Visitor] = []
"""Those that nobody needs just now: starting a thread takes longer than a visit."""

os.register_at_fork(after_in_child=_VISITORS.clear)


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)


def inside(path: str, ask: Callable[[], T]) -> T:
    """Run `ask` in the network namespace at `path`, in another thread; blocks for the time that takes.

    Raises:
        OSError: the namespace is gone or may not be entered.
        Exception: whatever `ask` raises.
    """
    if same(path, "/proc/thread-self/ns/net"):
        return ask()  # entering one's own takes a right that asking does not
    try:
        visitor = _VISITORS.pop()
    except IndexError:
        visitor = _Visitor()
    return visitor.visit(path, ask)


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
