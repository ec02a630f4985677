"""How a daemon ends."""

import asyncio
import os
import signal

import pytest

from podvif.daemon import life


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal(number: signal.Signals) -> None:
    """A signal ends it."""
    stop = life.stop_event()
    running: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended = asyncio.ensure_future(life.until(stop, [running]))
    os.kill(os.getpid(), number)

    async with asyncio.timeout(10):
        await ended
    assert not running.done()
    running.cancel()


async def test_part_that_dies() -> None:
    """A part that dies ends it with what the part died of."""

    async def dies() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await life.until(asyncio.Event(), [asyncio.ensure_future(dies())])


async def test_part_that_ends() -> None:
    """A part that has done its work is not waited for, and is no end."""
    stop = asyncio.Event()
    ended = asyncio.ensure_future(life.until(stop, [asyncio.ensure_future(asyncio.sleep(0))]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not ended.done()
    stop.set()

    async with asyncio.timeout(10):
        await ended
