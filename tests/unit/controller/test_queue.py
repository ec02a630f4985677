"""The queue of keys."""

import asyncio

from podvif.controller.queue import Queue
from podvif.kube.resources import Key

A, B = Key("ns", "a"), Key("ns", "b")


class Office:
    """Workers that note whom they work on, until they are let go on."""

    def __init__(self, workers: int = 2) -> None:
        self.queue = Queue()
        self.log: list[Key] = []
        self.inside: list[Key] = []
        self.together: list[list[Key]] = []
        self.door = asyncio.Event()
        self.tasks = [asyncio.ensure_future(self.queue.work(self._look)) for _ in range(workers)]

    async def _look(self, key: Key) -> None:
        self.log.append(key)
        self.inside.append(key)
        self.together.append(list(self.inside))
        await self.door.wait()
        self.inside.remove(key)

    async def done(self) -> list[Key]:
        """Let everybody go on, and return what was worked on."""
        self.door.set()
        await self.queue.idle()
        for task in self.tasks:
            task.cancel()
        return self.log


async def test_once() -> None:
    """A key that waits is not queued a second time."""
    office = Office()
    for key in (A, B, A, A):
        office.queue.wake(key)
    assert len(office.queue) == 2

    assert await office.done() == [A, B]


async def test_again() -> None:
    """A key that is woken while it is worked on comes again, once, and never beside itself."""
    office = Office()
    office.queue.wake(A)
    await asyncio.sleep(1)
    for _ in range(3):
        office.queue.wake(A)
    await asyncio.sleep(1)
    assert office.inside == [A]

    assert await office.done() == [A, A]
    assert all(len(set(keys)) == len(keys) for keys in office.together)


async def test_side_by_side() -> None:
    """Different keys are worked on at once, as many as there are workers."""
    office = Office(workers=2)
    for name in "abc":
        office.queue.wake(Key("ns", name))
    await asyncio.sleep(1)
    assert len(office.inside) == 2
    assert len(office.queue) == 1

    assert len(await office.done()) == 3
