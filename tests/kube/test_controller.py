"""The controller on a real API server: as a task, and as the process that a cluster runs, killed and stopped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.controller.cluster import Cluster
from podvif.controller.lead import Leader
from podvif.controller.tally import Tally
from podvif.core.networks import KURYR_CONFIG, NETWORKS
from podvif.core.ports import interface_of
from podvif.kube.client import Kube, Outcome
from podvif.kube.convert import parse_podvif
from podvif.kube.events import Recorder
from podvif.kube.resources import CRDS, EVENTS, LEASES, NADS, PODS, PODVIFS, Document, Key, Where
from podvif.lab.controller import Controller
from podvif.podvifs import FINALIZER, PodVif
from podvif.settings import load_controller
from tests.fakes.neutron import FakeCloud, FakeNeutron
from tests.fakes.neutron_http import NeutronServer
from tests.kube.rights import NAMESPACE, Rights
from tests.kube.worlds import MANAGER, RealWorld

NODE = "n1"
SECONDS = 60.0

NAD_CRD: Document = {
    "metadata": {"name": f"{NADS.plural}.{NADS.group}"},
    "spec": {
        "group": NADS.group,
        "scope": "Namespaced",
        "names": {"plural": NADS.plural, "singular": "network-attachment-definition", "kind": NADS.kind},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"config": {"type": "string"}}}}}
                },
            }
        ],
    },
}  # fmt: skip


class Stage:
    """A namespace of a real API server, and a fake Neutron."""

    def __init__(self, world: RealWorld) -> None:
        self.world = world
        self.kube: Kube = world.kube  # type: ignore[assignment]
        self.cloud = FakeCloud(hosts={NODE: "server"})
        self.network, self.subnet = self.cloud.make_network("10.10.0.0/16", "pods")
        self.node = NODE

    async def pod(self, name: str = "p1", networks: str = "") -> Document:
        """A pod that was scheduled; deleted, it goes at once, as if its kubelet had stopped it."""
        annotations = {NETWORKS: networks} if networks else {}
        metadata = {"namespace": self.world.namespace, "name": name, "annotations": annotations}
        spec = {
            "nodeName": self.node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": "none"}],
        }
        made = await self.kube.create(PODS, {"metadata": metadata, "spec": spec}, MANAGER)
        assert not isinstance(made, Outcome)
        return made

    async def remove_pod(self, name: str = "p1") -> None:
        assert await self.kube.delete(PODS, self.world.key(name)) is None

    async def podvifs(self) -> dict[str, PodVif]:
        found, _ = await self.world.listed(PODVIFS, self.world.here)
        return {podvif.name: podvif for podvif in map(parse_podvif, found)}

    async def bound(self, names: set[str]) -> bool:
        """Whether exactly these pods have PodVifs and ports, and those agree."""
        podvifs = await self.podvifs()
        if podvifs.keys() != names:
            return False
        status = {
            (podvif.spec.pod_uid, interface.name, interface.port_id)
            for podvif in podvifs.values()
            for interface in podvif.status.interfaces
        }
        ports = {(port.device_id, interface_of(port), port.id) for port in list(self.cloud.all_ports.values())}
        said = {one.status for podvif in podvifs.values() for one in podvif.status.conditions if one.type == "Bound"}
        wanted = sum(len(podvif.spec.interfaces) for podvif in podvifs.values())
        return status == ports and len(ports) == wanted and said <= {"True"}

    async def until_bound(self, *names: str, seconds: float = SECONDS) -> None:
        """Wait until exactly these pods are bound."""
        await until(lambda: self.bound(set(names)), seconds)

    async def clear(self) -> None:
        """Whatever a test that failed has left."""
        for resource in (PODS, PODVIFS):
            for document in (await self.world.listed(resource, self.world.here))[0]:
                key = self.world.key(document["metadata"]["name"])
                await self.kube.delete(resource, key)
                await self.kube.merge(resource, key, {"metadata": {"finalizers": None}}, MANAGER)

    async def events(self, name: str = "p1") -> list[str]:
        found, _ = await self.world.listed(EVENTS, Where(self.world.namespace))
        return [event["reason"] for event in found if event["regarding"]["name"] == name]


async def until(what: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait until something is so that nobody tells."""
    async with asyncio.timeout(seconds):
        while not await what():  # noqa: ASYNC110  neither server tells
            await asyncio.sleep(0.1)


@pytest.fixture
async def stage(real: RealWorld) -> AsyncIterator[Stage]:
    """The stage; its pods are gone in the end, for the next one."""
    made = Stage(real)
    yield made
    await made.clear()


@contextlib.asynccontextmanager
async def working(stage: Stage, **settings: Any) -> AsyncIterator[Leader]:
    """A controller that leads, in this process."""
    kube = Kube(str(stage.world.api.kubeconfig))
    cluster = Cluster(kube, cluster_network=True, prefix="eth")
    told = msgspec.structs.replace(load_controller([]), **({"pod_subnet": "pods"} | settings))
    recorder = Recorder(kube, "podvif.io/controller", "me")
    neutron = FakeNeutron(stage.cloud)
    lease, stop = stage.world.key("lease"), asyncio.Event()
    leader = Leader(kube, neutron, cluster, recorder, told, lease=lease, leading=lambda: True, tally=Tally())
    tasks = [asyncio.ensure_future(cluster.run()), asyncio.ensure_future(leader.lead(stop))]
    try:
        yield leader
        stop.set()
        await tasks[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await kube.close()


async def test_flow(stage: Stage) -> None:
    """A pod of a real API server gets its PodVif and its port, and both go with it; no CRD of NADs is needed for that."""
    async with working(stage):
        pod = await stage.pod()
        await stage.until_bound("p1")
        podvif = (await stage.podvifs())["p1"]
        assert podvif.finalizers == (FINALIZER,)
        assert podvif.spec.pod_uid == pod["metadata"]["uid"]
        assert podvif.generation == 1
        await stage.remove_pod()
        await stage.until_bound()
    assert stage.cloud.all_ports == {}


async def test_networks(stage: Stage) -> None:
    """A NetworkAttachmentDefinition that is missing is said on the pod, and when it is made the pod gets both interfaces."""
    _, other = stage.cloud.make_network("192.168.0.0/24")
    await stage.kube.apply(CRDS, Key("", NAD_CRD["metadata"]["name"]), NAD_CRD, MANAGER)
    async with working(stage):
        await stage.pod(networks="fast")

        async def said() -> bool:
            return "NetworksRefused" in await stage.events()

        await until(said)
        metadata = {"namespace": stage.world.namespace, "name": "fast"}
        metadata |= {"annotations": {KURYR_CONFIG: f'{{"subnetId": "{other}"}}'}}  # type: ignore[dict-item]
        await stage.kube.create(NADS, {"metadata": metadata, "spec": {}}, MANAGER)
        await stage.until_bound("p1")
        interfaces = (await stage.podvifs())["p1"].status.interfaces
        assert [interface.name for interface in interfaces] == ["eth0", "eth1"]


async def test_binding_failed(stage: Stage) -> None:
    """What no agent binds is said in event and condition, and is bound when there is an agent."""
    stage.cloud.hosts.clear()
    async with working(stage):
        await stage.pod()

        async def said() -> bool:
            return "BindingFailed" in await stage.events()

        await until(said)
        condition = (await stage.podvifs())["p1"].status.conditions[0]
        assert (condition.status, condition.reason) == ("False", "BindingFailed")
        stage.cloud.hosts[NODE] = "client"
        await stage.until_bound("p1")


async def test_node_writes_too(stage: Stage) -> None:
    """The node's conditions and the controller's stand side by side, whoever writes last."""
    stage.cloud.hosts.clear()
    plugged = {"type": "Plugged", "status": "True", "reason": "Plugged", "lastTransitionTime": "2026-11-24T12:00:00Z"}
    async with working(stage):
        await stage.pod()

        async def there() -> bool:
            return bool((await stage.podvifs()).get("p1"))

        await until(there)
        await stage.kube.apply(PODVIFS, stage.world.key(), {"status": {"conditions": [plugged]}}, "node", status=True)
        stage.cloud.hosts[NODE] = "client"
        await stage.until_bound("p1")
    conditions = (await stage.podvifs())["p1"].status.conditions
    assert {condition.type: condition.status for condition in conditions} == {"Bound": "True", "Plugged": "True"}


async def test_api_server_killed(stage: Stage) -> None:
    """Pods that come and go while the API server is killed are served when it is back, and no port is made twice."""
    names = [f"p{number}" for number in range(1, 41)]
    async with working(stage):
        await asyncio.gather(*(stage.pod(name) for name in names[:20]))
        await until(_has(stage, 5))
        await stage.world.lose()
        await stage.world.regain()
        await asyncio.gather(*(stage.pod(name) for name in names[20:]))
        await stage.remove_pod("p1")
        await stage.until_bound(*names[1:], seconds=100)


def _has(stage: Stage, ports: int) -> Callable[[], Any]:
    async def has() -> bool:
        return len(stage.cloud.all_ports) >= ports

    return has


# -- the process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def neutron(stage: Stage) -> Iterator[NeutronServer]:
    """The fake Neutron for a process."""
    with NeutronServer(stage.cloud) as server:
        yield server


def process(stage: Stage, neutron: NeutronServer, folder: Path) -> Controller:
    """A controller as a cluster runs it."""
    more = {
        "neutron_defaults": {"pod_subnet": "pods"},
        "controller": {"lease_namespace": stage.world.namespace, "sweep_grace": "1"},
    }
    return Controller(folder, kubeconfig=stage.world.api.kubeconfig, neutron=neutron.options, more=more)


async def holder(stage: Stage) -> str:
    lease = await stage.kube.get(LEASES, stage.world.key("podvif-controller"))
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


async def test_process_killed(stage: Stage, neutron: NeutronServer, tmp_path: Path) -> None:
    """A controller that is killed in the middle of its work is followed by one that finishes it, port by port once."""
    names = [f"p{number}" for number in range(1, 61)]
    with process(stage, neutron, tmp_path) as controller:
        await asyncio.gather(*(stage.pod(name) for name in names))
        for ports in (5, 25, 45):
            await until(_has(stage, ports))
            controller.kill()
            controller.start()
        await stage.until_bound(*names, seconds=100)
        assert len(stage.cloud.all_ports) == 60
        await asyncio.gather(*(stage.remove_pod(name) for name in names))
        for _ in range(2):
            await asyncio.sleep(0.5)
            controller.kill()
            controller.start()
        await stage.until_bound(seconds=100)
        assert stage.cloud.all_ports == {}


async def test_process_stopped(stage: Stage, neutron: NeutronServer, tmp_path: Path) -> None:
    """A controller that is stopped gives its lease back, so that the one that stands by goes on at once."""
    with process(stage, neutron, tmp_path / "a") as first:

        async def led() -> bool:
            return bool(await holder(stage))

        await until(led)
        leader = await holder(stage)
        with process(stage, neutron, tmp_path / "b"):
            await stage.pod()
            await stage.until_bound("p1")
            assert first.stop() == 0
            await stage.pod("p2")
            await stage.until_bound("p1", "p2")
            assert await holder(stage) not in {"", leader}
    assert await holder(stage) == ""


async def test_process_with_everything_away(stage: Stage, tmp_path: Path) -> None:
    """A controller whose API server and Neutron are away at start waits for both."""
    with NeutronServer(stage.cloud) as server:
        options = server.options  # its port is free again after this
    await stage.world.lose()
    more = {"neutron_defaults": {"pod_subnet": "pods"}, "controller": {"lease_namespace": stage.world.namespace}}
    with Controller(tmp_path, kubeconfig=stage.world.api.kubeconfig, neutron=options, more=more):
        await stage.world.regain()
        await stage.pod()

        async def said() -> bool:
            return "NeutronUnreachable" in await stage.events()

        await until(said)
        assert "Neutron unreachable since" in (await stage.podvifs())["p1"].status.conditions[0].message


async def test_rights(stage: Stage, neutron: NeutronServer, tmp_path: Path) -> None:
    """The rights of deploy/rbac are enough for a pod's whole way, with the Lease and what is said on the way, and none is idle."""
    rights = Rights(stage.world, "controller")
    config = await rights.kubeconfig(tmp_path / "podvif-controller.kubeconfig")
    await stage.kube.apply(CRDS, Key("", NAD_CRD["metadata"]["name"]), NAD_CRD, MANAGER)
    more = {
        "neutron_defaults": {"pod_subnet": "pods"},
        "controller": {"lease_namespace": NAMESPACE, "resync_interval": "2", "sweep_grace": "1"},
    }
    stage.cloud.hosts.clear()
    with Controller(tmp_path, kubeconfig=config, neutron=neutron.options, more=more) as controller:
        await stage.pod()

        async def said(times: int = 1) -> bool:
            found, _ = await stage.world.listed(EVENTS, stage.world.here)
            return any(
                event["reason"] == "BindingFailed" and event.get("series", {}).get("count", 1) >= times
                for event in found
            )

        await until(said)
        assert controller.stop() == 0
        controller.start()
        await until(lambda: said(2))  # by another process: an Event that was there is counted
        stage.cloud.hosts[NODE] = "server"
        await stage.until_bound("p1")
        await stage.kube.delete(PODVIFS, stage.world.key())
        await stage.remove_pod()  # the PodVif may not have come again yet: then its port is for the sweep
        await stage.until_bound()
        await stage.pod("p2")
        await stage.until_bound("p2")
        await stage.remove_pod("p2")
        await stage.until_bound()
        assert controller.stop() == 0
        assert "orbidden" not in controller.log.read_text()
    assert rights.asked() == (rights.granted, [])
