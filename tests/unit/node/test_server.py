"""The daemon's socket, over a real one."""

import asyncio
import base64
import json
import logging
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from podvif import errors
from podvif.core.attach import Step
from podvif.core.cni import Command, Request
from podvif.errors import Refused, Retry
from podvif.node.server import FRAME_MAX, Server
from podvif.node.verbs import Verbs
from tests.fakes.values import config, environment

LENGTH = struct.Struct(">I")
Answer = Callable[[Request], Awaitable[dict[str, Any] | None]]


class Scripted(Verbs):
    """Verbs that answer what a test says."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[Request] = []
        self._answer_to = answer

    async def answer(self, request: Request) -> tuple[dict[str, Any] | None, list[Step]]:
        self.requests.append(request)
        return await self._answer_to(request), [Step.PLUG]


async def _fine(request: Request) -> dict[str, Any] | None:
    return {"cniVersion": request.version} if request.command is Command.ADD else None


async def _asked() -> dict[str, Any]:
    return {"é": 1}


async def _broken() -> dict[str, Any]:
    raise OSError("the disk is gone")


async def _refused() -> dict[str, Any]:
    raise Retry("OVSDB is away")


QUERIES: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {"status": _asked, "broken": _broken, "away": _refused}


class Daemon:
    """A server that listens, and what a client needs."""

    def __init__(self, path: Path, answer: Answer = _fine) -> None:
        self.path = path
        self.verbs = Scripted(answer)
        self.server = Server(str(path), self.verbs, QUERIES)

    async def send(self, data: bytes) -> bytes:
        """Send bytes, say that this is all, and return what comes until the server hangs up."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(data)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            await writer.wait_closed()

    async def ask(self, frame: bytes) -> tuple[int, Any]:
        """Send a frame; the reply's exit code, and its stdout decoded if there is one."""
        data = await self.send(LENGTH.pack(len(frame)) + frame)
        assert len(data) >= LENGTH.size, "the server hung up without an answer"
        assert LENGTH.unpack(data[:4])[0] == len(data) - 4
        reply = json.loads(data[4:])
        assert set(reply) == {"code", "stdout"}
        return reply["code"], json.loads(reply["stdout"]) if reply["stdout"] else None

    async def call(self, command: str = "ADD", stdin: bytes | None = None, **variables: str) -> tuple[int, Any]:
        """Call a verb as the plugin does."""
        given = json.dumps(config()).encode() if stdin is None else stdin
        frame = {
            "shim": "0.1.0",
            "env": environment(command) | variables,
            "stdin": base64.b64encode(given).decode(),
        }
        return await self.ask(json.dumps(frame).encode())


@asynccontextmanager
async def serving(path: Path, answer: Answer = _fine) -> Any:
    daemon = Daemon(path, answer)
    await daemon.server.start()
    try:
        yield daemon
    finally:
        await asyncio.wait_for(daemon.server.stop(), 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the daemon listens, in a directory that is not there yet."""
    return tmp_path / "run" / "cni.sock"


# -- requests --------------------------------------------------------------------------------------------------------


async def test_call(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A verb's answer is what is to be printed, with exit code 0; what was done is in one line of the log."""
    with caplog.at_level(logging.INFO):
        async with serving(path) as daemon:
            assert await daemon.call("ADD") == (0, {"cniVersion": "1.1.0"})
            assert await daemon.call("DEL") == (0, None)

    assert [request.command for request in daemon.verbs.requests] == [Command.ADD, Command.DEL]
    first = caplog.records[0].__dict__
    assert (first["result"], first["steps"]) == ("ok", ["plug"])


async def test_answer_before_its_line(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An answer is on its way before its line is written to the log."""
    there: list[bytes] = []
    frame = json.dumps({"env": environment("ADD"), "stdin": base64.b64encode(json.dumps(config()).encode()).decode()})

    def look(record: logging.LogRecord) -> bool:
        if record.msg == "%s in %.1f ms":
            there.append(client.recv(LENGTH.size, socket.MSG_DONTWAIT))
        return True

    with caplog.at_level(logging.INFO), socket.socket(socket.AF_UNIX) as client, ExitStack() as stack:
        caplog.handler.addFilter(look)
        stack.callback(caplog.handler.removeFilter, look)
        async with serving(path):
            client.connect(str(path))
            client.send(LENGTH.pack(len(frame)) + frame.encode())
            async with asyncio.timeout(10):
                while not there:  # noqa: ASYNC110  the line is the event
                    await asyncio.sleep(0)

    assert LENGTH.unpack(there[0])[0] > 0


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Refused("it is wrong", "mend it"), 7, "it is wrong"),
        (Retry("not now", code=50), 50, "not now"),
        (KeyError("x"), 999, "podvif has a bug: KeyError: 'x'"),
        (RecursionError("deep"), 999, "podvif has a bug: RecursionError: deep"),
    ],
)
async def test_errors(path: Path, error: Exception, code: int, words: str) -> None:
    """A verb that fails, foreseen or not, is answered with CNI's document, in the configuration's version."""

    async def fail(_: Request) -> None:
        raise error

    async with serving(path, fail) as daemon:
        status, document = await daemon.call("ADD", json.dumps(config(cniVersion="0.4.0")).encode())

    assert (status, document["cniVersion"], document["code"], document["msg"]) == (1, "0.4.0", code, words)


@pytest.mark.parametrize(
    ("command", "stdin", "code"),
    [
        ("ADD", b"", errors.DECODING_FAILURE),
        ("ADD", b"\xff", errors.DECODING_FAILURE),
        ("ADD", b'{"name": "\xff"}', errors.DECODING_FAILURE),
        ("ADD", b"[" * 200_000, errors.DECODING_FAILURE),
        ("ADD", b'{"cniVersion": "7.0.0", "name": "n"}', errors.INCOMPATIBLE_VERSION),
        ("PURGE", b"{}", errors.INVALID_ENVIRONMENT),
        ("", b"{}", errors.INVALID_ENVIRONMENT),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_bad_calls(path: Path, command: str, stdin: bytes, code: int) -> None:
    """A call that cannot be read is answered with CNI's document too, and never reaches a verb."""
    async with serving(path) as daemon:
        status, document = await daemon.call("ADD", stdin, CNI_COMMAND=command)

    assert (status, document["code"], daemon.verbs.requests) == (1, code, [])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"query": "\xff"}',
        b'{"query": 7}',
        b'{"env": {"CNI_COMMAND": 7}}',
        b'{"env": [], "stdin": ""}',
        b'{"stdin": "*no base64*"}',
        b'{"x": ' + b"[" * 200_000,
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_garbage(path: Path, frame: bytes) -> None:
    """A whole frame that is no request is answered with a document, code 6, in the newest version."""
    async with serving(path) as daemon:
        status, document = await daemon.ask(frame)

    assert (status, document["code"], document["cniVersion"]) == (1, errors.DECODING_FAILURE, "1.1.0")


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ({"shim": None}, ""),
        ({"shim": "0.0.1"}, "0.0.1"),
        ({"shim": "0.99.0", "deadline": 7, "env": {"CNI_NETNS_OVERRIDE": "1"}, "extra": {"a": [1]}}, "0.99.0"),
    ],
    ids=["one that says nothing of itself", "older", "newer, with more to say"],
)
async def test_plugins_of_other_versions(path: Path, more: dict[str, Any], seen: str) -> None:
    """A plugin of another version is served like one of the daemon's own: what its frame lacks or has more is no concern."""
    given = {"shim": "0.1.0", "stdin": base64.b64encode(json.dumps(config()).encode()).decode()}
    frame = given | more | {"env": environment("ADD") | more.get("env", {})}
    async with serving(path) as daemon:
        sent = {key: value for key, value in frame.items() if value is not None}
        assert await daemon.ask(json.dumps(sent).encode()) == (0, {"cniVersion": "1.1.0"})
        assert daemon.server.plugin_version == seen


async def test_request_of_another_form(path: Path) -> None:
    """A request of a form that the daemon does not know, as of a plugin of another age, is refused and reaches no verb."""
    async with serving(path) as daemon:
        status, document = await daemon.ask(b'{"version": 2, "call": {"verb": "ADD"}}')

        assert (status, document["code"]) == (1, errors.INVALID_ENVIRONMENT)
        assert daemon.verbs.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        LENGTH.pack(100) + b"{}",
        LENGTH.pack(FRAME_MAX + 1) + b"{}",
        LENGTH.pack(0xFFFFFFFF),
    ],
)
async def test_no_frame(path: Path, data: bytes) -> None:
    """Less than a frame, or the announcement of more than a frame may have, is hung up on; others are served."""
    async with serving(path) as daemon:
        assert await daemon.send(data) == b""
        assert await daemon.call() == (0, {"cniVersion": "1.1.0"})


async def test_large_frame(path: Path) -> None:
    """A frame of some megabytes arrives whole, and so does its answer."""

    async def echo(request: Request) -> dict[str, Any]:
        return request.config

    async with serving(path, echo) as daemon:
        given = config(long="x" * 4_000_000)
        assert await daemon.call("ADD", json.dumps(given).encode()) == (0, given)


async def test_frame_in_pieces(path: Path) -> None:
    """A frame that arrives byte by byte is one frame."""
    async with serving(path) as daemon:
        reader, writer = await asyncio.open_unix_connection(path)
        frame = b'{"query": "status"}'
        for byte in LENGTH.pack(len(frame)) + frame:
            writer.write(bytes([byte]))
            await writer.drain()
        assert json.loads((await asyncio.wait_for(reader.read(), 10))[4:])["code"] == 0
        writer.close()
        await writer.wait_closed()
        assert daemon.verbs.requests == []


async def test_queries(path: Path) -> None:
    """A query is answered with its document; one that nobody knows or that fails, foreseen or not, with an error document."""
    async with serving(path) as daemon:
        assert await daemon.ask(b'{"query": "status"}') == (0, {"é": 1})
        for name, code, words in (
            ("nothing", errors.INVALID_CONFIG, "no answer to 'nothing'"),
            ("away", errors.TRY_AGAIN_LATER, "OVSDB is away"),
            ("broken", errors.INTERNAL, "podvif has a bug: OSError: the disk is gone"),
        ):
            status, document = await daemon.ask(json.dumps({"query": name}).encode())
            assert (status, document["code"], words in document["msg"]) == (1, code, True)


class Held:
    """A verb that begins and goes on only when it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, request: Request) -> dict[str, Any] | None:
        if request.command is Command.ADD:
            self.begun.set()
            await self.go_on.wait()
        return await _fine(request)


async def test_client_goes_away(path: Path) -> None:
    """A client that is gone before its answer does not disturb anybody; its verb is finished."""
    held = Held()
    async with serving(path, held) as daemon:
        frame = json.dumps({"env": environment(), "stdin": base64.b64encode(json.dumps(config()).encode()).decode()})
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(LENGTH.pack(len(frame)) + frame.encode())
        await held.begun.wait()
        writer.close()
        await writer.wait_closed()
        held.go_on.set()

        assert await daemon.call("DEL") == (0, None)


async def test_in_parallel(path: Path) -> None:
    """While one verb waits others are answered."""
    held = Held()
    async with serving(path, held) as daemon:
        slow = asyncio.ensure_future(daemon.call("ADD"))
        await held.begun.wait()
        assert await daemon.call("DEL") == (0, None)
        held.go_on.set()
        assert (await slow)[0] == 0


# -- the end ---------------------------------------------------------------------------------------------------------


async def test_stop_waits_for_running_verbs(path: Path) -> None:
    """Stopping takes no more requests and waits until every running verb has ended and was answered."""
    held = Held()
    daemon = Daemon(path, held)
    await daemon.server.start()
    running = asyncio.ensure_future(daemon.call("ADD"))
    await held.begun.wait()

    stopping = asyncio.ensure_future(daemon.server.stop())
    await asyncio.sleep(0.02)
    assert not stopping.done()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await daemon.call("DEL")

    held.go_on.set()
    await asyncio.wait_for(stopping, 10)
    assert await running == (0, {"cniVersion": "1.1.0"})
    assert not path.exists()  # noqa: ASYNC240


@pytest.mark.parametrize("data", [b"", b"\0\0", LENGTH.pack(100) + b"{"])
async def test_stop_does_not_wait_for_silent_clients(path: Path, data: bytes) -> None:
    """A client that has connected and not sent its request does not keep the daemon from ending."""
    daemon = Daemon(path)
    await daemon.server.start()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    assert await daemon.call("DEL") == (0, None)  # by now the server has met the silent client

    await asyncio.wait_for(daemon.server.stop(), 2)

    assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()
    await writer.wait_closed()


async def test_stop_without_start(path: Path) -> None:
    """A server that never listened can be stopped."""
    await Daemon(path).server.stop()


# -- the socket ------------------------------------------------------------------------------------------------------


async def test_rights(path: Path) -> None:
    """Only root may connect, and the directory is made if it is missing."""
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600  # noqa: ASYNC240
        assert stat.S_ISSOCK(path.stat().st_mode)  # noqa: ASYNC240


async def test_dead_daemon(path: Path) -> None:
    """The socket of a daemon that has died is replaced."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async with serving(path) as daemon:
        assert await daemon.call("DEL") == (0, None)


async def test_living_daemon(path: Path) -> None:
    """A second daemon is refused with the path, and the first one goes on serving."""
    async with serving(path) as first:
        with pytest.raises(Refused, match=f"another podvif node listens on {path}"):
            await Daemon(path).server.start()

        assert await first.call("DEL") == (0, None)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
async def test_something_else_is_there(path: Path, kind: str) -> None:
    """What is no socket is not removed but refused with its path."""
    path.parent.mkdir()
    if kind == "link":
        path.symlink_to("nowhere")  # noqa: ASYNC240
    else:
        (path.touch if kind == "file" else path.mkdir)()

    with pytest.raises(Refused, match=f"{path} is there and is no socket"):
        await Daemon(path).server.start()

    assert path.is_symlink() or path.exists()  # noqa: ASYNC240


async def test_no_directory(tmp_path: Path) -> None:
    """A directory that cannot be made is refused with the socket's path and the reason."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run" / "cni.sock"
    with pytest.raises(Refused, match=f"{path} cannot be made: Not a directory") as caught:
        await Daemon(path).server.start()

    assert caught.value.code == errors.IO_FAILURE


async def test_long_path(tmp_path: Path) -> None:
    """A path that no socket can have is refused with the reason, and no descriptor is left open."""
    path = tmp_path / ("x" * 108)
    with pytest.raises(Refused, match=r"cannot be made: .*too long"):
        await Daemon(path).server.start()
