"""`source = cluster`, whole: verbs over PodVifs, without Open vSwitch and without an API server."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif import errors, names
from podvif.core import decide
from podvif.core.attach import Step
from podvif.core.pods import MIRROR
from podvif.errors import PodvifError, Refused
from podvif.kube.resources import PODS, PODVIFS
from podvif.model import Attachment, Entry, Goal, Listener, Pod
from podvif.node.verbs import want_attached
from podvif.podvifs import NODE_LABEL, Interface, InterfaceState, WantedInterface
from tests.fakes import podvifs
from tests.fakes.cluster import NODE, OTHER_SUBNET, UID
from tests.fakes.clusternode import MAIN, SECONDS, ClusterNode
from tests.fakes.node import recovering, until, volume
from tests.fakes.podvifs import CLIENT, port_id
from tests.fakes.values import config, port_of

VU0 = WantedInterface(name="vu0")
VU1 = WantedInterface(name="vu1", subnet_id=OTHER_SUBNET.id, attachment="ns/fast")
NET1 = WantedInterface(name="net1", subnet_id=OTHER_SUBNET.id, attachment="ns/fast", delegated=True)
DELEGATE = config(bridge=None, name="fast", subnetId=OTHER_SUBNET.id)


def bound(name: str = "vu0", number: int = 1, **changes: Any) -> Interface:
    return podvifs.bound(name, number, **changes)


LEADER_AND_FOLLOWER = (bound("vu0", 1), bound("vu1", 2))


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., ClusterNode]:
    """Makes a node of a cluster."""
    return lambda **arguments: ClusterNode(tmp_path, **arguments)


async def refusal(call: Any, words: str) -> PodvifError:
    """The error of a call, whose message has these words."""
    with pytest.raises(PodvifError) as caught:
        await asyncio.wait_for(call, SECONDS)
    assert words in caught.value.message, caught.value.message
    return caught.value


async def begun(node: ClusterNode, *call: Any, **variables: Any) -> "asyncio.Task[dict[str, Any]]":
    """An ADD that has come to wait for its PodVif."""
    calling = node.calling(*call, **variables)
    source: Any = node.node.source
    while not source._waiting and not calling.done():  # noqa: ASYNC110  the loop's own next round is the event
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not calling.done()
    return calling


# -- one interface -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("details", [bound().vif_details, CLIENT])
async def test_add(made: Callable[..., ClusterNode], details: dict[str, Any]) -> None:
    """What is plugged is Neutron's port with this node's paths; the answer has its addresses; DEL leaves nothing."""
    async with made().running() as node:
        await node.controller.make()
        await node.controller.bind(bound(vif_details=details))
        await node.told()

        answer = await node.call()

        name = names.vif_name(port_id(1))
        port = node.node.switch.port(name)
        assert port is not None
        assert port.external_ids["iface-id"] == port_id(1)
        assert (port.bridge, port.mtu_request, port.tag) == ("br-int", 1442, 5)
        (interface,) = answer["interfaces"]
        assert interface["socketPath"] == f"{node.node.pods}/{name}"
        assert (interface["name"], interface["mac"], interface["mtu"]) == ("vu0", "fa:16:3e:00:00:01", 1442)
        assert answer["ips"] == [{"interface": 0, "address": "10.10.1.1/24", "gateway": "10.10.1.1"}]
        assert await node.call("CHECK", config(bridge=None, name="podvif", prevResult=answer)) == {}
        await node.call("DEL")
        assert node.node.left() == []


async def test_add_before_the_podvif(made: Callable[..., ClusterNode]) -> None:
    """An ADD waits for its PodVif and until that is bound, and is answered by that event."""
    async with made().running() as node:
        adding = await begun(node)
        await node.controller.make()
        await node.told()
        await node.controller.fail("binding_failed: no agent with datapath netdev on node n1")
        await node.told()
        assert not adding.done()
        await node.controller.bind()

        answer = await asyncio.wait_for(adding, SECONDS)

        assert answer["interfaces"][0]["mac"] == "fa:16:3e:00:00:01"
        # What the API server sends once more is harmless.
        assert await node.call() == answer
        await node.call("DEL")
        assert node.node.left() == []


async def test_add_waits_for_the_agent(made: Callable[..., ClusterNode]) -> None:
    """ADD is not answered before the agent has wired the port."""
    async with made().running() as node:
        node.agent.works = False
        await node.controller.make()
        await node.controller.bind()
        adding = node.calling()
        name = names.vif_name(port_id(1))
        while not any(node.node.pods.glob("*.env")):  # noqa: ASYNC110  written right before the wait begins
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not adding.done()

        node.agent.wire(name, 4095)
        await asyncio.sleep(0)
        assert not adding.done()
        port = node.node.switch.port(name)
        assert port is not None
        node.node.switch.add_port(msgspec.structs.replace(port, tag=7))

        await asyncio.wait_for(adding, SECONDS)
        await node.call("DEL")


async def test_agent_that_does_not_come(made: Callable[..., ClusterNode]) -> None:
    """On the deadline ADD says that the agent has not wired the port, what to look at, and leaves nothing."""
    async with made(add_timeout=0.2).running() as node:
        node.agent.works = False
        await node.controller.make()
        await node.controller.bind()
        await node.told()

        error = await refusal(
            node.call(), "Neutron's agent has not wired OVS port vhu00000001-00 of Neutron port 00000001"
        )

        assert error.code == errors.TRY_AGAIN_LATER
        assert "ovn-controller" in error.remedy
        assert node.node.left() == []


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (None, "PodVif ns/p could not be served within 0.1 s: there is none"),
        ("make", "its interface vu0 has no Neutron port yet"),
        ("fail", "it is not bound: binding_failed: no agent with datapath netdev on node n1"),
        ("other", f"it is of pod UID another, and this pod's is {UID}"),
        ("lost", "there is none; the API server is out of reach: cannot "),
    ],
)
async def test_deadline(made: Callable[..., ClusterNode], prepare: str | None, words: str) -> None:
    """On the deadline ADD says what it waited for, in the controller's words where there are any, and leaves nothing."""
    async with made(add_timeout=0.1).running() as node:
        await node.podvifs.in_sync()
        if prepare in {"make", "fail"}:
            await node.controller.make()
        if prepare == "fail":
            await node.controller.fail("binding_failed: no agent with datapath netdev on node n1")
        if prepare == "other":
            await node.controller.make(uid="another")
            await node.controller.bind()
        await node.told()
        if prepare == "lost":
            node.kube.lose()
            await node.podvifs.out_of_sync()

        error = await refusal(node.call(), words)

        assert error.code == errors.TRY_AGAIN_LATER
        assert "kubectl describe podvif -n ns p" in error.remedy
        assert node.node.left() == []


async def test_pod_that_ends_while_add_waits(made: Callable[..., ClusterNode]) -> None:
    """When the pod's own PodVif goes, its ADD ends at once and tells the runtime that there is nothing to clean up."""
    async with made().running() as node:
        await node.controller.make()
        await node.told()
        adding = await begun(node)
        await node.controller.delete()

        error = await refusal(adding, "PodVif ns/p is gone")

        assert error.code == errors.UNKNOWN_CONTAINER
        assert node.node.left() == []


async def test_networks_that_are_mended_while_add_waits(made: Callable[..., ClusterNode]) -> None:
    """A PodVif without an interface, made to say why there is none, may be replaced: the ADD that waits is served by the next one."""
    async with made().running() as node:
        spec = {"nodeName": NODE, "podUID": UID}
        labels = {NODE_LABEL: names.node_label(NODE)}
        metadata = {"namespace": "ns", "name": "p", "labels": labels}
        await node.kube.create(PODVIFS, {"metadata": metadata, "spec": spec}, "controller")
        await node.controller.fail("NetworkAttachmentDefinition ns/fast is missing")
        await node.told()
        adding = await begun(node)
        await node.controller.delete()
        await node.told()
        await node.controller.make()
        await node.controller.bind()

        await asyncio.wait_for(adding, SECONDS)


async def test_pod_of_the_same_name(made: Callable[..., ClusterNode]) -> None:
    """A pod that comes again under its name waits until the PodVif is its own, whatever the former one's has."""
    async with made().running() as node:
        await node.controller.make(uid="former")
        await node.controller.bind(bound(number=9))
        await node.told()
        adding = await begun(node)
        await node.controller.delete()
        await node.controller.make()
        await node.controller.bind(bound(number=1))

        answer = await asyncio.wait_for(adding, SECONDS)

        assert answer["interfaces"][0]["mac"] == "fa:16:3e:00:00:01"
        await node.call("DEL")


async def test_del_while_add_waits_for_the_podvif(made: Callable[..., ClusterNode]) -> None:
    """A DEL ends an ADD that waits for its PodVif: nothing is plugged when that comes."""
    async with made().running() as node:
        adding = await begun(node)

        await node.call("DEL")

        await refusal(adding, "c0ffee:vu0 was deleted while it was being added")
        await node.controller.make()
        await node.controller.bind()
        await node.told()
        assert node.node.left() == []


async def test_runtime_without_uid(made: Callable[..., ClusterNode]) -> None:
    """For a runtime that sends no UID the pod is asked of the API server: the PodVif of its namesake is not served."""
    async with made().running() as node:
        arguments: dict[str, Any] = {"CNI_ARGS": "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p"}
        error = await refusal(node.call(**arguments), "pod ns/p is gone")
        assert error.code == errors.UNKNOWN_CONTAINER
        uid = await node.controller.pod()
        await node.controller.make(uid="former")
        await node.controller.bind(bound(number=9))
        await node.told()
        adding = await begun(node, **arguments)
        await node.controller.delete()
        await node.controller.make(uid=uid)
        await node.controller.bind()

        await asyncio.wait_for(adding, SECONDS)

        entry = node.node.journal.get(MAIN)
        assert entry is not None
        assert entry.pod == Pod("ns", "p", uid)
        await node.call("DEL", **arguments)


async def test_static_pod_without_uid(made: Callable[..., ClusterNode]) -> None:
    """A static pod's mirror says by which UID its PodVif knows it."""
    async with made().running() as node:
        uid = await node.controller.pod()
        await node.kube.merge(PODS, node.controller.key(), {"metadata": {"annotations": {MIRROR: "hash"}}}, "kubelet")
        await node.controller.make(uid=uid, runtime_uid="hash")
        await node.controller.bind()
        await node.told()

        await node.call(CNI_ARGS="K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p")

        await node.call("DEL")


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ({"CNI_ARGS": ""}, errors.INVALID_ENVIRONMENT, "CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME"),
        ({"network": config(bridge=None, queues=99)}, errors.INVALID_CONFIG, "queues"),
        ({"ifname": "vu5"}, errors.INVALID_CONFIG, "PodVif ns/p has no interface vu5"),
        ({"CNI_NETNS": "/dev/null"}, errors.INVALID_ENVIRONMENT, "CNI_NETNS /dev/null"),
        ({"network": DELEGATE}, errors.INVALID_CONFIG, "vu0 of PodVif ns/p comes with the pod's main interface"),
        ({"CNI_ARGS": f"K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID={UID};MAC=02:00:00:00:00:09"}, 7, "MAC 02"),
    ],
)
async def test_refused(made: Callable[..., ClusterNode], call: dict[str, Any], code: int, words: str) -> None:
    """What cannot be served is refused at once, with what is wrong."""
    async with made().running() as node:
        await node.controller.make()
        await node.controller.bind()
        await node.told()

        error = await refusal(node.call(**call), words)

        assert (error.code, node.node.left()) == (code, [])


async def test_pod_with_a_volume(made: Callable[..., ClusterNode]) -> None:
    """A pod that has a volume gets sockets in its own directory, without any hostPath; its annotation says where it sees them."""
    node = made()
    node.controller._host_paths = ()
    await node.node.volumes.publish(volume(node.node, UID))
    async with node.running():
        await node.controller.make(VU0, VU1)
        await node.controller.bind(*LEADER_AND_FOLLOWER)
        await node.told()

        answer = await node.call()

        own, name = node.node.own / UID, names.vif_name(port_id(1))
        assert answer["interfaces"][0]["socketPath"] == f"{own}/{name}"
        assert {path.name for path in own.iterdir()} == {"interfaces.json", "vhostuser.env", "c0ffee-vu0", "c0ffee-vu1"}
        assert not any(node.node.pods.iterdir())
        entry = node.node.journal.get(Attachment("c0ffee", "vu1"))
        assert entry is not None
        assert entry.vif.mounted_at == "/sockets"
        node.node.journal.remove(entry.attachment)
        await node.call("DEL")
        await node.call("DEL", ifname="vu1")
        assert node.node.left() == []


async def test_pod_without_the_directory(made: Callable[..., ClusterNode]) -> None:
    """A pod that does not mount the directory of sockets gets a pair of devices for the same Neutron port, wired as well."""
    node = made()
    node.controller._host_paths = ()
    async with node.running():
        await node.controller.make(VU0, VU1)
        await node.controller.bind(*LEADER_AND_FOLLOWER)
        await node.told()

        answer = await node.call()

        assert [(each["name"], "socketPath" in each) for each in answer["interfaces"]] == [
            ("tap00000001-00", False),
            ("vu0", False),
        ]
        assert answer["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.10.1.1"}]
        assert sorted(node.node.switch.ports()) == ["tap00000001-00", "tap00000002-00"]
        follower = node.node.journal.get(Attachment("c0ffee", "vu1"))
        assert follower is not None
        assert follower.addresses is not None
        assert follower.addresses.routes == ()
        node.node.journal.remove(follower.attachment)
        await node.call("DEL")
        await node.call("DEL", ifname="vu1")
        assert node.node.left() == []


async def test_not_the_cluster_network(made: Callable[..., ClusterNode]) -> None:
    """Where podvif is not the cluster network it serves what Multus delegates, and no pod's main interface."""
    async with made(cluster_network=False).running() as node:
        await node.controller.make(NET1)
        await node.controller.bind(bound("net1"))
        await node.told()

        await refusal(node.call(), "has neither subnetId nor networkId, and podvif is not the cluster network")
        answer = await node.call("ADD", DELEGATE, "net1")

        assert answer["interfaces"][0]["name"] == "net1"
        await node.call("DEL", DELEGATE, "net1")
        assert node.node.left() == []


async def test_standalone_network(made: Callable[..., ClusterNode]) -> None:
    """A configuration with a bridge is served without any PodVif, with IPAM, as on a standalone node."""
    async with made().running() as node:
        network = config(ipam={"type": "fake"})

        answer = await node.call("ADD", network, "net7")

        assert answer["ips"][0]["address"] == "10.1.0.2/24"
        await node.call("DEL", network, "net7")
        assert node.node.left() == []


async def test_readiness(made: Callable[..., ClusterNode]) -> None:
    """STATUS says 50 until the PodVifs have been listed once, and does not when the API server is lost later."""
    node = made()
    node.kube.lose()
    async with node.running():
        error = await refusal(node.call("STATUS"), "the API server has not told this node's PodVifs yet: ")
        assert error.code == errors.NOT_AVAILABLE
        node.kube.regain()
        await node.podvifs.in_sync()
        assert await node.call("STATUS") == {}
        node.kube.lose()
        await node.podvifs.out_of_sync()
        assert await node.call("STATUS") == {}
        assert "connection refused" in (node.node.source.trouble() or "")


# -- several interfaces ------------------------------------------------------------------------------------------------


async def several(node: ClusterNode, *interfaces: Interface) -> None:
    await node.controller.make(VU0, VU1)
    await node.controller.bind(*(interfaces or LEADER_AND_FOLLOWER))
    await node.told()


async def test_several_interfaces(made: Callable[..., ClusterNode]) -> None:
    """The ADD of vu0 plugs all interfaces of the pod, its answer is vu0's, CHECK looks at all, its DEL removes all."""
    async with made().running() as node:
        await several(node, bound("vu0", 1), bound("vu1", 2, vif_details=CLIENT))

        answer = await node.call()

        ports = [names.vif_name(port_id(number)) for number in (1, 2)]
        assert sorted(node.node.switch.ports()) == ports
        assert [interface["name"] for interface in answer["interfaces"]] == ["vu0"]
        files = {path.name for path in node.node.pods.iterdir()}
        assert {"c0ffee-vu0", "c0ffee-vu1", "c0ffee.json", "c0ffee.env"} <= files
        follower = node.node.journal.get(Attachment("c0ffee", "vu1"))
        assert follower is not None
        assert (follower.goal, follower.leader, follower.vif.listener) == (Goal.ATTACHED, "vu0", Listener.OVS)
        checking = config(bridge=None, name="podvif", prevResult=answer)
        assert await node.call("CHECK", checking) == {}
        node.node.switch.remove_port(ports[1])
        await refusal(node.call("CHECK", checking), f"OVS port {ports[1]} is missing")
        await node.call("DEL")
        assert node.node.left() == []


async def test_several_are_looked_at_once_more(made: Callable[..., ClusterNode]) -> None:
    """What happens to an early interface while a late one is being attached is mended when the ADD is over."""
    cluster = made()
    cluster.controller._host_paths = ()
    async with cluster.running() as node, recovering(node.node):
        node.agent.works = False
        await several(node)
        adding = node.calling()
        ports, early, late = node.node.switch.ports, "tap00000001-00", "tap00000002-00"
        await until(lambda: {early, late} <= set(ports()))
        node.agent.wire(early)

        def is_attached() -> bool:
            entry = node.node.journal.get(Attachment("c0ffee", "vu0"))
            assert entry
            want = want_attached(entry)
            return decide.why_not_attached(want, node.node.driver.observe(want)) is None

        await until(is_attached)
        # The ADD sees that too, and has nothing left to do for this one.
        await until(lambda: Attachment("c0ffee", "vu0") not in node.node.verbs._unwanted)
        node.node.switch.remove_port(early)
        node.agent.wire(late)
        await adding
        assert early not in ports()

        node.agent.works = True
        await until(is_attached)
        await node.call("DEL")
        assert node.node.left() == []


async def test_gc_of_several_interfaces(made: Callable[..., ClusterNode]) -> None:
    """The runtime knows of vu0 alone: while that is valid GC leaves the others, and they go with it."""
    async with made().running() as node:
        await several(node)
        await node.call()
        collecting = config(bridge=None, name="podvif")

        await node.call("GC", collecting | {"cni.dev/valid-attachments": [{"containerID": "c0ffee", "ifname": "vu0"}]})
        assert len(node.node.journal.all()) == 2

        await node.call("GC", collecting | {"cni.dev/valid-attachments": []})
        assert node.node.left() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [Step.PLUG, Step.WRITE_FILES])
async def test_one_of_several_fails(made: Callable[..., ClusterNode], when: str, step: Step) -> None:
    """When one interface cannot be plugged all are taken back, and the ADD has that one's error."""
    async with made().running() as node:
        await several(node)
        node.node.life.failures = {(when, step): Refused("no room in the bridge")}

        await refusal(node.call(), "no room in the bridge")

        assert node.node.left() == []
        assert len((await node.call())["interfaces"]) == 1
        await node.call("DEL")


async def test_one_of_several_is_not_bound(made: Callable[..., ClusterNode]) -> None:
    """Nothing is plugged before all interfaces that come with the ADD are bound."""
    async with made(add_timeout=0.1).running() as node:
        await several(node, bound("vu0", 1), Interface("vu1", InterfaceState.FAILED, message="no free address"))

        await refusal(node.call(), "its interface vu1 is not bound: no free address")

        assert node.node.left() == []


async def test_one_of_several_is_not_wired(made: Callable[..., ClusterNode]) -> None:
    """When the agent leaves one out, the deadline of the one ADD takes all back."""
    async with made(add_timeout=0.2).running() as node:
        node.agent.works = False
        node.node.switch.on_ports(lambda changed: node.agent.wire("vhu00000001-00"))
        await several(node)

        await refusal(node.call(), "has not wired OVS port vhu00000002-00")

        assert node.node.left() == []


async def test_delegated_beside_main(made: Callable[..., ClusterNode]) -> None:
    """What Multus delegates comes and goes by itself, while the main interface stays."""
    async with made().running() as node:
        await node.controller.make(VU0, NET1)
        await node.controller.bind(bound("vu0", 1), bound("net1", 2))
        await node.told()
        await node.call()
        assert len(node.node.switch.ports()) == 1

        await node.call("ADD", DELEGATE, "net1")
        assert len(node.node.switch.ports()) == 2

        await node.call("DEL", DELEGATE, "net1")
        assert list(node.node.switch.ports()) == ["vhu00000001-00"]
        await node.call("DEL")
        assert node.node.left() == []


async def test_daemon_dies_in_an_add_of_several(made: Callable[..., ClusterNode]) -> None:
    """Wherever the daemon dies in an ADD, the next one takes all back or has all, and a DEL leaves nothing."""
    for last in range(1, 60):
        node = made()
        async with node.running():
            await several(node)
            node.node.life.last = last
            adding = node.calling()
            await asyncio.wait({adding})
            died = adding.exception() is not None
        if not died:
            assert last > 10
            node.node.life.last = 0
            await node.call("DEL")
            return
        node.again()
        await node.node.recover()
        assert len(node.node.journal.all()) in {0, 2}
        await node.call("DEL")
        assert node.node.left() == []
    pytest.fail("no ADD got through")


async def test_daemon_dies_in_a_del_of_several(made: Callable[..., ClusterNode]) -> None:
    """Wherever the daemon dies in a DEL, the next one finishes it for all interfaces without the API server."""
    for last in range(1, 60):
        node = made()
        async with node.running():
            await several(node)
            await node.call()
            node.node.life.last = node.node.life.moments + last
            deleting = node.calling("DEL")
            await asyncio.wait({deleting})
        if deleting.exception() is None:
            assert last > 5
            return
        node.again()
        left = len(node.node.journal.all())
        await node.node.recover()
        assert (node.node.left() == []) or left == 2
        await node.call("DEL")
        assert node.node.left() == []
    pytest.fail("no DEL got through")


# -- what the journal is for -------------------------------------------------------------------------------------------


async def test_without_the_api_server(made: Callable[..., ClusterNode]) -> None:
    """A daemon that is started while the API server is away recovers, checks and deletes from the journal alone."""
    node = made()
    async with node.running():
        await several(node)
        answer = await node.call()
    node.kube.lose()
    for path in node.node.pods.iterdir():
        path.unlink()
    node.node.switch.remove_port("vhu00000001-00")
    node.again()

    recovering = asyncio.ensure_future(node.node.recover())
    await asyncio.wait_for(recovering, SECONDS)

    assert sorted(node.node.switch.ports()) == ["vhu00000001-00", "vhu00000002-00"]
    checking = config(bridge=None, name="podvif", prevResult=answer)
    assert await node.call("CHECK", checking) == {}
    await node.call("DEL")
    assert node.node.left() == []


async def test_next_sandbox_of_the_pod(made: Callable[..., ClusterNode]) -> None:
    """A pod's next sandbox takes the Neutron port over, and a late DEL of the former one does not take it away."""
    async with made().running() as node:
        await node.controller.make()
        await node.controller.bind()
        await node.told()
        await node.call()

        await node.call(container_id="beef")

        assert [entry.attachment.container_id for entry in node.node.journal.all()] == ["beef"]
        await node.call("DEL")
        port = node.node.switch.port("vhu00000001-00")
        assert port is not None
        assert port.external_ids[names.MARK_CONTAINER] == "beef"
        assert {path.name for path in node.node.pods.iterdir()} == {"beef-vu0", "beef.json", "beef.env"}
        await node.call("DEL", container_id="beef")
        assert node.node.left() == []


async def test_del_without_journal(made: Callable[..., ClusterNode]) -> None:
    """A DEL of what the journal has lost finds the port by our marks."""
    async with made().running() as node:
        await node.controller.make()
        await node.controller.bind()
        await node.told()
        await node.call()
        node.node.journal.remove(MAIN)

        await node.call("DEL")

        assert node.node.left() == []


async def test_sweep_without_journal(made: Callable[..., ClusterNode]) -> None:
    """A Neutron port with our marks that is in no journal goes; another's stays."""
    async with made().running() as node:
        await node.controller.make()
        await node.controller.bind()
        await node.told()
        await node.call()
        entry = node.node.journal.get(MAIN)
        assert entry is not None
        node.node.journal.remove(MAIN)
        foreign = port_of(msgspec.structs.replace(entry.vif, name="vhu00000007-00", port_id=port_id(7)))
        node.node.switch.add_port(foreign)
        node.node.recovery._sweep._settings = msgspec.structs.replace(node.node.settings, sweep_grace=0.0)

        (found,) = node.node.recovery._sweep.without_owner()

        assert (found.attachment, found.vif.name) == (MAIN, "vhu00000001-00")
        await node.node.verbs.absent(found)
        assert list(node.node.switch.ports()) == ["vhu00000007-00"]


def test_journal_of_an_older_version() -> None:
    """An entry that was written before there were Neutron ports is one of a port that is not."""
    text = (
        b'{"attachment":{"container_id":"c0ffee","ifname":"net1"},"network":"n","goal":"attached","vif":{"port_id":"p",'
        b'"name":"vhu1","mac":"02:00:00:00:00:01","mtu":1500,"bridge":"br","listener":"ovs","socket":"/p/v",'
        b'"ovs_socket":"/o/v","queues":1,"vlan":null},"created":1.0}'
    )

    entry = msgspec.json.decode(text, type=Entry)

    assert (entry.vif.neutron, entry.leader, entry.asked_by) == (False, "", entry.attachment)
