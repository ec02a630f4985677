"""Ports that Neutron does not bind as vhostuser: vif_type ovs, with and without a Linux bridge, and of the kernel's datapath.

Law: the documents are a real Neutron's, made of what a real agent reports; of that report alone something is left out or changed
(`podvif.lab.neutron_files.AGENTS`).  Traffic is TCP and UDP; what has to be cut off is let through first, so that it can fail.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from podvif import errors, names
from podvif.core.networks import NETWORK_STATUS
from podvif.lab.hugepages import hugepages
from podvif.lab.neutron import Mechanism, PrivateNeutron
from podvif.lab.pod import verb
from podvif.lab.sandbox import sandbox
from tests.neutron.conftest import booted
from tests.node.support import SOON, Attached, refused
from tests.node.test_veth import ip, tcp, udp
from tests.whole.support import PAGES, Running, Whole, whole


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNeutron]:
    """Neutron with the Open vSwitch agent."""
    with booted(tmp_path_factory.mktemp("n"), Mechanism.OVS, mode="ovs") as neutron, hugepages(PAGES):
        yield neutron


@pytest.fixture
def node(
    request: pytest.FixtureRequest, agent: PrivateNeutron, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Whole]:
    """A node whose agent is of the kind asked for; the test has to leave nothing on it."""
    if agent.mode != request.param:
        agent.restart_agent(request.param)
    with whole(tmp_path_factory.mktemp("w"), agent) as made:
        yield made
        assert made.left() == []


def attached(running: Running, ifname: str = "eth0") -> Attached:
    """A pod's interface, with its address from the PodVif."""
    address = running.interface(ifname)["ips"][0]["address"]
    result = {"ips": [{"address": address}]}
    return Attached(running.pod.box, ifname, dict(running.pod.config), result, "", running.pod.env_file)


@pytest.mark.parametrize("node", ["ovs", "hybrid"], indirect=True)
def test_bound_as_ovs(node: Whole) -> None:
    """Ports of vif_type ovs are network interfaces, whatever the pod mounts, and with ovs_hybrid_plug behind a Linux bridge; they become ACTIVE and carry TCP and UDP."""
    hybrid = node.neutron.mode == "hybrid"
    with node.pod("a") as a, node.pod("b", sockets=False) as b:
        for each in (a, b):
            port = node.port(each.interface())
            details = port["binding:vif_details"]
            assert (port["binding:vif_type"], details["datapath_type"]) == ("ovs", "netdev")
            assert bool(details["ovs_hybrid_plug"]) is hybrid
            node.neutron.wait_for_status(port["id"], "ACTIVE")
            node.cluster.wait_for_condition(each.name, "Plugged")
            [tap] = ip(node.neutron.box.name, "link", "show", "dev", names.host_device(port["id"]))
            assert tap.get("master") == (names.linux_bridge(port["id"]) if hybrid else None)
            assert not each.pod.env_file.exists()
        one, other = attached(a), attached(b)
        tcp(one, other)
        tcp(other, one)
        udp(one, other)
        udp(other, one, a.interface()["mtu"] - 28)


@pytest.mark.parametrize("node", ["hybrid"], indirect=True)
def test_security_group(node: Whole) -> None:
    """A hybrid port, here of an additional interface, is behind the security group's rules: Neutron's agent finds it in its Linux bridge."""
    network, subnet = node.neutron.network("10.23.0.0/24", port_security=True)
    node.cluster.create_nad("guarded", subnet)
    with node.pod("a", networks="guarded") as a, node.pod("b", networks="guarded") as b:
        for each in (a, b):
            node.neutron.wait_for_status(each.interface("eth1")["portId"], "ACTIVE")
            main, guarded = json.loads(node.cluster.wait_for_annotation(each.name, NETWORK_STATUS))
            assert (main["interface"], guarded["interface"]) == ("eth0", "eth1")
            assert "device-info" not in guarded
        one, other = attached(a, "eth1"), attached(b, "eth1")
        (group,) = node.port(b.interface("eth1"))["security_groups"]
        # A migration would have given the default group its rules; the lab's tables come from the models.
        rule = {"security_group_id": group, "ethertype": "IPv4"}
        node.neutron.create("security_group_rule", **rule, direction="egress")
        among_them = {**rule, "direction": "ingress", "remote_group_id": group}
        ingress = node.neutron.create("security_group_rule", **among_them)["id"]
        tcp(one, other)
        tcp(other, one)
        node.neutron.ask("DELETE", f"/security-group-rules/{ingress}")
        until_cut_off(one, other)
        node.neutron.create("security_group_rule", **rule, direction="ingress", protocol="tcp")
        tcp(one, other)
    node.neutron.ask("DELETE", f"/networks/{network}")


def until_cut_off(one: Attached, other: Attached) -> None:
    """Return when no new conversation comes about: the agent tells nobody when it has set a rule."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        try:
            tcp(one, other, seconds=1)
        except TimeoutError:
            return
    raise AssertionError("it is not cut off")


@pytest.mark.parametrize("node", ["system"], indirect=True)
def test_datapath_of_the_kernel(node: Whole) -> None:
    """A port that Neutron binds to the kernel's datapath is refused with what to do, and nothing is made of it."""
    with ExitStack() as stack:
        stack.callback(node.cluster.wait_until_gone, "a")
        uid = node.cluster.create_pod("a", node=node.neutron.host)
        stack.callback(node.cluster.finish_pod, "a")
        podvif = node.cluster.wait_for_condition("a", "Bound")
        assert podvif["status"]["interfaces"][0]["vifDetails"]["datapath_type"] == "system"
        args = node.cluster.cni_args("a", uid)
        box = stack.enter_context(sandbox())
        words = ("datapath_type 'system'", "podvif serves netdev")
        refused(verb("ADD", node.network, box, "eth0", args), errors.INVALID_CONFIG, *words)
        assert node.neutron.ovs.ports() == []
        verb("DEL", node.network, box, "eth0", args).checked()
