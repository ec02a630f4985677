"""Waiting for a fact about a name in a directory."""

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from podvif import errors
from podvif.errors import Refused, Retry
from podvif.host import inotify


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _move_in(path: Path) -> None:
    (path.parent.parent / "elsewhere").touch()
    (path.parent.parent / "elsewhere").rename(path)


def _link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path that is waited for, in a directory of its own."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "vhu"


class Ready:
    """Whether something lies at a path; counts how often it was asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return os.path.lexists(self._path)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, _bind, _move_in, _link])
async def test_appears(path: Path, make: Callable[[Path], object]) -> None:
    """The wait ends when something comes to lie at the path, in whatever way; other names are not even looked at."""
    ready = Ready(path)
    waiting = asyncio.ensure_future(inotify.until(str(path), ready))
    await asyncio.sleep(0)
    path.with_name("other").touch()
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    assert ready.asked == 1

    make(path)

    await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize("make", [Path.touch, _link])
async def test_there_already(path: Path, make: Callable[[Path], object]) -> None:
    """What is so already is not waited for."""
    make(path)

    await asyncio.wait_for(inotify.until(str(path), Ready(path)), 5)


async def test_not_yet(path: Path) -> None:
    """What comes to lie there and is not yet what is waited for ends nothing; the next that comes may."""
    good = path.with_name("good")
    waiting = asyncio.ensure_future(inotify.until(str(path), path.is_symlink))
    await asyncio.sleep(0)
    path.touch()  # noqa: ASYNC240  nobody else runs on this loop
    done, _ = await asyncio.wait({waiting}, timeout=0.2)
    assert not done

    good.symlink_to("nowhere")
    good.rename(path)

    await asyncio.wait_for(waiting, 5)


async def test_true_a_moment_after_its_event(path: Path) -> None:
    """A fact that follows its event by a moment, as a bind is listed after it made its file, is not missed."""
    listed: list[bool] = []
    waiting = asyncio.ensure_future(inotify.until(str(path), lambda: bool(listed)))
    await asyncio.sleep(0)
    path.touch()  # noqa: ASYNC240
    asyncio.get_running_loop().call_later(0.005, listed.append, True)  # noqa: FBT003

    await asyncio.wait_for(waiting, 5)


async def test_no_directory(path: Path) -> None:
    """A directory that is missing, or none, is refused with its path."""
    path.touch()  # noqa: ASYNC240
    for wrong in (path.parent / "gone" / "vhu", path / "vhu"):
        with pytest.raises(Refused, match=f"directory {wrong.parent} cannot be watched") as caught:
            await inotify.until(str(wrong), lambda: False)
        assert caught.value.code == errors.IO_FAILURE


async def test_given_up(path: Path) -> None:
    """A wait that is given up leaves no descriptor behind."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inotify.until(str(path), lambda: False), 0.01)

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_changes(path: Path) -> None:
    """Every name that comes, goes or is written to is told, once for all that has happened to it; links are not followed."""
    heard = inotify.changes(str(path.parent))
    assert await anext(heard) is None
    for name in ("one", "two"):
        path.with_name("new").write_text("text")
        path.with_name("new").rename(path.with_name(name))
    path.symlink_to("nowhere")  # noqa: ASYNC240  nobody else runs on this loop
    path.unlink()  # noqa: ASYNC240

    assert [await asyncio.wait_for(anext(heard), 5) for _ in range(4)] == ["new", "one", "two", "vhu"]
    path.with_name("one").write_text("more")
    assert await asyncio.wait_for(anext(heard), 5) == "one"


async def _remove(path: Path) -> None:
    path.parent.rmdir()


async def _move(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("lose", [_remove, _move])
async def test_changes_of_a_directory_that_is_lost(path: Path, lose: Callable[[Path], Awaitable[None]]) -> None:
    """A directory that is removed or moved away is told as that anything may have changed, and ends it; so is a missing one."""
    heard = inotify.changes(str(path.parent))
    assert await anext(heard) is None
    await lose(path)

    assert [name async for name in heard] == [None]
    assert [name async for name in inotify.changes(str(path.parent))] == []


async def test_nothing_left_to_watch_with(path: Path) -> None:
    """Where the kernel gives no more watches that is worth a repeat, and says which limits to raise."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for watching in (inotify.until(str(path), lambda: True), anext(inotify.changes(str(path.parent)))):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            with pytest.raises(Retry) as caught:
                await watching
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert "max_user_instances" in caught.value.remedy


class Heard:
    """What a set of directories has told so far."""

    def __init__(self, directories: inotify.Directories) -> None:
        self.told: list[tuple[str, str | None]] = []
        self._came = asyncio.Event()
        self._task = asyncio.ensure_future(self._listen(directories))

    async def _listen(self, directories: inotify.Directories) -> None:
        async for event in directories.changes():
            self.told.append(event)
            self._came.set()

    async def until(self, *event: str | None) -> None:
        """Return when it was told."""
        async with asyncio.timeout(10):
            while event not in self.told:
                self._came.clear()
                await self._came.wait()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


def descriptors() -> int:
    """How many inotify descriptors this process has."""
    return sum("inotify" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


async def test_directories(tmp_path: Path) -> None:
    """A set tells what changes in each of its directories, those that came before and after one began to listen."""
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    directories = inotify.Directories()
    directories.add(str(folders[0]))
    directories.add(str(folders[1]))
    heard = Heard(directories)
    await heard.until(str(folders[1]), None)
    directories.add(str(folders[2]))
    directories.add(str(folders[2]))

    for folder in folders:
        (folder / "x").touch()
        await heard.until(str(folder), "x")

    assert descriptors() == 1
    await heard.stop()
    assert descriptors() == 0


async def test_directory_leaves_the_set(tmp_path: Path) -> None:
    """What has left the set tells no more, and leaving twice is fine."""
    gone, stays = tmp_path / "gone", tmp_path / "stays"
    gone.mkdir()
    stays.mkdir()
    directories = inotify.Directories()
    for folder in (gone, stays):
        directories.add(str(folder))
    heard = Heard(directories)
    await heard.until(str(stays), None)

    for _ in range(2):
        directories.discard(str(gone))
    (gone / "x").touch()
    (stays / "y").touch()
    await heard.until(str(stays), "y")

    assert (str(gone), "x") not in heard.told
    await heard.stop()


async def test_directory_is_made_again(tmp_path: Path) -> None:
    """A directory that goes is told of, is not needed for the others, and is watched again when it is added again."""
    folder = tmp_path / "a"
    directories = inotify.Directories()
    directories.add(str(folder))
    heard = Heard(directories)
    await asyncio.sleep(0)
    folder.mkdir()
    directories.add(str(folder))
    (folder / "x").touch()
    await heard.until(str(folder), "x")

    (folder / "x").unlink()
    heard.told.clear()
    folder.rmdir()
    await heard.until(str(folder), None)
    folder.mkdir()
    directories.add(str(folder))
    (folder / "y").touch()
    await heard.until(str(folder), "y")

    await heard.stop()


async def test_set_is_listened_to_again(tmp_path: Path) -> None:
    """Whoever listens again hears of every directory first, since anything may have happened."""
    directories = inotify.Directories()
    directories.add(str(tmp_path))
    for _ in range(2):
        heard = Heard(directories)
        await heard.until(str(tmp_path), None)
        await heard.stop()
