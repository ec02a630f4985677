"""The loop, on worlds that behave and on worlds that do not."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from podvif.core.attach import Step, Want
from podvif.errors import Bug, PodvifError, Refused, Retry
from podvif.model import Addresses, Attachment, Goal, Seen, SocketFile
from podvif.node.converge import STEPS_MAX, Locks, SupersededError, converge
from tests.fakes.values import ATTACHMENT, port_of, vif

NOTHING = Seen(
    switch_trouble=None,
    directory=True,
    bridge_datapath=None,
    port=None,
    settled=True,
    pod_socket=SocketFile.ABSENT,
    ovs_socket=SocketFile.ABSENT,
    addresses=Addresses(),
    addresses_held=False,
    files_current=False,
    files_present=False,
    journalled=True,
)
WAY = [Step.PLUG, Step.AWAIT_PORT, Step.WRITE_MARKS, Step.WRITE_FILES]


def want(attachment: Attachment = ATTACHMENT, goal: Goal = Goal.ATTACHED) -> Want:
    return Want(attachment, goal, vif(attachment=attachment))


class World:
    """Ports without marks, in which vswitchd takes a port when `taken` is set.

    Attributes:
        before: called with each step before it is done; raise from it to make it fail.
        inside: the sandboxes that are being acted on.
    """

    def __init__(self) -> None:
        self.seen: dict[Attachment, Seen] = {}
        self.done: list[tuple[Attachment, Step]] = []
        self.before: Callable[[Step], None] = lambda _: None
        self.inside: Counter[str] = Counter()
        self.most = 0
        self.taken = asyncio.Event()
        self.taken.set()
        self.waiting = asyncio.Event()

    def observe(self, want: Want) -> Seen:
        return self.seen.setdefault(want.attachment, NOTHING)

    async def do(self, want: Want, step: Step, seen: Seen) -> None:
        self.before(step)
        self.inside[want.attachment.container_id] += 1
        self.most = max(self.most, self.inside.total())
        assert self.inside[want.attachment.container_id] == 1, "two acts at once in one sandbox"
        await asyncio.sleep(0)
        self.inside[want.attachment.container_id] -= 1
        self.done.append((want.attachment, step))
        port = port_of(want.vif)
        marked = {"podvif-container-id": want.attachment.container_id, "podvif-ifname": want.attachment.ifname}
        changes: dict[Step, dict[str, Any]] = {
            Step.PLUG: {"port": msgspec.structs.replace(port, ofport=None)},
            Step.WRITE_MARKS: {"port": msgspec.structs.replace(port, external_ids=port.external_ids | marked)},
            Step.WRITE_FILES: {"files_current": True, "files_present": True},
            Step.REMOVE_FILES: {"files_current": False, "files_present": False},
            Step.UNPLUG: {"port": None},
            Step.FORGET: {"journalled": False},
        }
        self.seen[want.attachment] = msgspec.structs.replace(self.seen[want.attachment], **changes[step])

    async def wait(self, want: Want, step: Step, seen: Seen) -> None:
        assert step is Step.AWAIT_PORT
        self.waiting.set()
        await self.taken.wait()
        self.seen[want.attachment] = msgspec.structs.replace(self.seen[want.attachment], port=port_of(want.vif))


async def go(
    world: World,
    goal: Want | None = None,
    locks: Locks | None = None,
    *,
    seconds: float = 10,
    wanted: Callable[[], bool] = lambda: True,
) -> list[Step]:
    outcome = await converge(goal or want(), world, locks or Locks(), seconds=seconds, wanted=wanted)
    assert outcome.waits_for is None
    return outcome.steps


async def test_way() -> None:
    """The loop does what is missing, in order, says which steps it took, and does nothing where nothing is missing."""
    world = World()

    assert await go(world) == WAY
    assert [step for _, step in world.done] == [step for step in WAY if step is not Step.AWAIT_PORT]
    assert await go(world) == []


@pytest.mark.parametrize("failing", [Step.PLUG, Step.WRITE_MARKS, Step.WRITE_FILES])
async def test_each_step_fails_once(failing: Step) -> None:
    """A step that fails ends the loop with its own error, and another loop goes on from there."""
    world = World()
    orders: list[PodvifError] = [Retry("not now")]

    def fail(step: Step) -> None:
        if step is failing and orders:
            raise orders.pop()

    world.before = fail
    with pytest.raises(Retry, match="not now"):
        await go(world)

    assert await go(world) == WAY[WAY.index(failing) :]


async def test_refusal_of_the_table() -> None:
    """Where the table knows no step its error is raised."""
    world = World()
    world.seen[ATTACHMENT] = msgspec.structs.replace(NOTHING, bridge_datapath="system")

    with pytest.raises(Refused, match="vhost-user ports need netdev"):
        await go(world)


async def test_deadline() -> None:
    """A wait that is too long ends with what was waited for and how long."""
    world = World()
    world.taken.clear()

    with pytest.raises(Retry) as caught:
        await go(world, seconds=0.05)

    assert caught.value.message == f"ovs-vswitchd has not taken OVS port {vif().name} within 0.05 s"
    assert caught.value.remedy


async def test_deadline_is_for_all_waits() -> None:
    """Being woken up for nothing does not lengthen the wait, nor is each time a step."""

    class Restless(World):
        async def wait(self, want: Want, step: Step, seen: Seen) -> None:
            await asyncio.sleep(0.001)

    with pytest.raises(Retry, match="within"):
        await go(Restless(), seconds=0.2)


async def test_superseded() -> None:
    """Whoever comes back from a wait and is not wanted any more does nothing further."""
    world, wanted = World(), [True]
    world.taken.clear()
    running = asyncio.ensure_future(go(world, wanted=lambda: wanted[0]))
    await world.waiting.wait()

    wanted[0] = False
    world.taken.set()

    with pytest.raises(SupersededError):
        await running
    assert [step for _, step in world.done] == [Step.PLUG]


async def test_circle() -> None:
    """A world in which a step changes nothing is a bug, said with the steps that were taken, and no endless loop."""

    class Deaf(World):
        async def do(self, want: Want, step: Step, seen: Seen) -> None:
            self.done.append((want.attachment, step))

    world = Deaf()
    with pytest.raises(Bug, match="c0ffee:net1 does not reach its goal: plug, plug"):
        await go(world)

    assert len(world.done) == STEPS_MAX


async def test_serial_in_a_sandbox_and_parallel_across() -> None:
    """Of one sandbox one act happens at a time (the world asserts it), of several sandboxes several."""
    world, locks = World(), Locks()
    attachments = [Attachment(sandbox, f"net{number}") for sandbox in "abc" for number in range(4)]

    await asyncio.gather(*(go(world, want(attachment), locks=locks) for attachment in attachments))

    assert world.most == 3
    assert len(world.done) == 3 * len(attachments)


async def test_lock_is_not_held_while_waiting() -> None:
    """While one interface waits for vswitchd another one of its sandbox, or its own removal, goes its way."""
    world, locks = World(), Locks()
    world.taken.clear()
    waiting = asyncio.ensure_future(go(world, locks=locks))
    await world.waiting.wait()

    world.seen[ATTACHMENT] = msgspec.structs.replace(world.seen[ATTACHMENT], files_present=True)
    removed = await asyncio.wait_for(go(world, want(goal=Goal.LEAVING), locks=locks), 5)

    assert removed == [Step.REMOVE_FILES, Step.UNPLUG, Step.FORGET]
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_locks_are_dropped() -> None:
    """A lock is there as long as somebody holds it or waits for it, given up waits included."""
    locks = Locks()
    async with locks.sandbox("a"):
        waiting = asyncio.ensure_future(_hold(locks))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert set(locks._locks) == {"a"}
        async with locks.sandbox("b"):
            assert set(locks._locks) == {"a", "b"}

    assert not locks._locks


async def _hold(locks: Locks) -> None:
    async with locks.sandbox("a"):
        raise AssertionError("the lock is held by somebody else")


async def test_cancelled_act() -> None:
    """A loop that is cancelled in the middle of an act lets go of its lock."""
    locks, world = Locks(), World()
    running = asyncio.ensure_future(go(world, locks=locks))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not locks._locks
