"""Who answers at OVSDB's address, with servers of a few lines."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from podvif.ovs import probe
from podvif.ovs.probe import Found

Answer = Callable[[dict[str, Any]], Any]
Serve = Callable[[Answer], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A server that answers each message of one client; None is no answer, and bytes are sent as they are."""
    with ExitStack() as stack:

        def make(answer: Answer) -> str:
            path = tmp_path / "db.sock"
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(path))
            listening.listen()
            thread = threading.Thread(target=_talk, args=(listening, answer))
            thread.start()
            stack.callback(thread.join)
            return f"unix:{path}"

        yield make


def _talk(listening: socket.socket, answer: Answer) -> None:
    link, _ = listening.accept()
    decoder = json.JSONDecoder()
    with link, suppress(OSError):  # the client hangs up as soon as it knows
        rest = ""
        while data := link.recv(4096):
            rest += data.decode()
            while rest:
                message, end = decoder.raw_decode(rest)
                rest = rest[end:]
                found = answer(message)
                if isinstance(found, bytes):
                    link.sendall(found)
                    return
                if found is not None:
                    link.sendall(json.dumps({"id": message["id"], "result": found, "error": None}).encode())


def database(*, locked: bool, names: tuple[str, ...] = ("Open_vSwitch", "_Server")) -> Answer:
    answers = {"list_dbs": list(names), "lock": {"locked": locked}, "unlock": {}}
    return lambda message: answers[message["method"]]


@pytest.mark.parametrize("runs", [True, False])
def test_database(serve: Serve, *, runs: bool) -> None:
    """An Open vSwitch's database is no trouble, and whoever holds vswitchd's lock is told of."""
    assert probe.look(serve(database(locked=not runs))) == Found(vswitchd=runs)


def test_lock_is_given_back(serve: Serve) -> None:
    """The lock that nobody held is given back, under the name that vswitchd uses."""
    heard: list[tuple[str, Any]] = []
    answer = database(locked=True)

    def listen(message: dict[str, Any]) -> Any:
        heard.append((message["method"], message["params"]))
        return answer(message)

    probe.look(serve(listen))

    assert heard[:2] == [("list_dbs", []), ("lock", ["ovs_vswitchd"])]


def test_another_database(serve: Serve) -> None:
    """A database of another program is named."""
    found = probe.look(serve(database(locked=False, names=("OVN_Northbound", "_Server"))))

    assert found.trouble == "it serves OVN_Northbound and not Open_vSwitch: it is not Open vSwitch's"
    assert "ovsdb_connection" in found.remedy


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n", b"[]", b'{"error": "no"}', b'{"result": 7}', b"{", b"\xff"]
)
def test_something_else(serve: Serve, answer: bytes) -> None:
    """What answers and is no ovsdb-server is told as that."""
    assert probe.look(serve(lambda _: answer)).trouble == "what answers there is no ovsdb-server"


def test_silence(serve: Serve) -> None:
    """A server that does not answer is told with the time that was waited."""
    found = probe.look(serve(lambda _: None), seconds=0.1)

    assert found.trouble == "it does not answer within 0.1 s"


def test_no_socket(tmp_path: Path) -> None:
    """Nothing at the path, something else than a socket there, and a socket of the dead are told apart."""
    path = tmp_path / "db.sock"
    assert probe.look(f"unix:{path}").trouble == "there is no such file"
    path.touch()
    assert probe.look(f"unix:{path}").trouble == "it is no socket"
    assert "Not a directory" in (probe.look(f"unix:{path}/x").trouble or "")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert probe.look(f"unix:{path}").trouble == "nobody listens there"


def test_tcp() -> None:
    """A TCP address is asked too."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
    assert probe.look(address).trouble == "nobody listens there"
    assert probe.look("tcp:127.0.0.1:x").trouble == "it names no port"


def test_ssl() -> None:
    """An address that needs certificates is not asked."""
    assert probe.look("ssl:127.0.0.1:1") == Found()
