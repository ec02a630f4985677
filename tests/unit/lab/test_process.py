"""Children and events."""

import signal
import threading
import time
from pathlib import Path

import pytest

from podvif.lab.process import Child, LabError, output, wait_for_path, wait_for_words


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A child's log."""
    return tmp_path / "log"


def test_output() -> None:
    """A short command's text is returned; one that fails, or does not end, is an error with its own words."""
    assert output(["sh", "-c", "echo hello"]) == "hello\n"
    with pytest.raises(LabError, match="exit code 3: it broke"):
        output(["sh", "-c", "echo it broke >&2; exit 3"])
    with pytest.raises(LabError, match=r"no end after 0\.1 s"):
        output(["sleep", "9"], timeout=0.1)


def test_child(log: Path) -> None:
    """A child is alive until it ends, and its exit code and last words are known then."""
    child = Child(["sh", "-c", "echo hello; read x < fifo; exit 3"], log=log)
    child.kill()
    assert not child.alive()

    ended = Child(["sh", "-c", "echo hello; exit 3"], log=log)
    assert (ended.wait(5), ended.alive(), ended.last_words().splitlines()[-1]) == (3, False, "hello")


def test_stop(log: Path) -> None:
    """Stopping asks politely, also a paused child, and kills what does not listen."""
    polite = Child(["sleep", "60"], log=log)
    polite.send(signal.SIGSTOP)
    assert polite.stop() == -signal.SIGTERM

    deaf = Child(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], log=log)
    while "ready" not in log.read_text():
        time.sleep(0.01)
    assert deaf.stop(grace=0.1) == -signal.SIGKILL


def test_wait_is_limited(log: Path) -> None:
    """A child that still runs after the limit is named."""
    child = Child(["sleep", "60"], log=log)
    with pytest.raises(LabError, match=r"sleep .* still runs after"):
        child.wait(0.05)
    child.kill()


def test_wait_for_path(tmp_path: Path, log: Path) -> None:
    """Waiting for a file ends when it is there, when its maker has died, or at the limit."""
    path = tmp_path / "made"
    threading.Timer(0.05, path.touch).start()
    wait_for_path(path, 5)
    wait_for_path(path, 0)

    with pytest.raises(LabError, match="did not appear within"):
        wait_for_path(tmp_path / "never", 0.05)
    with pytest.raises(LabError, match="ended with code 3 before it was ready"):
        wait_for_path(tmp_path / "never", 5, Child(["sh", "-c", "exit 3"], log=log))


def test_descriptors(log: Path) -> None:
    """A child that has ended holds no descriptor of ours."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        Child(["true"], log=log).wait(5)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_wait_for_words(log: Path) -> None:
    """A child is waited for until its log has the words; one that ends first, or says others, is an error with its last words."""
    child = Child(["sh", "-c", "echo one; echo two three; exec sleep 60"], log=log)
    wait_for_words("two three", log, 10, child)
    with pytest.raises(LabError, match=r"(?s)did not say 'four' within 0\.05 s.*two three"):
        wait_for_words("four", log, 0.05, child)
    child.kill()

    ended = Child(["sh", "-c", "echo goodbye; exit 3"], log=log)
    with pytest.raises(LabError, match=r"(?s)code 3.*goodbye"):
        wait_for_words("hello", log, 10, ended)


def test_inherit(log: Path, tmp_path: Path) -> None:
    """A child has the descriptors that it shall inherit, under their numbers."""
    with (tmp_path / "given").open("w+") as given:
        Child(["sh", "-c", f"echo hello > /dev/fd/{given.fileno()}"], log=log, inherit=[given.fileno()]).wait(10)
        given.seek(0)
        assert given.read() == "hello\n"
