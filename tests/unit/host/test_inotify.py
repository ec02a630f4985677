"""Waiting for a fact about a name in a directory."""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from podvif import errors
from podvif.errors import Refused
from podvif.host import inotify


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _move_in(path: Path) -> None:
    (path.parent.parent / "elsewhere").touch()
    (path.parent.parent / "elsewhere").rename(path)


def _link(path: Path) -> None:
    path.symlink_to("nowhere")


def _there(path: Path) -> Callable[[], bool]:
    return lambda: os.path.lexists(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path that is waited for, in a directory of its own."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "vhu"


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, _bind, _move_in, _link])
async def test_appears(path: Path, make: Callable[[Path], object]) -> None:
    """The wait ends when something appears under the name, in whatever way, and not for another name."""
    waiting = asyncio.ensure_future(inotify.until(str(path), _there(path)))
    path.with_name("other").touch()
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done

    make(path)

    await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize("make", [Path.touch, _link])
async def test_there_already(path: Path, make: Callable[[Path], object]) -> None:
    """What is there already is not waited for."""
    make(path)

    await asyncio.wait_for(inotify.until(str(path), _there(path)), 5)


async def test_not_ready_yet(path: Path) -> None:
    """What has appeared and is not ready is waited for a little more, since the kernel tells of the file first."""
    asked: list[bool] = []

    def ready() -> bool:
        asked.append(path.exists())
        return asked.count(True) > 1

    waiting = asyncio.ensure_future(inotify.until(str(path), ready))
    await asyncio.sleep(0)
    path.touch()  # noqa: ASYNC240  nobody else runs on this loop

    await asyncio.wait_for(waiting, 5)


async def test_no_directory(path: Path) -> None:
    """A directory that is missing, or none, is refused with its path."""
    path.touch()  # noqa: ASYNC240  nobody else runs on this loop
    for wrong in (path.parent / "gone" / "vhu", path / "vhu"):
        with pytest.raises(Refused, match=f"directory {wrong.parent} cannot be watched") as caught:
            await inotify.until(str(wrong), _there(wrong))
        assert caught.value.code == errors.IO_FAILURE


async def test_given_up(path: Path) -> None:
    """A wait that is given up leaves no descriptor behind."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inotify.until(str(path), _there(path)), 0.01)

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
