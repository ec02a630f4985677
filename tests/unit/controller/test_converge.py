"""When a pod is looked at, how long it waits for the next look, and what stops a walk."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from podvif.controller.cluster import Facts
from podvif.controller.converge import SECOND, SLOW, Converge
from podvif.controller.neutron_vif import DeposedError, Walk
from podvif.controller.tally import Tally
from podvif.controller.voice import Voice
from podvif.core.pods import ACTIONS_MAX, Action, CreatePodVif, CreatePort, DeletePodVif, SeenPod, WriteStatus
from podvif.errors import Bug, Refused, Retry
from podvif.kube.events import Level, Regarding
from podvif.kube.resources import Key
from podvif.model import NeutronPort
from podvif.podvifs import PodVif
from tests.fakes.cluster import DEFAULTS, ETH0, PLACES, cluster_pod, neutron_port, pod_vif

P = Key("ns", "p")


class World:
    """One pod, as the driver and the caches show it."""

    def __init__(self) -> None:
        clock = asyncio.get_running_loop().time
        self.facts_now = Facts(cluster_pod(), pod_vif(), (ETH0,))
        self.ports: tuple[NeutronPort, ...] = (neutron_port(),)
        self.trouble: str | None = None
        self.away: BaseException | None = None
        self.done: list[str] = []
        self.looks: list[float] = []
        self.events: list[str] = []
        self.on_act: Callable[[], Awaitable[None]] | None = None
        self.tally = Tally()
        self.woken: list[Key] = []
        self.converge = Converge(
            self,
            self,
            Voice(self, lambda: True, clock),
            defaults=lambda: DEFAULTS,
            tally=self.tally,
            wake=self.woken.append,
            retry_max=60,
            clock=clock,
            chance=lambda: 0.5,
        )

    def facts(self, key: Key) -> Facts:
        assert key == P
        return self.facts_now

    async def record(self, regarding: Regarding, level: Level, reason: str, action: str, note: str) -> None:
        self.events.append(reason)

    async def observe(self, walk: Walk, facts: Facts) -> SeenPod:
        if self.away is not None:
            raise self.away
        return SeenPod(
            facts.pod, facts.podvif, facts.wanted, self.ports, PLACES, refusals=walk.refusals, trouble=self.trouble
        )

    async def do(self, walk: Walk, podvif: PodVif | None, action: Action) -> None:
        self.done.append(type(action).__name__)
        if self.on_act is not None:
            await self.on_act()
        match action:
            case WriteStatus(_, status):
                assert podvif is not None
                self.change(podvif=msgspec.structs.replace(podvif, status=status))
            case CreatePodVif(_, _, spec):
                self.change(podvif=pod_vif(pod=self.facts_now.pod, status=pod_vif().status))
                assert self.facts_now.podvif is not None
                self.change(podvif=msgspec.structs.replace(self.facts_now.podvif, spec=spec))
            case DeletePodVif():
                self.change(podvif=None)
            case CreatePort():
                self.ports = (neutron_port(),)

    def change(self, **facts: object) -> None:
        self.facts_now = msgspec.structs.replace(self.facts_now, **facts)

    async def look(self) -> None:
        """Look, whoever asked for it."""
        self.looks.append(asyncio.get_running_loop().time())
        await self.converge.look(P)

    async def later(self, seconds: float) -> int:
        """Let time pass and look whenever the controller asks for it; how often it did."""
        end, before = asyncio.get_running_loop().time() + seconds, len(self.looks)
        while asyncio.get_running_loop().time() < end:
            while self.woken:
                self.woken.pop()
                await self.look()
            await asyncio.sleep(0.1)
        return len(self.looks) - before


FAILED = (neutron_port(vif_type="binding_failed", vif_details={}),)


async def test_until_nothing_is_left() -> None:
    """A look goes on until there is nothing left to do, and the next one costs nothing until something changes."""
    world = World()
    world.ports = ()
    world.change(podvif=None)
    await world.look()
    assert world.done == ["CreatePodVif", "CreatePort", "WriteStatus"]
    world.away = Bug("it was looked at")
    await world.look()
    assert world.tally.looks.keys() == {"ok"}


async def test_settled() -> None:
    """A pod that a round has found in order is not looked at until it changes."""
    world = World()
    world.converge.settled(P, world.facts_now)
    await world.look()
    assert world.tally.looks == {}
    world.change(pod=cluster_pod(annotations={"a": "b"}))
    await world.look()
    assert world.tally.looks != {}


async def test_back_off() -> None:
    """What may pass by itself is tried after one second, then after twice the time, up to a minute."""
    world = World()
    world.ports = FAILED
    await world.look()
    await world.later(400)
    pauses = [round(b - a) for a, b in itertools.pairwise(world.looks)]

    assert pauses[:9] == [1, 2, 3, 6, 12, 24, 45, 45, 45]


async def test_slow() -> None:
    """What somebody has to change is tried once more soon, then seldom, but at once when something changes."""
    world = World()
    world.change(podvif=None, wanted=Refused("NAD is missing"))
    await world.look()
    assert await world.later(SECOND - 1) == 0
    assert await world.later(2) == 1
    assert await world.later(SLOW - 2) == 0
    assert await world.later(2) == 1
    world.change(wanted=(ETH0,))
    await world.look()
    assert "WriteStatus" in world.done
    assert await world.later(1000) == 0


async def test_another_family() -> None:
    """What is refused after it could not be asked for is tried once more soon as well."""
    world = World()
    world.trouble = "Neutron unreachable"
    await world.look()
    await world.later(20)
    world.trouble = None
    world.away = Refused("disallowed by policy")
    await world.later(60)
    pauses = [round(b - a) for a, b in itertools.pairwise(world.looks)]
    assert pauses[-1] == SECOND


async def test_again_once() -> None:
    """A port that was not bound is bound again once after each back-off, and not when something else was the reason."""
    world = World()
    world.ports = FAILED
    await world.look()
    assert world.done == ["WriteStatus"]
    world.change(pod=cluster_pod(annotations={"a": "b"}))
    await world.look()
    assert world.done == ["WriteStatus"]
    assert world.converge.waiting == 1
    await world.later(1)
    assert world.done == ["WriteStatus", "RebindPort"]
    await world.later(2)
    assert world.done == ["WriteStatus", "RebindPort", "RebindPort"]


async def test_said_once() -> None:
    """Many tries that fail alike are one event."""
    world = World()
    world.ports = FAILED
    await world.look()
    await world.later(500)
    assert world.events == ["BindingFailed"]


async def test_round_while_it_fails() -> None:
    """A round that finds a pod wanting while its look is under way, and fails, does not have it looked at again at once."""
    world = World()
    world.ports = FAILED

    async def round_passes() -> None:
        world.converge.look_anew(P)

    world.on_act = round_passes
    await world.look()
    assert world.woken.pop() == P
    await world.look()
    assert world.done == ["WriteStatus"]
    await world.later(2)
    assert world.done == ["WriteStatus", "RebindPort"]


async def test_round_leaves_the_waiting() -> None:
    """A round does not shorten the wait of a pod that waits, and has any other looked at although nothing has changed."""
    world = World()
    world.ports = FAILED
    await world.look()
    world.converge.look_anew(P)
    assert world.woken == []
    world.ports = (neutron_port(),)
    await world.later(5)
    world.done.clear()
    world.ports = ()
    world.converge.look_anew(P)
    await world.later(1)
    assert world.done == ["CreatePort"]


@pytest.mark.parametrize(
    ("error", "reason", "result"),
    [
        (Retry("server is away"), "ApiFailed", "retry"),
        (Refused("forbidden"), "ApiFailed", "refused"),
        (Bug("mine"), "Bug", "bug"),
        (ZeroDivisionError("theirs"), "Bug", "bug"),
    ],
)
async def test_failure(error: Exception, reason: str, result: str) -> None:
    """Whatever goes wrong with one pod is told and tried again, and is no failure of the controller."""
    world = World()
    world.away = error
    await world.look()
    assert world.events == [reason]
    assert world.tally.looks.keys() == {result}
    assert world.converge.waiting == 1
    world.away = None
    await world.later(SLOW + 1)
    assert world.converge.waiting == 0


async def test_deposed() -> None:
    """A walk that must not go on ends without a word."""
    world = World()
    world.away = DeposedError()
    await world.look()
    assert (world.events, world.converge.waiting) == ([], 0)


async def test_walk_without_an_end() -> None:
    """A walk that does not come to an end is a bug and says so."""

    class Forgetful(World):
        async def do(self, walk: Walk, podvif: PodVif | None, action: Action) -> None:
            self.done.append(type(action).__name__)

    world = Forgetful()
    world.ports = ()
    await world.look()
    assert len(world.done) == ACTIONS_MAX
    assert world.events == ["Bug"]


async def test_changed_under_way() -> None:
    """What changes while a look is under way is looked at afterwards."""
    world = World()

    async def change() -> None:
        world.on_act = None
        world.change(pod=cluster_pod(deleting=True))

    world.ports = ()
    world.on_act = change
    await world.look()
    assert world.done == ["CreatePort"]
    world.change(pod=cluster_pod())
    await world.look()
    assert world.done == ["CreatePort", "WriteStatus"]


async def test_neutron_is_back() -> None:
    """When one pod has had Neutron's answer, the others that wait for it are looked at at once."""
    world = World()
    world.trouble = "Neutron unreachable"
    await world.look()
    standing = world.converge._standings[P]
    others = [Key("ns", f"p{number}") for number in range(3)]
    for other in others:
        world.converge._standings[other] = type(standing)(waits_for_neutron=True)
        loop = asyncio.get_running_loop()
        world.converge._standings[other].timer = loop.call_later(60, world.converge._due, other)
    world.trouble = None
    world.ports = FAILED
    standing.over = True
    await world.look()
    assert world.woken == others
    for other in others:
        assert world.converge._standings[other].over


async def test_stop() -> None:
    """After a stop no walk begins, and one that is under way ends after its act."""
    world = World()
    world.ports = ()

    async def stop() -> None:
        world.converge.stop()

    world.on_act = stop
    await world.look()
    assert world.done == ["CreatePort"]
    world.change(pod=cluster_pod(deleting=True))
    await world.look()
    assert world.done == ["CreatePort"]


async def test_forgotten() -> None:
    """Of a pod that is gone with all it had nothing is kept."""
    world = World()
    world.ports = FAILED
    await world.look()
    world.facts_now = Facts()
    await world.look()
    assert world.converge._standings == {}
    assert await world.later(100) == 0
