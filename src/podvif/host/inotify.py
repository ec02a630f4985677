"""File events: waiting for a fact about a name, and hearing of every change in a directory.

Law: a directory is watched first and looked at second, so that nothing falls between; an overflow of the queue, and the
loss of the directory itself, are events like any other: look again.  The kernel's interface is used as it is (inotify(7)):
each ADD makes a dozen events, and a library that makes objects of them costs more than the rest of hearing them.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self

from podvif import errors
from podvif.errors import Refused, Retry

_SETTLE = (0.001, 0.01, 0.1)
"""Seconds: bind(2) makes the file, and with it the event, a moment before the kernel lists who is bound to it."""

_USED_UP = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM}
LIMITS = "raise the sysctls fs.inotify.max_user_instances and max_user_watches: all of root's processes share them"

# linux/inotify.h
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _Q_OVERFLOW, _IGNORED, _ONLYDIR = 0x400, 0x800, 0x4000, 0x8000, 0x1000000
_COMES = _CREATE | _MOVED_TO | _ONLYDIR
_CHANGES = _COMES | _MOVED_FROM | _DELETE | _CLOSE_WRITE | _DELETE_SELF | _MOVE_SELF
_UNWATCHED = -1
_EVENT = struct.Struct("=iIII")
_BUFFER = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


async def until(path: str, ready: Callable[[], bool]) -> None:
    """Wait until `ready` says so, asked now and whenever something comes to lie at `path`; the caller sets the deadline.

    Raises:
        Refused: the directory is missing.
        Retry: the kernel has no watch left.
    """
    directory, _, name = path.rpartition("/")
    with _Watch() as watch:
        try:
            watch.add(directory, _COMES)
        except OSError as error:
            message = f"directory {directory} cannot be watched: {error.strerror}"
            if error.errno in _USED_UP:
                raise Retry(message, LIMITS) from error
            raise Refused(message, "make it", code=errors.IO_FAILURE) from error
        if ready():
            return
        while True:
            if not any(found in {name, None} for _, found in await watch.events()):
                continue
            for pause in _SETTLE:
                if ready():
                    return
                await asyncio.sleep(pause)


async def changes(directory: str) -> AsyncIterator[str | None]:
    """The names that come, go and are written to in the directory; None when anything may have changed.

    The first is None, after the watch stands.  What has happened to a name since the last look is told once.  When the
    directory is missing, or another lies at its path, the iterator ends, and the caller begins again when it likes.

    Raises:
        Retry: the kernel has no watch left.
    """
    with _Watch() as watch:
        try:
            watch.add(directory, _CHANGES)
        except OSError as error:
            if error.errno in _USED_UP:
                raise Retry(f"directory {directory} cannot be watched: {error.strerror}", LIMITS) from error
            return
        yield None
        while True:
            events = await watch.events()
            for name in dict.fromkeys(None if mask & _Q_OVERFLOW else name for mask, name in events):
                yield name
            if any(mask & (_IGNORED | _DELETE_SELF | _MOVE_SELF) for mask, _ in events):
                return


class Directories:
    """A set of directories that grows and shrinks, watched by one descriptor: of those a user has few (128)."""

    def __init__(self) -> None:
        """Begin with none."""
        self._wanted: dict[str, int] = {}
        self._by_number: dict[int, str] = {}
        self._watch: _Watch | None = None

    def add(self, directory: str) -> None:
        """Watch one more, from now on.

        Raises:
            Retry: the kernel has no watch left; the directory is watched the next time that it is added.
        """
        if self._wanted.setdefault(directory, _UNWATCHED) == _UNWATCHED and self._watch is not None:
            self._begin(self._watch, directory)

    def discard(self, directory: str) -> None:
        """Watch one less; not watched already is fine."""
        number = self._wanted.pop(directory, _UNWATCHED)
        if self._by_number.pop(number, None) is not None and self._watch is not None:
            self._watch.remove(number)

    async def changes(self) -> AsyncIterator[tuple[str, str | None]]:
        """Directory and name of what comes, goes and is written to; a name of None when anything may have changed there.

        Each directory that there is by then comes first, with None, after its watch stands.

        Raises:
            Retry: the kernel has no descriptor left.
        """
        with _Watch() as watch:
            try:
                watch.open()
            except OSError as error:
                raise Retry(f"the pods' own directories cannot be watched: {error.strerror}", LIMITS) from error
            try:
                self._watch = watch
                for directory in list(self._wanted):
                    with contextlib.suppress(Retry):  # the rounds look at what is not watched
                        self._begin(watch, directory)
                    yield directory, None
                while True:
                    for event in dict.fromkeys(self._told(await watch.numbered_events())):
                        yield event
            finally:
                self._watch = None
                self._by_number = {}
                self._wanted = dict.fromkeys(self._wanted, _UNWATCHED)

    def _begin(self, watch: "_Watch", directory: str) -> None:
        try:
            number = watch.add_one(directory, _CHANGES)
        except OSError as error:
            if error.errno in _USED_UP:
                raise Retry(f"directory {directory} cannot be watched: {error.strerror}", LIMITS) from error
            return  # it is not there: who makes it adds it
        self._wanted[directory] = number
        self._by_number[number] = directory

    def _told(self, events: list[tuple[int, int, str | None]]) -> Iterator[tuple[str, str | None]]:
        for number, mask, name in events:
            if mask & _Q_OVERFLOW:
                yield from ((directory, None) for directory in self._wanted)
                continue
            directory = self._by_number.get(number)
            if directory is None:
                continue
            if mask & _IGNORED:
                del self._by_number[number]
                self._wanted[directory] = _UNWATCHED
            yield directory, name


class _Watch:
    """One inotify descriptor, closed with the block."""

    def __enter__(self) -> Self:
        self._descriptor = -1
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def add(self, directory: str, mask: int) -> None:
        """Watch a directory.

        Raises:
            OSError: it cannot be watched.
        """
        self.open()
        self.add_one(directory, mask)

    def open(self) -> None:
        """Make the descriptor, with no watch yet.

        Raises:
            OSError: the kernel has none left.
        """
        self._descriptor = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def add_one(self, directory: str, mask: int) -> int:
        """Watch one more directory; returns the number by which its events say that they are its.

        Raises:
            OSError: it cannot be watched.
        """
        return _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(directory), mask))

    def remove(self, number: int) -> None:
        """Watch one less; the kernel has removed the watch of a directory that is gone."""
        _libc.inotify_rm_watch(self._descriptor, number)

    async def events(self) -> list[tuple[int, str | None]]:
        """Wait for events; the mask and the name in its directory of each that has come, None for the directory itself."""
        return [(mask, name) for _, mask, name in await self.numbered_events()]

    async def numbered_events(self) -> list[tuple[int, int, str | None]]:
        """Likewise, each with the number of its watch before it."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, _set, readable)
        try:
            await readable
        finally:
            loop.remove_reader(self._descriptor)
        data, offset, found = os.read(self._descriptor, _BUFFER), 0, []
        while offset < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            name = data[offset - length : offset].rstrip(b"\0")
            found.append((number, mask, os.fsdecode(name) if name else None))
        return found


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
