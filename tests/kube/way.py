"""A TCP way to a server that can be cut without either end noticing: no connection is closed, bytes just stop.

Law: it forwards in the loop of the test, so nothing moves while the test does not wait.
"""

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self


class Way:
    """The way; open inside the `async with` block.

    Args:
        host: where it leads to.
        port: likewise.
        listening: where it begins, a socket that listens; one on 127.0.0.1 by default.

    Attributes:
        port: where it begins.
    """

    def __init__(self, host: str, port: int, listening: socket.socket | None = None) -> None:
        self._target = (host, port)
        self._listening = listening
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        listening = self._listening or socket.create_server(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._arrived, sock=listening)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self.drop()

    def cut(self) -> None:
        """From now on no byte passes; new connections are taken and get no answer."""
        self._open.clear()

    async def drop(self) -> None:
        """All connections end, and what was on its way is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def mend(self) -> None:
        """All that waited passes."""
        self._open.set()

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.closing(writer):
            await self._open.wait()
            there, back = await asyncio.open_connection(*self._target)
            with contextlib.closing(back):
                ways = [
                    asyncio.ensure_future(self._pass(reader, back)),
                    asyncio.ensure_future(self._pass(there, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
