"""Which pods are to be looked at, and who looks.

Law: what is queued is a key and never an event; a key that waits is not queued twice, and one that is worked on is not worked
on by a second worker: it comes again afterwards.
"""

import asyncio
from collections.abc import Awaitable, Callable

from podvif.kube.resources import Key


class Queue:
    """Keys, first come first served."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queued) + len(self._again)

    def wake(self, key: Key) -> None:
        """Have a key looked at."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.put_nowait(key)

    async def idle(self) -> None:
        """Return when nothing waits and nobody works."""
        await self._waiting.join()

    async def work(self, look: Callable[[Key], Awaitable[None]]) -> None:
        """Look at one key after the other, for ever; several of these run side by side."""
        while True:
            key = await self._waiting.get()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                await look(key)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.wake(key)
                self._waiting.task_done()
