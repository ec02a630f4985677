"""File events: waiting for a fact about a name in a directory.

Law: the directory is watched first and looked at second, so that nothing falls between; an overflow of the queue is an
event like any other: look again.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from asyncinotify import Inotify, Mask

from podvif import errors
from podvif.errors import Refused

_SETTLE = (0.001, 0.01, 0.1)
"""Seconds: bind(2) makes the file, and with it the event, a moment before the kernel lists who is bound to it."""


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
