"""File events: waiting for a fact about a name, and hearing of every change in a directory.

Law: a directory is watched first and looked at second, so that nothing falls between; an overflow of the queue, and the
loss of the directory itself, are events like any other: look again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from asyncinotify import Inotify, Mask

from podvif import errors
from podvif.errors import Refused

_SETTLE = (0.001, 0.01, 0.1)
"""Seconds: bind(2) makes the file, and with it the event, a moment before the kernel lists who is bound to it."""


_CHANGES = (
    Mask.CREATE
    | Mask.MOVED_TO
    | Mask.MOVED_FROM
    | Mask.DELETE
    | Mask.CLOSE_WRITE
    | Mask.ONLYDIR
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
)


async def until(path: str, ready: Callable[[], bool]) -> None:
    """Wait until `ready` says so, asked now and whenever something comes to lie at `path`; the caller sets the deadline.

    Raises:
        Refused: the directory is missing.
    """
    directory, name = Path(path).parent, Path(path).name
    with Inotify() as inotify:
        try:
            inotify.add_watch(directory, Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR)
        except OSError as error:
            raise Refused(
                f"directory {directory} cannot be watched: {error.strerror}", "make it", code=errors.IO_FAILURE
            ) from error
        if ready():
            return
        async for event in inotify:
            if event.name is not None and str(event.name) != name:
                continue
            for pause in _SETTLE:
                if ready():
                    return
                await asyncio.sleep(pause)


async def changes(directory: str) -> AsyncIterator[str | None]:
    """The names that come, go and are written to in the directory; None when anything may have changed.

    The first is None, after the watch stands.  When the directory is missing, or another lies at its path, the iterator
    ends, and the caller begins again when it likes.
    """
    with Inotify() as inotify:
        try:
            inotify.add_watch(Path(directory), _CHANGES)
        except OSError:
            return
        yield None
        async for event in inotify:
            if event.mask & (Mask.IGNORED | Mask.DELETE_SELF | Mask.MOVE_SELF):
                yield None
                return
            yield None if event.mask & Mask.Q_OVERFLOW or event.name is None else str(event.name)
