"""The end of a daemon: asked for by a signal, or forced by a part of it that died."""

import asyncio
import signal
from collections.abc import Sequence
from typing import Any


def stop_event() -> asyncio.Event:
    """Is set by SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def until(stop: asyncio.Event, background: Sequence[asyncio.Future[None]]) -> None:
    """Wait for the end; a background task that dies is the end too, and loud: a service manager starts us again."""
    stopped = asyncio.ensure_future(stop.wait())
    waiting: set[asyncio.Future[Any]] = {stopped, *background}
    try:
        while not stopped.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        stopped.cancel()
