"""The loop: observe, decide, do.

Law: one lock for each sandbox is held from the observation to the end of the act, so that nobody acts on what somebody else
has just changed; it is not held while waiting for vswitchd, so that a DEL need not wait for an ADD that hangs.  Whoever
comes back from a wait asks first whether it is still wanted.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

import msgspec

from podvif.core.attach import Fail, Step, Want
from podvif.core.decide import next_step
from podvif.errors import Bug, Retry
from podvif.model import Seen

STEPS_MAX = 32
"""More steps than any way to a goal has; a walk that is longer goes in circles."""

WAITS = frozenset({Step.AWAIT_PORT, Step.AWAIT_REMOVAL, Step.AWAIT_SOCKET, Step.AWAIT_WIRED})


class World(Protocol):
    """What the loop needs of the part that touches the world."""

    def observe(self, want: Want) -> Seen:
        """The facts, now."""

    async def do(self, want: Want, step: Step, seen: Seen) -> None:
        """One idempotent act."""

    def wait(self, want: Want, step: Step, seen: Seen) -> Coroutine[Any, Any, None]:
        """Return when the fact that `step` waits for may have changed since `seen`."""


class Outcome(msgspec.Struct, frozen=True):
    """How a walk ended.

    Attributes:
        steps: what was done on it.
        seen: the facts as they were seen last.
        waits_for: the wait that it ended at, since the caller hears of the event himself; None at the goal.
    """

    steps: list[Step]
    seen: Seen
    waits_for: Step | None = None


class SupersededError(Exception):
    """Another verb has given the attachment another goal meanwhile."""


class Locks:
    """One lock for each sandbox, made when needed and dropped when nobody holds it."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def sandbox(self, container_id: str) -> AsyncIterator[None]:
        """Hold the sandbox's lock."""
        lock, users = self._locks.get(container_id, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[container_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[container_id]
            if users == 1:
                del self._locks[container_id]
            else:
                self._locks[container_id] = (lock, users - 1)


async def converge(
    want: Want,
    world: World,
    locks: Locks,
    *,
    seconds: float,
    wanted: Callable[[], bool],
    unwanted: asyncio.Future[None] | None = None,
    waiting: bool = True,
) -> Outcome:
    """Do what is missing until nothing is.

    Args:
        want: the goal.
        world: where it is observed and done.
        locks: the sandboxes' locks.
        seconds: how long it may wait in all.
        wanted: whether the goal still is one; asked under the lock before each step.
        unwanted: done when it may be none any more; ends a wait.
        waiting: whether to wait at all; else a wait ends the walk.

    Raises:
        SupersededError: it is not.
        Retry: a wait was too long, or the world is not ready.
        Refused: no step leads to the goal.
        Bug: the walk goes in circles.
    """
    deadline = time.monotonic() + seconds
    taken: list[Step] = []
    while len(taken) < STEPS_MAX:
        async with locks.sandbox(want.attachment.container_id):
            if not wanted():
                raise SupersededError
            seen = world.observe(want)
            step = next_step(want, seen)
            if step is None:
                return Outcome(taken, seen)
            if isinstance(step, Fail):
                raise step.error
            if step not in WAITS:
                taken.append(step)
                await world.do(want, step, seen)
                continue
        if not waiting:
            return Outcome(taken, seen, step)
        if not taken or taken[-1] is not step:  # waking up for something else and waiting on is no new step
            taken.append(step)
        if not await _within(deadline - time.monotonic(), world.wait(want, step, seen), unwanted):
            raise _too_late(want, step, seconds)
    raise Bug(f"{want.attachment} does not reach its goal: {', '.join(step.value for step in taken[-8:])}")


async def _within(seconds: float, waiting: Coroutine[Any, Any, None], unwanted: asyncio.Future[None] | None) -> bool:
    """Wait for one of the two; whether it came in time.  An error of the first is raised."""
    task = asyncio.ensure_future(waiting)
    try:
        done, _ = await asyncio.wait(
            {task, unwanted} if unwanted else {task}, timeout=max(0, seconds), return_when=asyncio.FIRST_COMPLETED
        )
        if task in done:
            task.result()
        return bool(done)
    finally:
        task.cancel()


def _too_late(want: Want, step: Step, seconds: float) -> Retry:
    what = {
        Step.AWAIT_PORT: f"ovs-vswitchd has not taken OVS port {want.vif.name}",
        Step.AWAIT_REMOVAL: f"ovs-vswitchd has not caught up with OVSDB, so OVS port {want.vif.name} could not be made",
        Step.AWAIT_SOCKET: f"ovs-vswitchd has not made the socket {want.vif.ovs_socket}",
        Step.AWAIT_WIRED: f"Neutron's agent has not wired OVS port {want.vif.name} of Neutron port {want.vif.port_id}",
    }[step]
    remedy = "look whether ovs-vswitchd runs, and at its log"
    if step is Step.AWAIT_WIRED:
        remedy = "look whether ovn-controller, or neutron-openvswitch-agent, runs on this node, and at its log"
    return Retry(f"{what} within {seconds:g} s", remedy)
