"""Hearing of the end of a process."""

import asyncio
import sys

from podvif.host import process


async def test_end_of_a_process() -> None:
    """The end of a process is heard of, and not before it has come."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    waiting = asyncio.ensure_future(process.ended(child.pid))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()

    await child.communicate(b"\n")

    await asyncio.wait_for(waiting, 10)


async def test_no_process() -> None:
    """A process that has ended already is heard of at once."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await child.wait()

    await asyncio.wait_for(process.ended(child.pid), 10)
