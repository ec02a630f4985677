"""The driver: what it asks, what it carries forward, and what it does not dare."""

import asyncio
from typing import Any

import pytest

from podvif.controller.cluster import Cluster
from podvif.controller.defaults import Defaults
from podvif.controller.neutron_vif import ASK_AGAIN, DeposedError, NeutronPodVIFDriver, Walk
from podvif.controller.tally import Tally
from podvif.core.pods import (
    CreatePodVif,
    DeletePodVif,
    DeletePort,
    Fail,
    RebindPort,
    RemoveFinalizer,
    SeenPod,
    next_action,
)
from podvif.errors import Bug, Refused, Retry
from podvif.kube.client import Outcome
from podvif.kube.convert import parse_podvif
from podvif.kube.resources import PODS, PODVIFS, Key
from podvif.podvifs import FINALIZER, Spec
from tests.fakes.controller import NODE, Stage
from tests.fakes.neutron import FakeNeutron

P = Key("ns", "p")


class Desk:
    """A driver whose caches follow when they are told to."""

    def __init__(self, stage: Stage) -> None:
        clock = asyncio.get_running_loop().time
        self.stage = stage
        self.leading = True
        self.tally = Tally()
        self.neutron = FakeNeutron(stage.cloud, clock=clock)
        self.cluster = Cluster(stage.kube, cluster_network=True, prefix="eth", clock=clock)
        self.defaults = Defaults(self.neutron, stage.settings)
        self.walk = Walk(P)
        self._following: asyncio.Future[None] | None = None

    def lead(self) -> None:
        """A leadership begins."""
        self.driver = NeutronPodVIFDriver(
            self.stage.kube,
            self.neutron,
            self.cluster,
            self.defaults,
            leading=lambda: self.leading,
            tally=self.tally,
            clock=asyncio.get_running_loop().time,
            now=lambda: "2026-11-24T12:00:00Z",
        )

    async def follow(self) -> None:
        """The caches come up to date, and no further."""
        following = asyncio.ensure_future(self.cluster.run())
        await asyncio.sleep(1)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    async def see(self) -> SeenPod:
        return await self.driver.observe(self.walk, self.cluster.facts(P))

    async def do(self, action: Any) -> None:
        await self.driver.do(self.walk, self.cluster.podvif(P), action)

    async def step(self) -> Any:
        """Decide and do."""
        found = next_action(await self.see(), self.defaults.known)
        if found is not None and not isinstance(found, Fail):
            await self.do(found)
        return found

    async def walk_on(self) -> Any:
        """Decide and do until nothing is left or something is in the way."""
        while (found := await self.step()) is not None and not isinstance(found, Fail):
            pass
        return found

    def asked(self, name: str) -> int:
        return self.stage.cloud.requests.count(name)


@pytest.fixture
async def desk(stage: Stage) -> Desk:
    """A driver that knows of a pod."""
    await stage.pod()
    made = Desk(stage)
    await made.follow()
    made.lead()
    return made


async def test_walk(desk: Desk, stage: Stage) -> None:
    """A walk goes on from the answers to its own requests: the caches need not follow, and ports are listed once."""
    assert await desk.walk_on() is None
    assert stage.bound()
    assert desk.asked("ports_of") == 1
    assert desk.tally.actions == {("CreatePodVif", "ok"): 1, ("CreatePort", "ok"): 1, ("WriteStatus", "ok"): 1}


async def test_new_pod(stage: Stage) -> None:
    """A pod that comes while this controller leads has no ports that would have to be listed; later it may have some."""
    desk = Desk(stage)
    desk.lead()
    await stage.pod()
    await desk.follow()
    assert await desk.walk_on() is None
    assert stage.bound()
    assert desk.asked("ports_of") == 0
    await stage.kube.delete(PODVIFS, P)
    await desk.follow()
    desk.walk = Walk(P)
    assert await desk.walk_on() is None
    assert stage.bound()
    assert len(stage.ports) == 1
    assert desk.asked("ports_of") == 1


async def test_new_pod_whose_podvif_is_not_ours(stage: Stage) -> None:
    """Where a PodVif was there before this controller made one, ports may be there too."""
    desk = Desk(stage)
    desk.lead()
    pod = await stage.pod()
    await desk.follow()
    spec = {"nodeName": NODE, "podUID": pod["metadata"]["uid"], "interfaces": [{"name": "eth0"}]}
    document = {"metadata": {"namespace": "ns", "name": "p", "finalizers": [FINALIZER]}, "spec": spec}
    await stage.kube.create(PODVIFS, document, "a leader before us")
    assert await desk.walk_on() is None
    assert desk.asked("ports_of") == 1


async def test_not_leading(desk: Desk, stage: Stage) -> None:
    """Nothing is written by who leads no more."""
    desk.leading = False
    before = len(stage.kube.requests)
    for action in (
        CreatePodVif("ns", "p", Spec(NODE, "u")),
        DeletePodVif("u", "1"),
        RemoveFinalizer("u"),
        DeletePort("x", "y"),
        RebindPort("x", NODE),
    ):
        with pytest.raises(DeposedError):
            await desk.do(action)
    assert len(stage.kube.requests) == before
    assert stage.cloud.requests == []


async def test_pod_that_the_cache_does_not_know_yet(stage: Stage) -> None:
    """A PodVif whose pod the cache has not is not that of a pod that is gone: the API server is asked first."""
    pod = await stage.pod()
    desk = Desk(stage)
    await desk.follow()
    desk.lead()
    await desk.walk_on()
    late = Desk(stage)
    late.lead()
    document = stage.kube.objects(PODVIFS)[P]
    late.cluster.note(P, parse_podvif(document))
    seen = await late.see()
    assert seen.pod is not None
    assert seen.pod.uid == pod["metadata"]["uid"]
    assert await late.walk_on() is None
    assert stage.bound()


async def test_pod_that_is_gone(desk: Desk, stage: Stage) -> None:
    """A pod that is gone is asked for once a walk, and then its ports and its PodVif go."""
    await desk.walk_on()
    await stage.remove_pod()
    await desk.follow()
    desk.walk = Walk(P)
    before = stage.kube.requests.count("get pods")
    assert await desk.walk_on() is None
    assert stage.empty()
    assert stage.kube.requests.count("get pods") == before + 1


async def test_no_needless_listing(desk: Desk, stage: Stage) -> None:
    """While a pod ends, or its PodVif has only to be deleted, Neutron is not asked."""
    await desk.walk_on()
    await stage.kube.delete(PODS, P)
    await desk.follow()
    desk.walk = Walk(P)
    stage.cloud.requests.clear()
    assert await desk.step() is None
    stage.kube.finish(PODS, P)
    await desk.follow()
    desk.walk = Walk(P)
    assert isinstance(await desk.step(), DeletePodVif)
    assert stage.cloud.requests == []


async def test_podvif_of_somebody_else(desk: Desk, stage: Stage) -> None:
    """A PodVif that is there already is read and gone on from."""
    document = {"metadata": {"namespace": "ns", "name": "p"}, "spec": {"nodeName": NODE, "podUID": "another"}}
    await stage.kube.create(PODVIFS, document, "somebody")
    assert isinstance(await desk.step(), CreatePodVif)
    known = desk.cluster.podvif(P)
    assert known is not None
    assert known.spec.pod_uid == "another"
    assert await desk.walk_on() is None
    assert stage.bound()


async def test_conflict(desk: Desk, stage: Stage) -> None:
    """A PodVif that has changed in between is read anew, and what is still to be done is done."""
    await desk.walk_on()
    await stage.kube.delete(PODVIFS, P)
    await desk.follow()
    await stage.kube.merge(PODVIFS, P, {"metadata": {"labels": {"a": "b"}}}, "somebody")
    assert isinstance(await desk.step(), RemoveFinalizer)
    assert stage.podvif() is not None
    assert isinstance(await desk.step(), RemoveFinalizer)
    assert stage.podvif() is None


async def test_finalizer_of_another(desk: Desk) -> None:
    """To take a finalizer off another PodVif than the one that was seen is a bug."""
    with pytest.raises(Bug):
        await desk.do(RemoveFinalizer("another"))


async def test_other_finalizers_stay(desk: Desk, stage: Stage) -> None:
    """Finalizers of others are theirs."""
    await desk.walk_on()
    mine = stage.podvif()
    assert mine is not None
    both = ["other/finalizer", *mine.finalizers]
    await stage.kube.merge(PODVIFS, P, {"metadata": {"finalizers": both}}, "somebody")
    await stage.remove_pod()
    await desk.follow()
    desk.walk = Walk(P)
    await desk.walk_on()
    left = stage.podvif()
    assert left is not None
    assert left.finalizers == ("other/finalizer",)
    assert stage.ports == []


async def test_refusal(desk: Desk, stage: Stage) -> None:
    """What Neutron refuses is known for the rest of the walk, and not asked for again in it."""
    stage.cloud.quota = 0
    found = await desk.walk_on()
    assert isinstance(found, Fail)
    assert (found.reason, "Quota" in found.error.message) == ("PortNotMade", True)
    assert desk.asked("create_port") == 1
    assert desk.tally.actions["CreatePort", "retry"] == 1


async def test_neutron_away(desk: Desk, stage: Stage) -> None:
    """A Neutron that was found to be away is not asked by every pod, but by the first after a moment."""
    stage.cloud.down = True
    found = await desk.walk_on()
    assert isinstance(found, Fail)
    assert found.reason == "NeutronUnreachable"
    assert found.error.message.startswith("Neutron unreachable since ")
    asked: list[str] = []
    stage.cloud.before_act = asked.append
    desk.walk = Walk(P)
    assert (await desk.see()).trouble == found.error.message
    assert asked == []
    await asyncio.sleep(ASK_AGAIN)
    desk.walk = Walk(P)
    await desk.see()
    assert asked == ["ports_of"]


async def test_lost_under_way(desk: Desk, stage: Stage) -> None:
    """A Neutron that is lost while a port is made, bound or deleted is away, whatever the act was."""
    await desk.walk_on()
    (port,) = stage.ports
    stage.cloud.down = True
    for action in (DeletePort(port.id, "x"), RebindPort(port.id, NODE)):
        desk.walk.trouble = None
        await desk.do(action)
        assert (await desk.see()).trouble == desk.neutron.trouble()
    assert desk.neutron.trouble() is not None


async def test_no_namespace(desk: Desk, stage: Stage) -> None:
    """A namespace that is gone is one to retry."""

    class NoNamespace:
        def __getattr__(self, name: str) -> Any:
            return getattr(stage.kube, name)

        async def create(self, *_: Any) -> Outcome:
            return Outcome.MISSING

    desk.driver._api = NoNamespace()
    with pytest.raises(Retry, match="namespace ns"):
        await desk.step()


async def test_security_group_that_is_missing(desk: Desk) -> None:
    """Without the security groups that were asked for no port is made."""
    desk.defaults._groups = ("no-such",)
    found = await desk.walk_on()
    assert isinstance(found, Fail)
    assert isinstance(found.error, Refused)
    assert "no-such" in found.error.message
    assert desk.asked("create_port") == 0


async def test_places_that_are_missing(desk: Desk, stage: Stage) -> None:
    """A subnet or a network that cannot be read is known with the reason."""
    await desk.walk_on()
    podvif = stage.podvif()
    assert podvif is not None
    stage.cloud.down = True
    desk.neutron._facts.clear()
    found = await desk.driver.places(podvif, tuple(stage.ports))
    assert all(isinstance(value, Retry) for value in [*found.subnets.values(), *found.networks.values()])
    assert found.subnets
    assert found.networks
