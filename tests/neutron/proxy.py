"""A TCP proxy in front of Neutron's API, that breaks the wire where a test says so.

Law: what it lets through it does not change.  An answer is lost after Neutron has given it, so that the test knows on which
side of the loss the work was done.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Wire:
    """The wire between one client and the API; `url` is its near end.

    Attributes:
        lose_answers: so many answers to POST get lost from now on.
        hang: answers are kept back.
    """

    def __init__(self, port: int) -> None:
        self._far = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.near = 0
        self.lose_answers = 0
        self.hang = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.near}"

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def join(self) -> None:
        """Let clients connect, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.near)
        self.near = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse connections, and end those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            answers, far = await asyncio.open_connection("127.0.0.1", self._far)
            await self._carry(reader, writer, answers, far)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            for end in (writer, far):
                if end is not None:
                    with contextlib.suppress(OSError, asyncio.CancelledError):
                        end.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        far: asyncio.StreamWriter,
    ) -> None:
        method = b""

        async def out() -> None:
            nonlocal method
            while data := await reader.read(65536):
                first = data.partition(b" ")[0]
                method = first if first in {b"GET", b"POST", b"PUT", b"DELETE"} else method
                far.write(data)
                await far.drain()

        async def back() -> None:
            while data := await answers.read(65536):
                if self.hang:
                    await asyncio.Event().wait()
                if self.lose_answers and method == b"POST":
                    self.lose_answers -= 1
                    return
                writer.write(data)
                await writer.drain()

        ways = [asyncio.ensure_future(out()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
