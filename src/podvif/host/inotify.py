"""File events: waiting for a name to appear in a directory.

Law: the directory is watched first and looked at second, so that nothing falls between; an overflow of the queue is an
event like any other: look again.
"""

import os
from pathlib import Path

from asyncinotify import Inotify, Mask

from podvif import errors
from podvif.errors import Refused


async def appears(path: str) -> None:
    """Wait until something lies at `path`; the caller sets the deadline.

    Raises:
        Refused: the directory is missing.
    """
    directory = Path(path).parent
    with Inotify() as inotify:
        try:
            inotify.add_watch(directory, Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR)
        except OSError as error:
            raise Refused(
                f"directory {directory} cannot be watched: {error.strerror}", "make it", code=errors.IO_FAILURE
            ) from error
        if _there(path):
            return
        async for _ in inotify:
            if _there(path):
                return


def _there(path: str) -> bool:
    return os.path.lexists(path)
