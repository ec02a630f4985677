"""`source = cluster` with real parts: `podvif node`, its shim, Open vSwitch with DPDK, testpmd, and an API server.

Law: the test plays those who are not here.  As the controller it writes PodVifs as Neutron would say, and as Neutron's agent
it wires OVS ports with ovs-vsctl: by a tag as neutron-openvswitch-agent does, by ovn-installed as ovn-controller does.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from asyncinotify import Inotify, Mask

from podvif import errors, names
from podvif.core.networks import NETWORK_STATUS
from podvif.kube.client import Change, Kube
from podvif.kube.convert import parse_podvif
from podvif.kube.resources import PODS, PODVIFS, Document, Resource, Where
from podvif.lab import ovs as lab_ovs
from podvif.lab import testpmd
from podvif.lab.cni import Answer
from podvif.lab.hugepages import hugepages
from podvif.lab.kube import KubeApi
from podvif.lab.ovs import PrivateOvs
from podvif.lab.sandbox import Sandbox, sandbox
from podvif.lab.testpmd import Testpmd
from podvif.podvifs import PodVif, WantedInterface
from tests.fakes.cluster import NODE, OTHER_SUBNET
from tests.fakes.podvifs import CLIENT, OVN, Controller, bound, port_id
from tests.kube.conftest import serves
from tests.kube.rights import Rights
from tests.kube.worlds import RealWorld
from tests.node.conftest import why_not_here
from tests.node.support import SOON, Node, refused

T = TypeVar("T")
ETH0, ETH1 = WantedInterface(name="eth0"), WantedInterface(name="eth1", subnet_id=OTHER_SUBNET.id, attachment="ns/fast")
NET1 = WantedInterface(name="net1", subnet_id=OTHER_SUBNET.id, attachment="ns/fast", delegated=True)
SHORT = {"add_timeout": "3"}
"""Seconds of an ADD that is to fail."""


@pytest.fixture(scope="module")
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateOvs]:
    """A switch, with hugepages for itself and for two applications."""
    if reason := why_not_here():
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    pages = lab_ovs.PAGES + 2 * (testpmd.PAGES + lab_ovs.PAGES_PER_PORT)
    with hugepages(pages), PrivateOvs(tmp_path_factory.mktemp("ovs")) as switch:
        yield switch


class Cluster:
    """A namespace of the API server, and a node that serves its pods.

    Attributes:
        api: the API server.
        node: the node.
        namespace: of the pods.
    """

    def __init__(
        self,
        api: KubeApi,
        ovs: PrivateOvs,
        folder: Path,
        crd: Document,
        *,
        name: str = NODE,
        kubeconfig: Path | None = None,
        **more: str,
    ) -> None:
        self.api = api
        kubernetes = {"kubeconfig": str(kubeconfig or api.kubeconfig), "node_name": name}
        options = {"source": "cluster", **more}
        self.node = Node(ovs, folder, more={"node": options, "kubernetes": kubernetes})
        world = RealWorld(api)
        self.namespace = world.namespace
        self._calls = ThreadPoolExecutor(4)

        async def prepare() -> None:
            await serves(world, crd)
            await world.kube.close()

        asyncio.run(prepare())

    def ask(self, what: Callable[[Controller], Awaitable[T]]) -> T:
        """Do something as the controller or the kubelet."""

        async def do() -> T:
            kube = Kube(str(self.api.kubeconfig))
            try:
                return await what(Controller(kube, self.namespace, str(self.node.mount_point)))
            finally:
                await kube.close()

        return asyncio.run(do())

    def pod(self, pod: str) -> str:
        """Make a pod; its UID."""
        return self.ask(lambda controller: controller.pod(pod))

    def podvif(self, pod: str, *wanted: WantedInterface, uid: str = "") -> str:
        """Make a pod, unless its UID is given, and its PodVif; its UID."""

        async def make(controller: Controller) -> str:
            made = uid or await controller.pod(pod)
            await controller.make(*wanted, pod=pod, uid=made)
            return made

        return self.ask(make)

    def bind(self, pod: str, *interfaces: Any) -> None:
        """Say that the pod's interfaces are bound."""
        self.ask(lambda controller: controller.bind(*interfaces, pod=pod))

    def until(self, pod: str, holds: Callable[[PodVif], bool]) -> PodVif:
        """Wait until a PodVif is so, by its watch."""
        return parse_podvif(self._until(PODVIFS, pod, lambda document: holds(parse_podvif(document))))

    def network_status(self, pod: str) -> Any:
        """The pod's annotation, as soon as it is there."""
        document = self._until(
            PODS, pod, lambda document: NETWORK_STATUS in (document["metadata"].get("annotations") or {})
        )
        return json.loads(document["metadata"]["annotations"][NETWORK_STATUS])

    def _until(self, resource: Resource, pod: str, holds: Callable[[Document], bool]) -> Document:
        where = Where(self.namespace, fields=f"metadata.name={pod}")

        async def wait(controller: Controller) -> Document:
            kube = controller.api
            async with asyncio.timeout(SOON):
                pages = [page async for page in kube.pages(resource, where)]
                for document in pages[-1].items:
                    if holds(document):
                        return document
                async for event in kube.watch(resource, pages[-1].version, where):
                    if event.change is not Change.BOOKMARK and holds(event.document):
                        return event.document
            raise AssertionError("the watch ended")

        return self.ask(wait)

    # -- the runtime's calls -------------------------------------------------------------------------------------------

    def network(self, **keys: Any) -> dict[str, Any]:
        """The configuration of the cluster network, or of a delegate."""
        config = {"cniVersion": "1.1.0", "name": "podvif", "type": "podvif-cni"}
        return config | {"daemonSocket": str(self.node.daemon.socket)} | keys

    def args(self, pod: str, uid: str) -> str:
        """CNI_ARGS as containerd has them."""
        return f"IgnoreUnknown=1;K8S_POD_NAMESPACE={self.namespace};K8S_POD_NAME={pod};K8S_POD_UID={uid}"

    def call(self, command: str, box: Sandbox, pod: str = "p", uid: str = "", **more: Any) -> Answer:
        """One call of the shim: for eth0 and by the cluster network's configuration, unless told otherwise."""
        args = self.args(pod, uid) if uid else ""
        config = more.get("config") or self.network()
        return self.node.cni(command, config, box, more.get("ifname", "eth0"), args=more.get("args", args))

    def calling(self, *call: Any, **more: Any) -> "Future[Answer]":
        """One that runs beside the test."""
        return self._calls.submit(self.call, *call, **more)

    def waits(self, words: str) -> None:
        """Wait until an ADD is told to wait for something; it is a line of the daemon's log."""
        log = self.node.daemon.log
        with Inotify(sync_timeout=SOON) as inotify:
            inotify.add_watch(log, Mask.MODIFY)
            if words in log.read_text():
                return
            for _ in inotify:
                if words in log.read_text():
                    return
        raise AssertionError(f"not in {log}: {words}")

    # -- Neutron's agent -----------------------------------------------------------------------------------------------

    def wire(self, *numbers: int, ovn: bool = False) -> None:
        """Wire the OVS ports of these Neutron ports, as soon as they are there."""
        for number in numbers:
            name = names.vif_name(port_id(number))
            self.node.wait_for_row(name)
            if ovn:
                self.node.ovs.vsctl("set", "Interface", name, "external_ids:ovn-installed=true")
            else:
                self.node.ovs.vsctl("set", "Port", name, "tag=5", "--", "clear", "Port", name, "vlan_mode", "trunks")

    def add(self, box: Sandbox, pod: str, uid: str, *numbers: int, ovn: bool = False) -> dict[str, Any]:
        """An ADD that the agent wires, and that has to succeed."""
        adding = self.calling("ADD", box, pod, uid)
        self.wire(*numbers, ovn=ovn)
        return adding.result(SOON).checked()

    def delete(self, box: Sandbox) -> None:
        """DEL with nothing but container id and ifname, which has to succeed."""
        answer = self.call("DEL", box)
        assert (answer.code, answer.text) == (0, "")


@pytest.fixture
def make(
    api: KubeApi, ovs: PrivateOvs, crd: Document, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Cluster]]:
    """Makes a cluster, whose daemon runs until the end of the test; the test has to leave nothing on the node."""
    made: list[Cluster] = []
    with ExitStack() as stack:

        def make(**more: Any) -> Cluster:
            cluster = Cluster(api, ovs, tmp_path_factory.mktemp("n"), crd, **more)
            made.append(cluster)
            stack.enter_context(cluster.node.running())
            return cluster

        yield make
        api.resume()
        if not api.api.alive():
            api.start()
        for cluster in made:
            cluster.node.finish()


@pytest.fixture
def boxes() -> Iterator[Callable[[], Sandbox]]:
    """Makes sandboxes that last as long as the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(sandbox())


@pytest.fixture
def box(boxes: Callable[[], Sandbox]) -> Sandbox:
    """A sandbox."""
    return boxes()


def conditions(podvif: PodVif) -> dict[str, str]:
    return {each.type: each.status for each in podvif.status.conditions}


@pytest.mark.parametrize(("details", "ovn"), [(CLIENT, False), (OVN, True)], ids=["client-ovs", "server-ovn"])
def test_packets_arrive(
    make: Callable[..., Cluster],
    boxes: Callable[[], Sandbox],
    tmp_path_factory: pytest.TempPathFactory,
    details: dict[str, Any],
    *,
    ovn: bool,
) -> None:
    """Two pods' ADDs come before their PodVifs, are answered when those are bound and wired; packets cross; conditions say so."""
    cluster = make()
    pods = {"tx": (1, boxes()), "rx": (2, boxes())}
    uids = {pod: cluster.pod(pod) for pod in pods}
    adding = {pod: cluster.calling("ADD", box, pod, uids[pod]) for pod, (_, box) in pods.items()}
    for pod, (number, _) in pods.items():
        cluster.waits(f"waiting for PodVif {cluster.namespace}/{pod}: there is none")
        cluster.podvif(pod, uid=uids[pod])
        cluster.waits(f"waiting for PodVif {cluster.namespace}/{pod}: its interface eth0 has no Neutron port yet")
        cluster.bind(pod, bound(number=number, vif_details=details))
        cluster.node.wait_for_row(names.vif_name(port_id(number)))
        assert not adding[pod].done()
        cluster.wire(number, ovn=ovn)
    for pod, (number, box) in pods.items():
        result = adding[pod].result(SOON).checked()
        assert result["ips"] == [{"interface": 0, "address": f"10.10.1.{number}/24", "gateway": "10.10.1.1"}]
        assert result["interfaces"][0]["mtu"] == 1442
        checking = cluster.network(prevResult=result)
        assert cluster.call("CHECK", box, pod, uids[pod], config=checking).code == 0
        cluster.until(
            pod, lambda podvif: conditions(podvif) == {"Bound": "True", "Plugged": "True", "Connected": "False"}
        )
    folder, env = tmp_path_factory.mktemp("t"), cluster.node.mount_point
    with (
        Testpmd(env / f"{pods['rx'][1].container_id}.env", folder, netns=pods["rx"][1].name) as receiver,
        Testpmd(
            env / f"{pods['tx'][1].container_id}.env",
            folder,
            netns=pods["tx"][1].name,
            forward="txonly",
            eth_peer="fa:16:3e:00:00:02",
        ),
    ):
        receiver.wait_for_rx(packets=5000)
        for pod in pods:
            cluster.until(pod, lambda podvif: conditions(podvif)["Connected"] == "True")
    listed = {item["pod"]: item for item in cluster.node.status()["attachments"]}
    assert set(listed) == {f"{cluster.namespace}/{pod}" for pod in pods}
    for pod, (_, box) in pods.items():
        cluster.delete(box)
        cluster.until(pod, lambda podvif: conditions(podvif)["Plugged"] == "False")


def test_failed_binding(make: Callable[..., Cluster], box: Sandbox) -> None:
    """On the deadline ADD has the controller's words; a repeat succeeds once the port is bound."""
    cluster = make(**SHORT)
    uid = cluster.podvif("p")
    words = "binding_failed: no agent with datapath netdev on node n1"
    cluster.ask(lambda controller: controller.fail(words))

    refused(cluster.call("ADD", box, uid=uid), errors.TRY_AGAIN_LATER, f"PodVif {cluster.namespace}/p", words)

    assert cluster.node.leftovers() == []
    cluster.bind("p")
    cluster.add(box, "p", uid, 1)
    cluster.delete(box)


def test_agent_that_does_not_come(make: Callable[..., Cluster], box: Sandbox) -> None:
    """A port that nobody wires fails the ADD on its deadline and leaves nothing; tag 4095 is no wire."""
    cluster = make(**SHORT)
    uid = cluster.podvif("p")
    cluster.bind("p")
    adding = cluster.calling("ADD", box, uid=uid)
    name = names.vif_name(port_id(1))
    cluster.node.wait_for_row(name)
    cluster.node.ovs.vsctl("set", "Port", name, "tag=4095")

    refused(adding.result(SOON), errors.TRY_AGAIN_LATER, f"has not wired OVS port {name}")

    assert cluster.node.leftovers() == []


def test_pod_of_the_same_name(make: Callable[..., Cluster], boxes: Callable[[], Sandbox]) -> None:
    """A pod that comes again under its name is served by its own PodVif; the former one's ADD learns that it has ended."""
    cluster = make()
    former, box = boxes(), boxes()
    cluster.podvif("p", uid="former-uid")
    first = cluster.calling("ADD", former, uid="former-uid")
    cluster.waits("has no Neutron port yet")
    second = cluster.calling("ADD", box, uid="later-uid")
    cluster.waits("it is of pod UID former-uid, and this pod's is later-uid")

    cluster.ask(lambda controller: controller.delete())

    refused(first.result(SOON), errors.UNKNOWN_CONTAINER, f"PodVif {cluster.namespace}/p is gone")
    cluster.podvif("p", uid="later-uid")
    cluster.bind("p", bound(number=2))
    cluster.wire(2)
    assert second.result(SOON).checked()["interfaces"][0]["mac"] == "fa:16:3e:00:00:02"
    cluster.delete(box)
    cluster.delete(former)


def test_runtime_that_sends_no_uid(make: Callable[..., Cluster], box: Sandbox) -> None:
    """For cri-dockerd, which sends no UID, the API server says which pod has the name now."""
    cluster = make()
    uid = cluster.podvif("p")
    cluster.bind("p")
    args = f"K8S_POD_NAMESPACE={cluster.namespace};K8S_POD_NAME=p"
    adding = cluster.calling("ADD", box, args=args)
    cluster.wire(1)

    adding.result(SOON).checked()

    assert cluster.until("p", lambda podvif: "Plugged" in conditions(podvif)).spec.pod_uid == uid
    cluster.delete(box)


def test_api_server_is_killed_during_add(make: Callable[..., Cluster], box: Sandbox) -> None:
    """An ADD that waits while the API server dies is answered when that is back and has its PodVif."""
    cluster = make()
    cluster.waits("podvifs.podvif.io are in sync")
    uid = cluster.pod("p")
    adding = cluster.calling("ADD", box, uid=uid)
    cluster.waits(f"waiting for PodVif {cluster.namespace}/p: there is none")
    cluster.api.kill()
    cluster.waits("podvifs.podvif.io are out of sync")
    cluster.api.start()
    cluster.podvif("p", uid=uid)
    cluster.bind("p")
    cluster.wire(1)

    adding.result(SOON).checked()

    cluster.delete(box)


def test_without_the_api_server(make: Callable[..., Cluster], box: Sandbox) -> None:
    """With the API server dead CHECK, recovery by a new daemon, and DEL work from the journal; STATUS says what is missing."""
    cluster = make()
    uid = cluster.podvif("p", ETH0, ETH1)
    cluster.bind("p", bound("eth0", 1), bound("eth1", 2, vif_details=CLIENT))
    result = cluster.add(box, "p", uid, 1, 2)
    checking = cluster.network(prevResult=result)
    cluster.until("p", lambda podvif: conditions(podvif).get("Plugged") == "True")
    assert cluster.call("STATUS", box).code == 0
    cluster.api.kill()
    cluster.waits("podvifs.podvif.io are out of sync")
    assert cluster.call("CHECK", box, config=checking).code == 0
    assert cluster.call("STATUS", box).code == 0
    cluster.node.daemon.kill()
    for number in (1, 2):
        cluster.node.ovs.vsctl("del-port", names.vif_name(port_id(number)))
    for path in cluster.node.mount_point.glob("*.env"):
        path.unlink()

    cluster.node.daemon.start()

    cluster.wire(1, 2)
    refused(cluster.call("STATUS", box), errors.NOT_AVAILABLE, "has not told this node's PodVifs yet")
    assert "cannot list" in cluster.node.status()["apiserver"]["trouble"]
    while cluster.call("CHECK", box, config=checking).code:  # recovery goes on beside us, and each try takes its time
        assert cluster.node.daemon.child.alive()
    cluster.delete(box)
    assert cluster.node.leftovers() == []
    # What the node saw meanwhile is told when the API server is back.
    cluster.api.start()
    cluster.until("p", lambda podvif: conditions(podvif)["Plugged"] == "False")


def test_several_interfaces(make: Callable[..., Cluster], box: Sandbox) -> None:
    """The ADD of eth0 brings all interfaces and the pod's network-status; when one is not wired, none is left."""
    cluster = make(**SHORT)
    uid = cluster.podvif("p", ETH0, ETH1)
    cluster.bind("p", bound("eth0", 1), bound("eth1", 2, vif_details=CLIENT))
    adding = cluster.calling("ADD", box, uid=uid)
    cluster.wire(1)
    refused(adding.result(SOON), errors.TRY_AGAIN_LATER, "has not wired OVS port vhu00000002-00")
    assert cluster.node.leftovers() == []

    result = cluster.add(box, "p", uid, 1, 2)

    assert [interface["name"] for interface in result["interfaces"]] == ["eth0"]
    files = {path.name for path in cluster.node.mount_point.iterdir()}
    assert {f"{box.container_id}-eth0", f"{box.container_id}-eth1", "vhu00000002-00"} <= files
    cluster.until("p", lambda podvif: conditions(podvif).get("Plugged") == "True")

    first, second = cluster.network_status("p")
    assert (first["interface"], first["ips"]) == ("eth0", ["10.10.1.1"])
    where = {"mode": "client", "path": f"{cluster.node.mount_point}/vhu00000002-00"}
    assert second["device-info"] == {"type": "vhost-user", "version": "1.1.0", "vhost-user": where}
    cluster.delete(box)


def test_delegated_interface(make: Callable[..., Cluster], box: Sandbox) -> None:
    """What Multus delegates comes with an ADD of its own and goes with its own DEL."""
    cluster = make()
    uid = cluster.podvif("p", ETH0, NET1)
    cluster.bind("p", bound("eth0", 1), bound("net1", 2))
    cluster.add(box, "p", uid, 1)
    delegate = cluster.network(name="fast", subnetId=OTHER_SUBNET.id)
    refused(cluster.call("ADD", box, uid=uid, ifname="net1"), errors.INVALID_CONFIG, "comes with an ADD of its own")
    adding = cluster.calling("ADD", box, "p", uid, ifname="net1", config=delegate)
    cluster.wire(2)
    assert adding.result(SOON).checked()["interfaces"][0]["name"] == "net1"
    cluster.until("p", lambda podvif: conditions(podvif).get("Plugged") == "True")

    assert cluster.call("DEL", box, ifname="net1", config=delegate).code == 0

    assert cluster.node.ovs.ports() == [names.vif_name(port_id(1))]
    cluster.delete(box)


def test_next_sandbox(make: Callable[..., Cluster], boxes: Callable[[], Sandbox]) -> None:
    """A pod whose sandbox was made again keeps its Neutron port, also when the former sandbox's DEL comes late."""
    cluster = make()
    uid = cluster.podvif("p")
    cluster.bind("p")
    former, later = boxes(), boxes()
    cluster.add(former, "p", uid, 1)

    adding = cluster.calling("ADD", later, uid=uid)
    name = names.vif_name(port_id(1))
    cluster.node.ovs.vsctl("wait-until", "Interface", name, f"external_ids:podvif-container-id={later.container_id}")
    cluster.wire(1)
    adding.result(SOON).checked()

    cluster.delete(former)
    assert cluster.node.ovs.ports() == [name]
    cluster.delete(later)


def test_podvif_of_another_node(make: Callable[..., Cluster], box: Sandbox) -> None:
    """A PodVif of another node is not seen here, whatever its pod's UID; a DEL ends the ADD that waits for it."""
    cluster = make()
    uid = cluster.pod("p")
    cluster.ask(lambda controller: controller.make(uid=uid, node="n2"))
    cluster.bind("p")
    adding = cluster.calling("ADD", box, uid=uid)
    cluster.waits(f"waiting for PodVif {cluster.namespace}/p: there is none")

    cluster.delete(box)

    refused(adding.result(SOON), errors.TRY_AGAIN_LATER, "was deleted while it was being added")


def test_long_node_name(make: Callable[..., Cluster], box: Sandbox) -> None:
    """A node whose name is longer than a label may be finds its PodVifs."""
    name = "node-with-a-very-long-name." * 5 + "example"
    cluster = make(name=name)
    uid = cluster.pod("p")
    cluster.ask(lambda controller: controller.make(uid=uid, node=name))
    cluster.bind("p")
    cluster.add(box, "p", uid, 1)
    cluster.until("p", lambda podvif: conditions(podvif).get("Plugged") == "True")
    cluster.delete(box)


def test_rights(api: KubeApi, make: Callable[..., Cluster], box: Sandbox, tmp_path: Path) -> None:
    """The rights of deploy/rbac are enough for a pod's whole way on a node, and none is idle."""
    world = RealWorld(api)
    rights = Rights(world, "node")

    async def prepare() -> Path:
        try:
            return await rights.kubeconfig(tmp_path / "podvif-node.kubeconfig")
        finally:
            await world.kube.close()

    cluster = make(kubeconfig=asyncio.run(prepare()))
    cluster.podvif("p", ETH0, ETH1)
    cluster.bind("p", bound("eth0", 1), bound("eth1", 2))
    adding = cluster.calling("ADD", box, args=f"K8S_POD_NAMESPACE={cluster.namespace};K8S_POD_NAME=p")
    cluster.wire(1, 2)
    adding.result(SOON).checked()
    cluster.until("p", lambda podvif: conditions(podvif).get("Plugged") == "True")
    assert [entry["interface"] for entry in cluster.network_status("p")] == ["eth0", "eth1"]
    cluster.delete(box)
    cluster.until("p", lambda podvif: conditions(podvif).get("Plugged") == "False")
    assert "orbidden" not in cluster.node.daemon.log.read_text()
    cluster.node.daemon.stop()  # a watch is written down when it ends
    assert rights.asked() == (rights.granted, [])
