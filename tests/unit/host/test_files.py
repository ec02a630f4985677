"""Files in directories that a pod can write to."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podvif import errors
from podvif.errors import PodvifError, Refused, Retry
from podvif.host import files
from podvif.model import SocketFile

OWN: list[str | None] = [None]


@pytest.fixture
def unix() -> Iterator[Callable[[Path], socket.socket]]:
    """Binds a socket to a path; every one is closed at the end."""
    made: list[socket.socket] = []

    def bind(path: Path) -> socket.socket:
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].bind(str(path))
        return made[-1]

    yield bind
    for each in made:
        each.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is not there, or is the file system of the temporary directory")
    folder = tempfile.mkdtemp(dir=shm)
    yield Path(folder)
    shutil.rmtree(folder)


def lay(kind: str, path: Path) -> None:
    """Put something under a name, as a pod could."""
    match kind:
        case "file":
            path.write_text("pod's")
        case "link":
            (path.parent / "target").write_text("secret")
            path.symlink_to("target")
        case "dangling link":
            path.symlink_to("nowhere")
        case "FIFO":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
        case "directory":
            path.mkdir()


PLACEABLE = ["file", "link", "dangling link", "FIFO", "socket"]


# -- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_write(tmp_path: Path, mode: int) -> None:
    """Texts are written whole, under their names and with the rights asked for whatever the umask, and nothing else."""
    former = os.umask(0o077)
    try:
        files.write_texts(str(tmp_path), {"a": "one\n", "b": "é"}, mode)
    finally:
        os.umask(former)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "one\n", "b": "é"}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


@pytest.mark.parametrize("where", ["name", ".name.new"])
@pytest.mark.parametrize("kind", PLACEABLE)
def test_write_over(tmp_path: Path, kind: str, where: str) -> None:
    """What a pod or a killed daemon laid under the name, or under the temporary one, is replaced and not followed."""
    lay(kind, tmp_path / where)

    files.write_texts(str(tmp_path), {"name": "ours"})

    assert (tmp_path / "name").read_text() == "ours"
    assert not (tmp_path / "name").is_symlink()
    assert not (tmp_path / ".name.new").exists()
    assert kind != "link" or (tmp_path / "target").read_text() == "secret"


def test_write_over_a_directory(tmp_path: Path) -> None:
    """A directory in the way is refused with its path, and nothing is left beside it."""
    lay("directory", tmp_path / "name")

    with pytest.raises(Refused, match=f"{tmp_path}/name cannot be written") as caught:
        files.write_texts(str(tmp_path), {"name": "ours"})

    assert caught.value.code == errors.IO_FAILURE
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


@pytest.mark.parametrize("kind", ["", "file"])
def test_write_without_directory(tmp_path: Path, kind: str) -> None:
    """A directory that is missing or none is refused with its path."""
    lay(kind, tmp_path / "gone")

    with pytest.raises(Refused, match=f"directory {tmp_path}/gone cannot be opened") as caught:
        files.write_texts(str(tmp_path / "gone"), {"name": "ours"})

    assert caught.value.code == errors.IO_FAILURE


def test_write_is_atomic(tmp_path: Path) -> None:
    """Whoever reads while a text is written over and over sees one whole text, at every moment."""
    texts = ["a" * 50_000, "b" * 70_000]
    files.write_texts(str(tmp_path), {"name": texts[0]})
    seen: set[str] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(files.read_text(str(tmp_path), "name") or "nothing")

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        for text in texts:
            files.write_texts(str(tmp_path), {"name": text})
    ended.set()
    reader.join()

    assert seen <= set(texts)


def test_write_cut_short(tmp_path: Path) -> None:
    """When only a part of a text can be written the former one stands, nothing is left beside it, and that is a Retry."""
    files.write_texts(str(tmp_path), {"name": "former"})
    script = (
        "import resource, sys; from podvif.host import files; from podvif.errors import Retry\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try: files.write_texts(sys.argv[1], {'name': 'x' * 9000})\n"
        "except Retry as error: print(error.message)\n"
    )

    told = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)

    assert f"{tmp_path}/name cannot be written" in told.stdout
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"name": "former"}


@pytest.mark.parametrize("kind", ["", "link", "dangling link", "FIFO", "socket", "directory"])
def test_read_what_is_no_text(tmp_path: Path, kind: str) -> None:
    """What is no plain file is read as nothing, without following it or waiting for it."""
    lay(kind, tmp_path / "name")

    assert files.read_text(str(tmp_path), "name") is None


def test_read(tmp_path: Path) -> None:
    """A plain file is read, bytes that are no text replaced; a missing directory has no texts."""
    (tmp_path / "name").write_bytes(b"a\xffb")

    assert files.read_text(str(tmp_path), "name") == "a\ufffdb"
    assert files.read_text(str(tmp_path / "gone"), "name") is None


@pytest.mark.parametrize("kind", [*PLACEABLE, "directory"])
def test_present(tmp_path: Path, kind: str) -> None:
    """Something is there whatever it is, a link to nowhere included, but for a directory: that is somebody else's."""
    assert not files.present(str(tmp_path), ["other", "name"])

    lay(kind, tmp_path / "name")

    assert files.present(str(tmp_path), ["other", "name"]) is (kind != "directory")
    assert files.is_directory(str(tmp_path / "name")) is (kind == "directory")


@pytest.mark.parametrize("kind", PLACEABLE)
def test_remove(tmp_path: Path, kind: str) -> None:
    """What lies under a name is removed and not what it points to; gone already is fine."""
    lay(kind, tmp_path / "name")

    for _ in range(2):
        files.remove(str(tmp_path), ["name", "other"])
        assert {path.name for path in tmp_path.iterdir()} <= {"target"}
    assert kind != "link" or (tmp_path / "target").read_text() == "secret"
    files.remove(str(tmp_path / "gone"), ["name"])


def test_remove_a_directory(tmp_path: Path) -> None:
    """A directory is not removed but refused with its path, and so is a directory that is none."""
    lay("directory", tmp_path / "name")
    lay("file", tmp_path / "file")

    with pytest.raises(Refused, match=f"{tmp_path}/name cannot be removed"):
        files.remove(str(tmp_path), ["name"])
    with pytest.raises(Refused, match=f"directory {tmp_path}/file cannot be opened"):
        files.remove(str(tmp_path / "file"), ["name"])


# -- moving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", *PLACEABLE])
def test_move(tmp_path: Path, unix: Callable[[Path], socket.socket], kind: str) -> None:
    """A socket that is moved, over whatever lies there, keeps its listener."""
    listening = unix(tmp_path / "source")
    listening.listen()
    lay(kind, tmp_path / "vhu")

    files.move(str(tmp_path / "source"), str(tmp_path / "vhu"))

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "vhu"))
    assert not (tmp_path / "source").exists()


def test_move_refused(tmp_path: Path) -> None:
    """A source that is gone may come again, a directory in the way has to be removed by somebody."""
    with pytest.raises(Retry, match=f"{tmp_path}/a cannot be moved to {tmp_path}/b"):
        files.move(str(tmp_path / "a"), str(tmp_path / "b"))

    lay("file", tmp_path / "a")
    lay("directory", tmp_path / "b")
    with pytest.raises(Refused, match=f"{tmp_path}/a cannot be moved to {tmp_path}/b"):
        files.move(str(tmp_path / "a"), str(tmp_path / "b"))


def test_move_across_file_systems(tmp_path: Path, elsewhere: Path) -> None:
    """A rename to another file system is refused with EXDEV's name and both paths, never done by copying."""
    lay("file", elsewhere / "vhu")

    with pytest.raises(Refused, match="two file systems") as caught:
        files.move(f"{elsewhere}/vhu", f"{tmp_path}/vhu")

    assert (caught.value.code, "(EXDEV)" in caught.value.message) == (errors.IO_FAILURE, True)
    assert f"{elsewhere}/vhu cannot be moved to {tmp_path}/vhu" in caught.value.message
    assert (elsewhere / "vhu").exists()
    assert not (tmp_path / "vhu").exists()


def test_movable(tmp_path: Path) -> None:
    """Between two directories of one file system files can be moved, which is tried without leaving anything."""
    source, target = tmp_path / "a", tmp_path / "b"
    for directory in (source, target):
        directory.mkdir()

    assert files.why_not_movable(str(source), str(target)) is None
    assert not [*source.iterdir(), *target.iterdir()]


def test_not_movable(tmp_path: Path, elsewhere: Path) -> None:
    """Why not is said: a directory is missing, no file can be made, two file systems; a pod's directory in the way is none."""
    gone = str(tmp_path / "gone")
    (tmp_path / "full" / ".podvif-probe").mkdir(parents=True)

    assert files.why_not_movable(gone, str(tmp_path)) == f"directory {gone} is missing"
    assert files.why_not_movable(str(tmp_path), gone) == f"directory {gone} is missing"
    assert "no file can be made in /proc/self" in (files.why_not_movable("/proc/self", str(tmp_path)) or "")
    assert files.why_not_movable(str(tmp_path), str(tmp_path / "full")) is None
    for target in (tmp_path, tmp_path / "full"):
        assert "(EXDEV)" in (files.why_not_movable(str(elsewhere), str(target)) or "")
    assert not list(elsewhere.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("number", "family", "remedy"),
    [
        (errno.ENOSPC, Retry, "free some space"),
        (errno.EDQUOT, Retry, "free some space"),
        (errno.EIO, Retry, "look at the path"),
        (errno.EISDIR, Refused, "look at the path and its rights"),
        (errno.EACCES, Refused, "look at the path and its rights"),
        (errno.EROFS, Refused, "look at the path and its rights"),
    ],
)
def test_io_error(number: int, family: type[PodvifError], remedy: str) -> None:
    """A full disk may pass, rights and what is in the way are for somebody to change; both are CNI's I/O failure."""
    error = files.io_error(OSError(number, os.strerror(number)), "/x cannot be written")

    assert (type(error), error.code, error.remedy) == (family, errors.IO_FAILURE, remedy)
    assert error.message == f"/x cannot be written: {os.strerror(number)}"


# -- sockets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("", SocketFile.ABSENT),
        ("file", SocketFile.OTHER),
        ("link", SocketFile.OTHER),
        ("dangling link", SocketFile.OTHER),
        ("FIFO", SocketFile.OTHER),
        ("directory", SocketFile.DIRECTORY),
        ("socket", SocketFile.DEAD),
    ],
)
def test_look(tmp_path: Path, kind: str, found: SocketFile) -> None:
    """What lies at a socket's path is told apart; a socket whose process has closed it is dead."""
    lay(kind, tmp_path / "vhu")

    assert files.look_at_socket(str(tmp_path / "vhu"), OWN) is found


def test_look_at_a_living_socket(tmp_path: Path, unix: Callable[[Path], socket.socket]) -> None:
    """A socket lives from its bind to its close: before it listens, while it does, and after it was moved."""
    first, second = tmp_path / "first", tmp_path / "second"
    bound = unix(first)
    assert files.look_at_socket(str(first), OWN) is SocketFile.BOUND

    bound.listen()
    assert files.look_at_socket(str(first), OWN) is SocketFile.BOUND

    first.rename(second)
    assert files.look_at_socket(str(second), OWN) is SocketFile.BOUND
    assert files.look_at_socket(str(first), OWN) is SocketFile.ABSENT

    bound.close()
    assert files.look_at_socket(str(second), OWN) is SocketFile.DEAD


def test_look_is_not_seen(tmp_path: Path, unix: Callable[[Path], socket.socket]) -> None:
    """Looking at a listening socket does not connect to it: the application's accept is not spent."""
    listening = unix(tmp_path / "vhu")
    listening.listen()
    listening.setblocking(False)  # noqa: FBT003

    files.look_at_socket(str(tmp_path / "vhu"), OWN)

    with pytest.raises(BlockingIOError):
        listening.accept()


def test_look_at_a_link_to_a_living_socket(tmp_path: Path, unix: Callable[[Path], socket.socket]) -> None:
    """A link to somebody's living socket is a link."""
    unix(tmp_path / "other")
    (tmp_path / "vhu").symlink_to("other")

    assert files.look_at_socket(str(tmp_path / "vhu"), OWN) is SocketFile.OTHER


def test_look_in_a_namespace_that_is_gone(tmp_path: Path, unix: Callable[[Path], socket.socket]) -> None:
    """In a namespace that is gone nobody is bound; the others are still asked."""
    unix(tmp_path / "vhu")

    assert files.look_at_socket(str(tmp_path / "vhu"), ["/proc/nobody/ns/net"]) is SocketFile.DEAD
    assert files.look_at_socket(str(tmp_path / "vhu"), ["/proc/nobody/ns/net", None]) is SocketFile.BOUND


@pytest.mark.parametrize("kind", ["", *PLACEABLE])
def test_remove_dead(tmp_path: Path, kind: str) -> None:
    """A dead socket, or what lies in its place, is removed; gone already is fine."""
    lay(kind, tmp_path / "vhu")

    for _ in range(2):
        files.remove_dead_socket(str(tmp_path / "vhu"), OWN)
        assert not os.path.lexists(tmp_path / "vhu")


@pytest.mark.parametrize("listens", [False, True])
def test_remove_living(tmp_path: Path, unix: Callable[[Path], socket.socket], *, listens: bool) -> None:
    """A socket that somebody is bound to is never removed."""
    bound = unix(tmp_path / "vhu")
    if listens:
        bound.listen()

    files.remove_dead_socket(str(tmp_path / "vhu"), OWN)

    assert (tmp_path / "vhu").is_socket()


class Between:
    """The namespaces to look in; something happens when they are looked into for the second time."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens
        self._looks = 0

    def __iter__(self) -> Iterator[str | None]:
        self._looks += 1
        if self._looks == 2:
            self._happens()
        return iter(OWN)


def test_remove_becomes_living(tmp_path: Path, unix: Callable[[Path], socket.socket]) -> None:
    """A socket made in the place of a dead one, between the two looks, is not removed."""
    lay("socket", tmp_path / "vhu")

    def begin_to_listen() -> None:
        (tmp_path / "vhu").rename(tmp_path / "kept")  # so that its inode is not given to the next
        unix(tmp_path / "vhu")

    files.remove_dead_socket(str(tmp_path / "vhu"), Between(begin_to_listen))

    assert (tmp_path / "vhu").is_socket()


def test_remove_gone_meanwhile(tmp_path: Path) -> None:
    """A dead socket that somebody else removes between the two looks is gone, which is fine."""
    lay("socket", tmp_path / "vhu")

    files.remove_dead_socket(str(tmp_path / "vhu"), Between((tmp_path / "vhu").unlink))

    assert not os.path.lexists(tmp_path / "vhu")


def test_remove_dead_directory(tmp_path: Path) -> None:
    """A directory in the place of a socket is refused."""
    lay("directory", tmp_path / "vhu")

    with pytest.raises(Refused):
        files.remove_dead_socket(str(tmp_path / "vhu"), OWN)
