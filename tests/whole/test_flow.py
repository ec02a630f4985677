"""From pods as objects to packets across a Neutron network, and back to nothing.

Law: what the applications know is what stands in their pods' files; what a test believes of a port, Neutron says itself.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from podvif.core.networks import NETWORK_STATUS
from podvif.lab.cluster import conditions_of
from podvif.lab.cni import call
from podvif.lab.hugepages import hugepages
from podvif.lab.neutron import Mechanism, PrivateNeutron
from podvif.lab.pod import verb
from podvif.lab.programs import plugin_path
from podvif.lab.testpmd import Testpmd, read_env
from tests.neutron.conftest import booted
from tests.neutron.worlds import OWNER
from tests.node.support import Attached
from tests.node.test_veth import ping, tcp, udp
from tests.whole.support import PAGES, Document, Running, Whole, whole

PODS = 200
STORM = 600.0
"""Seconds; Neutron needs about 0.4 s for each port here."""


@pytest.fixture(scope="module")
def with_ovn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A node with OVN."""
    with (
        booted(tmp_path_factory.mktemp("n"), Mechanism.OVN) as neutron,
        hugepages(PAGES),
        whole(tmp_path_factory.mktemp("w"), neutron) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNeutron]:
    """Neutron with the Open vSwitch agent."""
    with booted(tmp_path_factory.mktemp("n"), Mechanism.OVS) as neutron, hugepages(PAGES):
        yield neutron


@pytest.fixture(params=["ovn", "agent-server", "agent-client"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A node of each kind; the test has to leave nothing on it."""
    with ExitStack() as stack:
        if request.param == "ovn":
            made: Whole = request.getfixturevalue("with_ovn")
        else:
            neutron: PrivateNeutron = request.getfixturevalue("agent")
            mode = request.param.removeprefix("agent-")
            if neutron.mode != mode:
                neutron.restart_agent(mode)
            made = stack.enter_context(whole(tmp_path_factory.mktemp("w"), neutron))
        yield made
        assert made.left() == []


@pytest.fixture
def ovn(with_ovn: Whole) -> Iterator[Whole]:
    """The node with OVN; the test has to leave nothing on it."""
    yield with_ovn
    assert with_ovn.left() == []


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: DPDK's sockets have room in it."""
    return tmp_path_factory.mktemp("t")


def sends(sender: Running, receiver: Running, folder: Path, number: int = 0, mac: str = "") -> None:
    """Packets of one application arrive at the other, by an interface of each."""
    peer = mac or receiver.pod.mac
    one, other = sender.pod, receiver.pod
    with (
        Testpmd(other.env_file, folder, netns=other.box.name, interface=number) as rx,
        Testpmd(one.env_file, folder, netns=one.box.name, interface=number, forward="txonly", eth_peer=peer),
    ):
        rx.wait_for_rx(packets=5000)


def test_packets_cross(node: Whole, folder: Path) -> None:
    """Two pods get bound, plugged and ACTIVE ports, their applications exchange packets, and deleted they leave nothing."""
    with node.pod("a") as a, node.pod("b") as b:
        for each in (a, b):
            interface = each.interface()
            port = node.port(interface)
            assert (port["binding:vif_type"], port["binding:host_id"]) == ("vhostuser", node.neutron.host)
            assert each.pod.variables["VHOSTUSER_0_MODE"] == node.neutron.mode
            assert each.pod.mac == port["mac_address"]
            (address,) = each.result["ips"]
            assert address["address"] == f"{port['fixed_ips'][0]['ip_address']}/24"
            assert each.result["interfaces"][0]["mtu"] == interface["mtu"]
            node.neutron.wait_for_status(port["id"], "ACTIVE")
            node.cluster.wait_for_condition(each.name, "Plugged")
        sends(a, b, folder)
        node.cluster.wait_for_condition("b", "Plugged")
        sends(b, a, folder)


def test_additional_interface(node: Whole, folder: Path) -> None:
    """In Kuryr's way a pod has a second port in a network of its own, said in the pod's annotation; packets cross that too."""
    network, subnet = node.neutron.network("10.21.0.0/24")
    node.cluster.create_nad("fast", subnet)
    with node.pod("a", networks="fast") as a, node.pod("b", networks="fast") as b:
        for each in (a, b):
            port = node.port(each.interface("eth1"))
            assert port["network_id"] == network
            assert each.pod.variables["VHOSTUSER_1_MAC"] == port["mac_address"]
            main, fast = json.loads(node.cluster.wait_for_annotation(each.name, NETWORK_STATUS))
            assert (main["interface"], fast["interface"]) == ("eth0", "eth1")
            where = {"mode": node.neutron.mode, "path": each.pod.variables["VHOSTUSER_1_SOCKET"]}
            assert fast["device-info"] == {"type": "vhost-user", "version": "1.1.0", "vhost-user": where}
        sends(a, b, folder, number=1, mac=b.pod.variables["VHOSTUSER_1_MAC"])
    node.neutron.ask("DELETE", f"/networks/{network}")


def test_ordinary_pods(node: Whole, folder: Path) -> None:
    """Pods that mount no directory of sockets have an interface of the kernel on their Neutron ports: they talk TCP and UDP to each other, and a DPDK application of their network answers them."""
    with node.pod("a", sockets=False) as a, node.pod("b", sockets=False) as b:
        for each in (a, b):
            port = node.port(each.interface())
            assert port["mac_address"] == each.result["interfaces"][-1]["mac"]
            node.neutron.wait_for_status(port["id"], "ACTIVE")
        one, other = (
            Attached(each.pod.box, "eth0", dict(each.pod.config), each.result, "", each.pod.env_file) for each in (a, b)
        )
        tcp(one, other)
        tcp(other, one)
        udp(one, other)
        udp(other, one)
        with node.pod("c") as c, Testpmd(c.pod.env_file, folder, netns=c.pod.box.name, forward="icmpecho"):
            ping(a.pod.box, c.result["ips"][0]["address"].partition("/")[0])


def test_delegate(ovn: Whole, folder: Path) -> None:
    """A second port may come with an ADD of its own, as Multus delegates it; packets cross both, and DELs whose configuration has lost our keys, without a namespace, leave nothing."""
    network, subnet = ovn.neutron.network("10.22.0.0/24")
    delegated = {**ovn.network, "name": "delegated", "subnetId": subnet}
    ovn.cluster.create_delegated_nad("delegated", delegated)
    with ovn.pod("a", networks="delegated") as a, ovn.pod("b", networks="delegated") as b:
        for each in (a, b):
            port = ovn.port(each.interface("net1"))
            assert port["network_id"] == network
            assert "VHOSTUSER_1_MAC" not in read_env(each.pod.env_file)  # it does not come with eth0
            added = verb("ADD", delegated, each.pod.box, "net1", each.pod.args).checked()
            assert [item["address"] for item in added["ips"]] == [f"{port['fixed_ips'][0]['ip_address']}/24"]
            assert read_env(each.pod.env_file)["VHOSTUSER_1_MAC"] == port["mac_address"]
            for interface in ("eth0", "net1"):
                ovn.neutron.wait_for_status(each.interface(interface)["portId"], "ACTIVE")
        sends(a, b, folder)
        sends(a, b, folder, number=1, mac=read_env(b.pod.env_file)["VHOSTUSER_1_MAC"])
        for each in (a, b):
            for name, ifname in (("delegated", "net1"), ("podvif", "eth0")):
                _delete_as_multus(ovn, each, name, ifname)
        assert ovn.neutron.ovs.ports() == []
    ovn.neutron.ask("DELETE", f"/networks/{network}")


def _delete_as_multus(ovn: Whole, running: Running, name: str, ifname: str) -> None:
    """DEL as Multus hands it on: of its cached copy only what is common to all plugins is left."""
    common = {"cniVersion": "1.1.0", "name": name, "type": "podvif-cni", "ipam": {}}
    # The shim finds this daemon by the configuration alone; on a node it is at its default place.
    kept = {**common, "daemonSocket": str(ovn.daemon.socket)}
    box = running.pod.box
    answer = call(
        "DEL", kept, container_id=box.container_id, ifname=ifname, cni_path=plugin_path(), args=running.pod.args
    )
    assert (answer.code, answer.text) == (0, "")


def test_storm(ovn: Whole) -> None:
    """Of 200 pods that come at once each ends bound to a port of its own, and there is no other; ended at once, they leave none."""
    cluster, neutron = ovn.cluster, ovn.neutron
    uids = {f"p{number}": "" for number in range(PODS)}
    try:
        for name in uids:
            uids[name] = cluster.create_pod(name, node=neutron.host, host_path=str(ovn.daemon.mount_point))
        for name in uids:
            cluster.wait_for_condition(name, "Bound", timeout=STORM)
        bound = {
            (podvif["spec"]["podUID"], port["portId"])
            for podvif in cluster.podvifs()
            for port in podvif["status"]["interfaces"]
        }
        ports = neutron.ask("GET", "/ports")["ports"]
        assert {port["device_owner"] for port in ports} == {OWNER}
        assert {uid for uid, _ in bound} == set(uids.values())
        assert {(port["device_id"], port["id"]) for port in ports} == bound
        assert len(ports) == len({port["fixed_ips"][0]["ip_address"] for port in ports}) == PODS
    finally:
        for name in uids:
            cluster.finish_pod(name)
        for name in uids:
            cluster.wait_until_gone(name, timeout=STORM)


def test_deleted_by_hand(ovn: Whole) -> None:
    """Under a pod that is plugged a PodVif that somebody deletes comes again over the same port; after the deletion of the port itself the conditions say that the pod has to be recreated."""
    with ovn.pod("a") as a:
        former = ovn.cluster.wait_for_condition("a", "Plugged")["metadata"]["uid"]
        port = a.interface()["portId"]
        ovn.cluster.delete_podvif("a")

        def is_another(podvif: Document) -> bool:
            said = conditions_of(podvif)
            return podvif["metadata"]["uid"] != former and said.get("Bound") == said.get("Plugged") == "True"

        again = ovn.cluster.wait_for_podvif("a", is_another, "PodVif a is there again, bound and plugged")
        assert [each["portId"] for each in again["status"]["interfaces"]] == [port]
        assert a.pod.env_file.is_file()
        ovn.neutron.wait_for_status(port, "ACTIVE")

        ovn.neutron.ask("DELETE", f"/ports/{port}")

        def says_it(podvif: Document) -> bool:
            (said,) = (each for each in podvif["status"]["conditions"] if each["type"] == "Plugged")
            return (said["status"], said["reason"], port in said.get("message", "")) == ("False", "PortReplaced", True)

        replaced = ovn.cluster.wait_for_podvif("a", says_it, "PodVif a says that its port was replaced")
        assert [each["portId"] for each in replaced["status"]["interfaces"]] != [port]


def test_neutron_down_during_del(ovn: Whole) -> None:
    """While Neutron is down a pod is taken from its node all the same; the PodVif keeps its port in mind until Neutron has deleted it."""
    with ExitStack() as stack:
        running = stack.enter_context(ovn.running("a"))
        ovn.neutron.stop_api()
        try:
            ovn.cluster.delete_pod("a")
            stack.close()  # DEL
            assert ovn.neutron.ovs.ports() == []
            assert not running.pod.env_file.exists()
            ovn.cluster.finish_pod("a")
            ovn.cluster.wait_for_podvif("a", lambda it: "deletionTimestamp" in it["metadata"], "PodVif a is going")
        finally:
            ovn.neutron.start_api()
    ovn.cluster.wait_until_gone("a")
