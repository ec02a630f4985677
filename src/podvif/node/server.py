"""The socket that the CNI plugin speaks to: one frame in, one frame out.

Law: a frame is a length (4 bytes, big endian) and as many bytes of JSON, so that neither side can take a piece for the
whole.  Whatever happens to a request, it is answered with a document; the only place where an unforeseen exception is
caught is here.
"""

import asyncio
import contextlib
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from podvif import errors, names
from podvif.core import cni
from podvif.daemon.log import CONTEXT
from podvif.errors import PodvifError, Refused, result_of
from podvif.node.verbs import Verbs

_LOG = logging.getLogger(__name__)
_LENGTH = struct.Struct(">I")
FRAME_MAX = 16 << 20
_BACKLOG = 1024


class _Frame(msgspec.Struct):
    """What a client sends: a CNI call, or a query of the command line."""

    shim: str = ""
    env: dict[str, str] = {}
    stdin: bytes = b""
    query: str = ""


class _Reply(msgspec.Struct):
    code: int
    stdout: str


Measure = Callable[[str, str, float], None]
"""Is told of each verb that ended: its name, its result (ok, retry, refused, bug) and the seconds it took."""


Say = Callable[[], None]
"""Writes a line of the log, once the answer is on its way: nobody waits for the line."""


class Server:
    """Serves the CNI plugin and the command line.

    Attributes:
        plugin_version: of the CNI plugin that called last; empty until one has.
    """

    def __init__(
        self,
        path: str,
        verbs: Verbs,
        queries: dict[str, Callable[[], Awaitable[dict[str, Any]]]],
        measure: Measure | None = None,
    ) -> None:
        """Take the socket's path, who answers, and who is told how that went."""
        self._path = path
        self._verbs = verbs
        self._queries = queries
        self._measure = measure
        self.plugin_version = ""
        self._reading: set[_Client] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            Refused: a living daemon listens there, or the directory cannot be used.
        """
        directory = os.path.realpath(os.path.dirname(self._path))  # noqa: ASYNC240, PTH120  it may be a link to what is not there yet
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)  # noqa: PTH103
            _remove_stale(self._path)
            listener = _bind(self._path)
        except OSError as error:
            raise Refused(
                f"[node] cni_socket {self._path} cannot be made: {error.strerror or error}",
                "look at its directory",
                code=errors.IO_FAILURE,
            ) from error
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Client(self._reading, self._start), sock=listener, backlog=_BACKLOG
        )

    async def stop(self) -> None:
        """Take no more requests, and wait for the ones that run."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108
        for client in set(self._reading):
            _LOG.info("a client had not sent its request when the daemon was stopped")
            client.hang_up()
        while self._running:
            await asyncio.wait(self._running)

    def _start(self, client: "_Client", frame: bytes) -> None:
        task = asyncio.ensure_future(self._serve(client, frame))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, client: "_Client", frame: bytes) -> None:
        try:
            reply, say = await self._answer(frame)
            data = msgspec.json.encode(reply)
            client.tell(_LENGTH.pack(len(data)) + data)
            os.sched_yield()  # whoever waits for the answer goes first where there is one processor for both
            say()
            await client.gone()
        except asyncio.CancelledError:
            _LOG.info("a client had not been answered, or not read its answer, when the daemon was stopped")
            client.drop()
            raise

    async def _answer(self, data: bytes) -> tuple[_Reply, Say]:
        try:
            frame = msgspec.json.decode(data, type=_Frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            refused = Refused(f"the CNI plugin sent no request: {error}", code=errors.DECODING_FAILURE)
            return _failed(refused, cni.NEWEST_VERSION), _nothing
        if frame.query:
            return await self._query(frame.query), _nothing
        return await self._call(frame)

    async def _query(self, name: str) -> _Reply:
        if name not in self._queries:
            return _failed(Refused(f"the daemon has no answer to {name!r}"), cni.NEWEST_VERSION)
        try:
            return _Reply(0, msgspec.json.encode(await self._queries[name]()).decode())
        except Exception as error:  # noqa: BLE001  as for a call: whoever asks gets a document
            if not isinstance(error, PodvifError):
                _LOG.exception("unforeseen, while answering the query %s", name)
            return _failed(error, cni.NEWEST_VERSION)

    async def _call(self, frame: _Frame) -> tuple[_Reply, Say]:
        began = time.monotonic()
        self.plugin_version = frame.shim or self.plugin_version
        context = {
            "verb": frame.env.get("CNI_COMMAND", ""),
            "container_id": frame.env.get("CNI_CONTAINERID", ""),
            "ifname": frame.env.get("CNI_IFNAME", ""),
            "traceparent": frame.env.get("TRACEPARENT", ""),
        }
        CONTEXT.set({key: value for key, value in context.items() if value})
        try:
            request = cni.parse_request(frame.env, frame.stdin)
            CONTEXT.set({**CONTEXT.get(), **_about(request)})
            answer, steps = await self._verbs.answer(request)
        except PodvifError as error:
            say = _line(
                self._done(frame, began, error), "failed", logging.WARNING, error=error.message, code=error.code
            )
            return _failed(error, cni.answer_version(frame.stdin)), say
        except Exception as error:  # noqa: BLE001  the one place: the runtime gets a document whatever happens
            _LOG.exception("unforeseen")
            say = _line(
                self._done(frame, began, error), "failed", logging.ERROR, error=repr(error), code=errors.INTERNAL
            )
            return _failed(error, cni.answer_version(frame.stdin)), say
        say = _line(self._done(frame, began, None), "ok", logging.INFO, steps=[step.value for step in steps])
        return _Reply(0, "" if answer is None else msgspec.json.encode(answer).decode() + "\n"), say

    def _done(self, frame: _Frame, began: float, error: Exception | None) -> float:
        """Have the verb counted; the seconds that it took."""
        seconds = time.monotonic() - began
        if self._measure is not None:
            self._measure(frame.env.get("CNI_COMMAND", ""), result_of(error), seconds)
        return seconds


def _about(request: cni.Request) -> dict[str, str]:
    if request.attachment is None:
        return {}
    return {"pod": str(request.pod), "port": names.vif_name(names.port_id(request.attachment))}


def _bind(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setblocking(False)  # noqa: FBT003  the standard library's signature
        # fchmod before bind: the file never has other rights, whatever the umask.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101
    except OSError:
        listener.close()
        raise
    return listener


def _line(seconds: float, result: str, level: int, **fields: Any) -> Say:
    """The verb's line in the log."""
    milliseconds = round(seconds * 1000, 2)
    extra = {"result": result, "ms": milliseconds, **fields}
    return lambda: _LOG.log(level, "%s in %.1f ms", result, milliseconds, extra=extra)


def _nothing() -> None:
    """There is nothing to say of a query."""


def _failed(error: BaseException, version: str) -> _Reply:
    document = cni.render_error(error, version)
    return _Reply(1, msgspec.json.encode(document).decode() + "\n")


class _Client(asyncio.Protocol):
    """One connection: hands over the frame that comes, sends the answer and hangs up.

    A protocol and no streams: those make two tasks and a dozen objects for each call.
    """

    _transport: asyncio.Transport

    def __init__(self, reading: set["_Client"], start: Callable[["_Client", bytes], None]) -> None:
        """Take the set to be in until the frame has come, and who is handed the frame."""
        self._reading = reading
        self._start = start
        self._data = bytearray()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        self._transport = cast("asyncio.Transport", transport)  # a stream's is one that reads and writes
        self._reading.add(self)

    def data_received(self, data: bytes) -> None:
        """Take a piece; what follows a frame is of no interest."""
        if self not in self._reading:
            return
        self._data += data
        if len(self._data) < _LENGTH.size:
            return
        (length,) = _LENGTH.unpack_from(self._data)
        if length > FRAME_MAX:
            _LOG.warning("a client announced a frame of %d bytes: refused", length)
            self.hang_up()
        elif len(self._data) >= _LENGTH.size + length:
            self._reading.discard(self)
            self._start(self, bytes(self._data[_LENGTH.size : _LENGTH.size + length]))

    def eof_received(self) -> bool:
        """Say whether to go on: a client that has asked may well have nothing more to say."""
        if self in self._reading:
            _LOG.info("a client sent less than a frame")
            self._reading.discard(self)
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that nobody is there any more."""
        self._reading.discard(self)
        if exc is not None:
            _LOG.info("a client went away before its answer")
        if not self._gone.done():
            self._gone.set_result(None)

    def hang_up(self) -> None:
        """Close, once what was written has gone."""
        self._reading.discard(self)
        self._transport.close()

    def drop(self) -> None:
        """Close at once."""
        self._transport.abort()

    def tell(self, data: bytes) -> None:
        """Send this, and hang up once it has gone."""
        self._transport.write(data)
        self.hang_up()

    async def gone(self) -> None:
        """Return when what was sent has gone, or nobody is there to take it."""
        await self._gone


def _remove_stale(path: str) -> None:
    """Remove the socket of a dead daemon.

    Connecting is a fair question here: the listener, if there is one, is a podvif that bears a client without a request.

    Raises:
        Refused: a living one listens, or no socket lies there.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Refused(f"[node] cni_socket {path} is there and is no socket", "remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
            return
        except OSError:
            pass  # it is there and busy: alive
    raise Refused(f"another podvif node listens on {path}", "stop it first, or choose another [node] cni_socket")
