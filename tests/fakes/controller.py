"""A cluster of fakes with controllers in it: what users, kubelets and crashes do, and what came of it."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from podvif.controller.cluster import Cluster
from podvif.controller.lead import Leader
from podvif.controller.tally import Tally
from podvif.core.networks import KURYR_CONFIG, NETWORKS
from podvif.core.ports import interface_of
from podvif.kube.convert import parse_podvif
from podvif.kube.elector import Elector, Timing
from podvif.kube.events import Recorder
from podvif.kube.resources import EVENTS, NADS, PODS, PODVIFS, Document, Key, Resource
from podvif.model import NeutronPort
from podvif.podvifs import PodVif
from podvif.settings import ControllerSettings, load_controller
from tests.fakes.kube import FakeKube
from tests.fakes.neutron import FakeCloud, FakeNeutron

NODE = "n1"
LEASE = Key("kube-system", "podvif-controller")


class Killed(BaseException):
    """The process ends here, as by SIGKILL."""


class Controller:
    """One replica: it leads for as long as nobody says otherwise, or stands for election."""

    def __init__(self, stage: "Stage", user: str = "service") -> None:
        clock = asyncio.get_running_loop().time
        self.leading = True
        self.neutron = FakeNeutron(stage.cloud, user, clock=clock)
        self.cluster = Cluster(stage.kube, cluster_network=True, prefix="eth", clock=clock)
        self.tally = Tally()
        self.stop = asyncio.Event()
        name = f"replica-{next(stage.numbers)}"
        self.elector = Elector(stage.kube, LEASE, name, Timing(15, 10, 2), clock=clock)
        self.elected = False
        self.leader = Leader(
            stage.kube,
            self.neutron,
            self.cluster,
            Recorder(stage.kube, "podvif.io/controller", name),
            stage.settings,
            lease=LEASE,
            leading=self._may_write,
            tally=self.tally,
        )
        self._tasks: list[asyncio.Future[None]] = []

    def _may_write(self) -> bool:
        return self.elector.leading if self.elected else self.leading

    def start(self, *, elected: bool = False) -> None:
        """Begin; `elected`: stand for election first."""
        self.elected = elected
        work = self.elector.run(lambda: self.leader.lead(self.stop)) if elected else self.leader.lead(self.stop)
        self._tasks = [asyncio.ensure_future(self.cluster.run()), asyncio.ensure_future(work)]

    @property
    def work(self) -> "asyncio.Future[None]":
        """What leads, or stands for election."""
        return self._tasks[1]

    async def kill(self) -> None:
        """It is no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Stage:
    """The cluster.

    Attributes:
        kube: its API server.
        cloud: its Neutron.
        network, subnet: UUIDs of where pods are.
        settings: of its controllers.
    """

    def __init__(self, **settings: Any) -> None:
        self.kube = FakeKube(page=500)
        self.cloud = FakeCloud(hosts={NODE: "server"})
        self.network, self.subnet = self.cloud.make_network("10.10.0.0/16", "pods")
        self.numbers = itertools.count(1)
        self.settings: ControllerSettings = msgspec.structs.replace(
            load_controller([]), **({"pod_subnet": "pods"} | settings)
        )
        self.controllers: list[Controller] = []

    # -- who works -----------------------------------------------------------------------------------------------------

    def controller(self, user: str = "service", *, elected: bool = False) -> Controller:
        """One more replica, working."""
        made = Controller(self, user)
        self.controllers.append(made)
        made.start(elected=elected)
        return made

    async def close(self) -> None:
        """All replicas end."""
        for controller in self.controllers:
            await controller.kill()

    def kill_before(self, number: int) -> Callable[[], int]:
        """Have the controller die before its n-th request from now on; returns how many were made."""
        made = 0

        def count(what: str) -> None:
            nonlocal made
            if what.startswith(("list", "watch")):
                return
            made += 1
            if made == number:
                raise Killed(what)

        self.kube.before = lambda verb, resource, _key: count(f"{verb} {resource}")
        self.cloud.before_act = count
        return lambda: made

    def spare(self) -> None:
        """Nobody dies any more."""
        self.kube.before = lambda *_: None
        self.cloud.before_act = lambda _: None

    # -- what happens --------------------------------------------------------------------------------------------------

    async def pod(self, name: str = "p", networks: str = "", **spec: Any) -> Document:
        """A pod that was scheduled."""
        annotations = {NETWORKS: networks} if networks else {}
        metadata = {"namespace": "ns", "name": name, "annotations": annotations}
        made = await self.kube.create(PODS, {"metadata": metadata, "spec": {"nodeName": NODE} | spec}, "user")
        assert isinstance(made, dict)
        return made

    async def nad(self, name: str, subnet: str) -> None:
        """A NetworkAttachmentDefinition in Kuryr's way."""
        metadata = {"namespace": "ns", "name": name, "annotations": {KURYR_CONFIG: f'{{"subnetId": "{subnet}"}}'}}
        await self.kube.create(NADS, {"metadata": metadata, "spec": {}}, "user")

    async def remove_pod(self, name: str = "p") -> None:
        """A pod is deleted, and its kubelet has stopped it."""
        await self.kube.delete(PODS, Key("ns", name))
        self.kube.finish(PODS, Key("ns", name))

    # -- what came of it -----------------------------------------------------------------------------------------------

    def podvif(self, name: str = "p") -> PodVif | None:
        """The PodVif of this name."""
        stored = self.kube._of(PODVIFS).get(Key("ns", name))  # without a copy of all others
        return parse_podvif(stored.document) if stored else None

    @property
    def ports(self) -> list[NeutronPort]:
        """All ports."""
        return list(self.cloud.all_ports.values())

    def reason(self, name: str = "p") -> str:
        """The reason of the Bound condition; empty while there is none."""
        podvif = self.podvif(name)
        conditions = podvif.status.conditions if podvif else ()
        return next((condition.reason for condition in conditions if condition.type == "Bound"), "")

    def bound(self, name: str = "p") -> bool:
        """Whether a pod is bound: condition, interfaces and ports agree, and no port is there twice."""
        podvif = self.podvif(name)
        if podvif is None or self.reason(name) != "PortsBound":
            return False
        ports = {port.id: interface_of(port) for port in self.ports if port.device_id == podvif.spec.pod_uid}
        facts = {interface.port_id: interface.name for interface in podvif.status.interfaces}
        wanted = sorted(interface.name for interface in podvif.spec.interfaces)
        return facts == ports and sorted(facts.values()) == wanted

    def empty(self) -> bool:
        """Whether nothing is left."""
        return not self.ports and not self.kube.objects(PODVIFS)

    def events(self, name: str = "p", about: Resource = PODS) -> list[tuple[str, str]]:
        """Reason and note of each event that is about an object."""
        found = self.kube.objects(EVENTS).values()
        return [
            (event["reason"], event["note"])
            for event in found
            if (event["regarding"]["kind"], event["regarding"]["name"]) == (about.kind, name)
        ]

    async def until(self, what: Callable[[], bool], seconds: float = 100.0) -> float:
        """Let time pass until something is so; how long that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not what():
            assert loop.time() < began + seconds, f"still not so after {seconds} s"
            await asyncio.sleep(0.01)
        return loop.time() - began

    async def never(self, what: Callable[[], bool], seconds: float = 100.0) -> None:
        """Let time pass in which something is never so."""
        with contextlib.suppress(AssertionError):
            await self.until(what, seconds)
            raise LookupError("it was so")


@contextlib.asynccontextmanager
async def staged(**settings: Any) -> AsyncIterator[Stage]:
    """A cluster without a controller."""
    stage = Stage(**settings)
    try:
        yield stage
    finally:
        await stage.close()
