"""A small file system of its own, in memory: to be filled, to be another one than the next, or to be what /run is on a host.

Law: it is gone with the block, also where somebody still looks into it.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from podvif.lab.process import LabError, output, wait_any

LAST_LOOK = 5.0
"""Seconds that those get who still look into it; they end by event, but the kernel may be a moment behind."""


@contextlib.contextmanager
def tmpfs(folder: Path, size: str = "1m") -> Iterator[Path]:
    """A tmpfs at `folder`, which is made when it is not there.

    Args:
        folder: where it is mounted.
        size: as mount(8) takes it, `64k`.

    Raises:
        LabError: it cannot be mounted (only root can).
    """
    folder.mkdir(parents=True, exist_ok=True)
    output(["mount", "-t", "tmpfs", "-o", f"size={size}", "podvif-lab", str(folder)])
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    deadline = time.monotonic() + LAST_LOOK
    while True:
        try:
            output(["umount", str(folder)])
        except LabError:
            if time.monotonic() > deadline:
                output(["umount", "--lazy", str(folder)])
                raise
            wait_any([], 0.02)
        else:
            return
