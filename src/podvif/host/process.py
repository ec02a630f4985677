"""Other processes: hearing of their end."""

import asyncio
import os


async def ended(pid: int) -> None:
    """Return when the process has ended, at once when there is none; a process that is no child of ours is fine."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
