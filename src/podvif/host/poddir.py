"""The end of a pod's own directory, with whatever the pod has left in it; `podvif.node.guard` makes one.

Law: what lies in such a directory is the pod's doing.  It is reached by descriptors, no link in it is followed, nothing
mounted in it is entered, and neither depth nor number of what was put there can exhaust the daemon.
"""

import errno
import os
import secrets
import time

from podvif import errors
from podvif.errors import Retry
from podvif.host import files

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECONDS = 30.0
"""Seconds after which a directory that somebody goes on filling is left to the next try."""


def remove_pod_directory(path: str) -> None:
    """Remove the directory and everything in it; gone already is fine.  Blocks for as long as that takes.

    Raises:
        Refused: something in it cannot be removed.
        Retry: an I/O error, something is mounted in it, or somebody goes on filling it.
    """
    parent, _, name = path.rpartition("/")
    try:
        above = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise files.io_error(error, f"{parent} cannot be opened") from error
    try:
        _remove(above, name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise files.io_error(error, f"the pod's own directory {path} cannot be removed") from error
    finally:
        os.close(above)


def _remove(above: int, name: str) -> None:
    top = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=above)


def _empty(top: int) -> None:
    """Remove everything below, with two descriptors whatever the depth: a directory is emptied by bringing up those in it."""
    deadline = time.monotonic() + _SECONDS
    brought_up = f".podvif-{secrets.token_hex(8)}-"  # a name that nobody has taken before us
    number, found = 0, True
    while found:
        found = False
        with os.scandir(top) as entries:
            for entry in entries:
                found = True
                if time.monotonic() > deadline:
                    raise Retry("the pod's own directory is still being filled", code=errors.IO_FAILURE)
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=top)
                    continue
                inner = os.open(entry.name, _DIRECTORY, dir_fd=top)
                try:
                    number = _bring_up(inner, top, brought_up, number)
                finally:
                    os.close(inner)
                try:
                    os.rmdir(entry.name, dir_fd=top)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:  # what was not seen this time is seen in the next round
                        raise


def _bring_up(inner: int, top: int, prefix: str, number: int) -> int:
    """Unlink the files of a directory, and move the directories in it to the top; returns the next free number."""
    with os.scandir(inner) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                number += 1
                os.rename(entry.name, f"{prefix}{number}", src_dir_fd=inner, dst_dir_fd=top)
            else:
                os.unlink(entry.name, dir_fd=inner)
    return number
