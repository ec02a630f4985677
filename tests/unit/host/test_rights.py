"""Owners, modes and lists of real files; a pod that swaps what lies under a name gains nothing."""

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podvif.core import rights as core
from podvif.errors import Refused
from podvif.host import rights
from podvif.model import Access, Account, Rights

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

OVS = Account(60600, 60601)
MADE = Rights(61000, 62000, 0o640, users=((60600, 6), (60700, 1)), groups=((60800, 4),), mask=6)


@contextlib.contextmanager
def bound(path: Path, umask: int = 0o022) -> Iterator[socket.socket]:
    """A socket that somebody listens on."""
    former = os.umask(umask)
    try:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(path))
        made.listen()
    finally:
        os.umask(former)
    with made:
        yield made


def as_user(account: Account, act: Callable[[], None]) -> str:
    """What comes of an act of somebody's: `allowed`, or the error's name; in a process of his own."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:  # nothing but system calls below: other threads' locks may be held
        word = "allowed"
        try:
            os.setgroups(list(account.groups))
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            act()
        except OSError as error:
            word = type(error).__name__
        os.write(write, word.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@needs_root
@pytest.mark.parametrize("kind", ["socket", "directory"])
def test_there_and_back(tmp_path: Path, kind: str) -> None:
    """What is written is what is read again: owner, group, mode, list and mask, and without a list none is left."""
    path = tmp_path / "it"
    if kind == "directory":
        path.mkdir()
    with bound(path) if kind == "socket" else contextlib.nullcontext():
        for wanted in (MADE, Rights(0, 0, 0o750), Rights(61000, 0, 0o2770), MADE, Rights(61000, 62000, 0o600)):
            rights.mend(str(path), lambda _, wanted=wanted: wanted)  # type: ignore[misc]  # mypy knows no default of a lambda
            assert rights.look_at(str(path)) == wanted


@needs_root
@pytest.mark.parametrize("umask", [0, 0o002, 0o007, 0o022, 0o027, 0o077, 0o777])
def test_socket_of_application(tmp_path: Path, umask: int) -> None:
    """With whatever umask it was made, another user connects to a socket once that was opened to him, and no third one."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "pods"
    folder.mkdir(mode=0o755)
    # pytest keeps its own folders for the one who runs it.
    for parent in folder.parents:
        if parent != Path("/") and parent.stat().st_mode & 0o001 == 0:
            rights.mend(str(parent), lambda found: core.granted(core.granted(found, OVS, 1), Account(61234, 61234), 1))
    path = str(folder / "vhu")

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    with bound(Path(path), umask):
        others = as_user(Account(61234, 61234), connect)
        assert as_user(OVS, connect) == others
        rights.mend(path, lambda found: core.socket_of_application(found, OVS))
        assert as_user(OVS, connect) == "allowed"
        assert as_user(Account(61234, 61234), connect) == others


@pytest.mark.parametrize("kind", ["nothing", "file", "link", "dangling link", "FIFO"])
def test_something_else(tmp_path: Path, kind: str) -> None:
    """Only a socket or a directory is looked at and mended; a link is not followed."""
    path, target = tmp_path / "it", tmp_path / "target"
    target.mkdir(mode=0o700)
    match kind:
        case "file":
            path.write_text("")
        case "link":
            path.symlink_to(target)
        case "dangling link":
            path.symlink_to("nowhere")
        case "FIFO":
            os.mkfifo(path)
    before = os.lstat(path).st_mode if kind != "nothing" else None

    rights.mend(str(path), lambda _: Rights(0, 0, 0o777))

    assert rights.look_at(str(path)) is None
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert before is None or os.lstat(path).st_mode == before
    assert rights.look_at(str(tmp_path / "gone" / "it")) is None


@needs_root
def test_race_with_links(tmp_path: Path) -> None:
    """A pod that swaps its socket for links to what is not its own, at any moment, has no right to that afterwards."""
    secret, folder = tmp_path / "secret", tmp_path / "pod"
    secret.mkdir(mode=0o700)
    folder.mkdir()
    victim, path = secret / "victim", folder / "vhu"
    ended = threading.Event()

    def swap() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            fresh = folder / f"n{number % 8}"
            fresh.unlink(missing_ok=True)
            match number % 3:
                case 0:
                    fresh.symlink_to(victim)
                case 1:
                    fresh.symlink_to(secret)
                case 2:
                    with bound(fresh):
                        pass
            fresh.rename(path)

    with bound(victim, 0o077):
        before = [rights.look_at(str(each)) for each in (victim, secret)]
        pod = threading.Thread(target=swap)
        pod.start()
        mended = 0
        try:
            for _ in range(3000):
                rights.mend(str(path), lambda _: Rights(61000, 61000, 0o666))
                mended += (found := rights.look_at(str(path))) is not None and found.uid == 61000
        finally:
            ended.set()
            pod.join()
        assert [rights.look_at(str(each)) for each in (victim, secret)] == before
        assert mended


@needs_root
def test_make_directory(tmp_path: Path) -> None:
    """A directory is made, and one that is there is mended, whatever the umask; what is none is refused."""
    path, access = tmp_path / "pods", Access(61000, 62000)
    former = os.umask(0o077)
    try:
        for _ in range(2):
            rights.ensure_directory(f"{path}/", lambda _: core.pod_directory(access, OVS))
            assert rights.look_at(str(path)) == core.pod_directory(access, OVS)
            path.chmod(0o777)
    finally:
        os.umask(former)

    (tmp_path / "link").symlink_to(path)
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(Refused, match=f"{name} is no directory"):
            rights.ensure_directory(str(tmp_path / name), lambda found: found)
    with pytest.raises(Refused, match="gone cannot be opened"):
        rights.ensure_directory(str(tmp_path / "gone" / "it"), lambda found: found)


@needs_root
def test_own_directory(tmp_path: Path) -> None:
    """The pod makes a socket in its directory, vswitchd reaches it by its name and lists nothing, others do not reach it."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent != Path("/") and parent.stat().st_mode & 0o001 == 0:
            for who in (OVS, Account(61000, 61000), Account(61001, 61001)):
                rights.mend(str(parent), lambda found, who=who: core.granted(found, who, 1))  # type: ignore[misc]  # as above
    path = tmp_path / "pod"
    rights.ensure_directory(str(path), lambda _: core.pod_directory(Access(gid=62000), OVS))
    pod, other = Account(61000, 61000, frozenset({62000})), Account(61001, 61001)
    name = str(path / "vhu")
    former = os.umask(0o022)
    try:
        assert as_user(other, lambda: socket.socket(socket.AF_UNIX).bind(name)) == "PermissionError"
        assert as_user(pod, lambda: socket.socket(socket.AF_UNIX).bind(name)) == "allowed"
    finally:
        os.umask(former)
    assert Path(name).stat().st_gid == 62000
    assert as_user(OVS, lambda: print(os.listdir(path))) == "PermissionError"  # noqa: PTH208  the fewest calls after a fork
    # Nobody listens any more, which only he is told who may connect.
    connect: Callable[[], None] = lambda: socket.socket(socket.AF_UNIX).connect(name)  # noqa: E731  two use it
    assert as_user(OVS, connect) == "PermissionError"
    rights.mend(name, lambda found: core.socket_of_application(found, OVS))
    assert as_user(OVS, connect) == "ConnectionRefusedError"
    assert as_user(other, connect) == "PermissionError"
    assert as_user(other, lambda: os.unlink(name)) == "PermissionError"  # noqa: PTH108  likewise


@needs_root
def test_label(tmp_path: Path) -> None:
    """A label is written as the kernel keeps it; what SELinux makes of it needs a kernel that uses it."""
    path = tmp_path / "pod"
    label = "system_u:object_r:container_file_t:s0"
    try:
        rights.ensure_directory(str(path), lambda _: core.pod_directory(Access(), None, label))
    except Refused as error:
        pytest.skip(error.message)

    assert os.getxattr(path, "security.selinux") == label.encode() + b"\0"
    found = rights.look_at(str(path))
    assert found is not None
    assert found.label == label


def test_without_lists() -> None:
    """Whether a file system has access control lists is asked of it; one that has none is refused with what to do."""
    assert not rights.has_lists("/proc/self")
    if os.geteuid() == 0:
        with pytest.raises(Refused, match=r"its file system has no extended attributes") as caught:
            rights.mend("/proc/self/task", lambda found: core.granted(found, OVS, 2))
        assert "root" in caught.value.remedy


def test_accounts() -> None:
    """Users and groups are taken by name or number; root may everything; who is not there is refused by name."""
    assert rights.account("") is None
    assert rights.group_id("") is None
    assert rights.account("root") == Account(0, 0, everywhere=True)
    assert rights.account("daemon:root") == Account(1, 0)
    assert rights.account("60600:60601") == Account(60600, 60601)
    assert rights.account("60600") == Account(60600, 60600)
    assert rights.group_id("root") == 0
    with pytest.raises(Refused, match="no user nobody-of-that-name"):
        rights.account("nobody-of-that-name")
    with pytest.raises(Refused, match="no group none-of-that-name"):
        rights.account("root:none-of-that-name")
    for text in ("4294967295", "4294967296"):
        with pytest.raises(Refused, match=f"{text} is no number"):
            rights.group_id(text)
        with pytest.raises(Refused, match=f"{text} is no number"):
            rights.account(text)
