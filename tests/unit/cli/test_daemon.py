"""Asking the daemon, over a real socket."""

import base64
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from podvif.cli.daemon import ask, why_not_ready
from podvif.core.cni import Command, parse_request
from podvif.errors import Bug, Retry

Answers = Callable[[bytes], Path]


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    """A daemon that answers one request with these bytes and hangs up."""
    path = tmp_path / "cni.sock"
    with ExitStack() as stack:

        def make(data: bytes) -> Path:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(path))
            listening.listen()
            listening.settimeout(5)  # a test that fails before it asks is to end

            def serve() -> None:
                with suppress(TimeoutError), listening.accept()[0] as link:
                    (length,) = struct.unpack(">I", link.recv(4, socket.MSG_WAITALL))
                    (tmp_path / "asked").write_bytes(link.recv(length, socket.MSG_WAITALL))
                    link.sendall(data)

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
            return path

        yield make


def frame(reply: object) -> bytes:
    data = json.dumps(reply).encode()
    return struct.pack(">I", len(data)) + data


def test_ask(answers: Answers, tmp_path: Path) -> None:
    """The daemon's document is the answer to a query."""
    path = answers(frame({"code": 0, "stdout": '{"a": ["é"]}'}))

    assert ask(str(path), "status") == {"a": ["é"]}
    assert json.loads((tmp_path / "asked").read_bytes()) == {"query": "status"}


@pytest.mark.parametrize("data", [b"", b"\0\0", frame({"code": 0, "stdout": "{}"})[:-1]])
def test_cut_short(answers: Answers, data: bytes) -> None:
    """An answer that ends early is no answer: the daemon's path is named."""
    path = answers(data)
    with pytest.raises(Retry, match=f"cannot be reached at {path}: the answer was cut short"):
        ask(str(path), "status")


@pytest.mark.parametrize(
    "reply",
    [b"\0\0\0\1{", b"\0\0\0\1\xff", frame([]), frame({}), frame({"code": 0, "stdout": "hello"})],
)
def test_something_else(answers: Answers, reply: bytes) -> None:
    """What is no answer of a podvif daemon is a bug, said by us and not by a traceback."""
    path = answers(reply)
    with pytest.raises(Bug):
        ask(str(path), "status")


def test_error_document(answers: Answers) -> None:
    """The daemon's error is told in its words."""
    path = answers(frame({"code": 1, "stdout": '{"code": 7, "msg": "no answer to that"}'}))
    with pytest.raises(Bug, match="no answer to that"):
        ask(str(path), "status")


@pytest.mark.parametrize("kind", ["nothing", "dead socket", "file"])
def test_no_daemon(tmp_path: Path, kind: str) -> None:
    """Where no daemon listens its path is named, and what to do."""
    path = tmp_path / "cni.sock"
    if kind == "file":
        path.touch()
    elif kind == "dead socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))

    with pytest.raises(Retry, match=f"cannot be reached at {path}") as caught:
        ask(str(path), "status")

    assert caught.value.remedy == "start it (as root), or give --socket"


def test_ready(answers: Answers, tmp_path: Path) -> None:
    """The daemon is asked for its readiness by a STATUS that it takes."""
    path = answers(frame({"code": 0, "stdout": ""}))

    assert why_not_ready(str(path), "/opt/cni/bin") is None

    asked = json.loads((tmp_path / "asked").read_bytes())
    request = parse_request(asked["env"], base64.b64decode(asked["stdin"]))
    assert (request.command, request.path) == (Command.STATUS, ("/opt/cni/bin",))


def test_not_ready(answers: Answers, tmp_path: Path) -> None:
    """A daemon that is not ready says why, and one that does not answer is named by its socket."""
    path = answers(frame({"code": 50, "stdout": '{"code": 50, "msg": "no bridge"}'}))

    assert why_not_ready(str(path), "/opt/cni/bin") == "no bridge"
    assert f"does not answer at {tmp_path}/none" in str(why_not_ready(f"{tmp_path}/none", "/opt/cni/bin"))
