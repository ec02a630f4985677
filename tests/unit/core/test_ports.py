"""Neutron ports of pods: whose they are, where they shall be, what of them goes into the PodVif."""

from typing import Any

import msgspec
import pytest

from podvif.core import ports
from podvif.core.ports import PORT_NAME_MAX, Place, Places, PortDefaults
from podvif.errors import PodvifError, Refused, Retry
from podvif.model import Address, Dns, FixedIp, NeutronNetwork, NeutronPort, PortRequest, Route
from podvif.podvifs import Interface, InterfaceState, WantedInterface
from tests.fakes.cluster import (
    DEFAULTS,
    DETAILS,
    ETH0,
    ETH1,
    NETWORK,
    NODE,
    OTHER_NETWORK,
    OTHER_SUBNET,
    PLACES,
    SUBNET,
    SUBNET6,
    UID,
    cluster_pod,
    neutron_port,
    pod_vif,
)

OWNER = DEFAULTS.device_owner
NO_TAGS: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("port", "interface", "ours"),
    [
        (neutron_port(), "eth0", True),
        (neutron_port(ETH1), "eth1", True),
        (neutron_port(device_owner="compute:other"), "eth0", True),
        (neutron_port(name="renamed"), "eth0", True),
        (neutron_port(tags=NO_TAGS), "eth0", True),
        (neutron_port(tags=NO_TAGS, device_owner="compute:nova"), "eth0", False),
        (neutron_port(tags=NO_TAGS, name="ns/p"), "", False),
        (neutron_port(tags=NO_TAGS, name=""), "", False),
        (neutron_port(tags=NO_TAGS, name="vm:some long description"), "", False),
        (neutron_port(tags=frozenset({"kuryr"}), name="kuryr-pool-port"), "", False),
        (neutron_port(tags=frozenset({"podvif"}), name="x"), "", True),
    ],
)
def test_whose(port: NeutronPort, interface: str, ours: bool) -> None:  # noqa: FBT001
    """A port is ours by its tag; without tags by its owner and its name, which Kuryr's ports and VMs' do not have."""
    assert ports.interface_of(port) == interface
    assert ports.is_ours(port, OWNER) is ours


def test_orphans() -> None:
    """Ports of ours whose pod is gone are orphans; those of pods and those of others are not."""
    living, gone = neutron_port(number=1), neutron_port(number=2, device_id="another")
    foreign = neutron_port(number=3, device_id="another", tags=frozenset({"theirs"}))

    assert ports.orphans([living, gone, foreign], {UID}, OWNER) == (gone,)


def test_look_ups() -> None:
    """What is looked up before a decision: the subnets asked for, the ports', and their networks."""
    by_network = WantedInterface(name="net1", network_id=OTHER_NETWORK.id)
    port = neutron_port(fixed_ips=(FixedIp(SUBNET6.id, "fd00:1::5"),))

    assert ports.subnet_ids([ETH0, ETH1, by_network], [port], DEFAULTS) == {SUBNET.id, OTHER_SUBNET.id, SUBNET6.id}
    assert ports.subnet_ids([ETH0], [], PortDefaults()) == frozenset()
    assert ports.network_ids([by_network], [port], Places({SUBNET.id: SUBNET, "x": Retry("away")})) == {
        OTHER_NETWORK.id,
        NETWORK.id,
    }


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        (ETH0, Place(NETWORK, SUBNET)),
        (ETH1, Place(OTHER_NETWORK, OTHER_SUBNET)),
        (WantedInterface(name="a", network_id=OTHER_NETWORK.id), Place(OTHER_NETWORK, None)),
        (WantedInterface(name="a", network_id=NETWORK.id, subnet_id=SUBNET6.id), Place(NETWORK, SUBNET6)),
        (WantedInterface(name="a", ips=("10.10.1.9",)), Place(NETWORK, SUBNET)),
    ],
)
def test_place(wanted: WantedInterface, place: Place) -> None:
    """An interface's port is on the subnet asked for or the default one, or anywhere in the network asked for."""
    assert ports.place_of(wanted, PLACES, DEFAULTS) == place


GONE = Refused("subnet x not found")


@pytest.mark.parametrize(
    ("wanted", "places", "defaults", "family", "words"),
    [
        (ETH0, PLACES, PortDefaults(), Refused, "interface eth0 names no subnet and there is no default one"),
        (ETH0, Places(), DEFAULTS, Retry, f"subnet {SUBNET.id} was not looked up yet"),
        (ETH0, Places({SUBNET.id: SUBNET}), DEFAULTS, Retry, f"network {NETWORK.id} was not looked up yet"),
        (ETH0, Places({SUBNET.id: GONE}), DEFAULTS, Refused, "subnet x not found"),
        (ETH0, Places({SUBNET.id: SUBNET}, {NETWORK.id: Retry("away")}), DEFAULTS, Retry, "away"),
        (WantedInterface(name="a", subnet_id=SUBNET.id, network_id=OTHER_NETWORK.id), PLACES, DEFAULTS, Refused,
         f"subnet {SUBNET.id} is in network {NETWORK.id} and not in {OTHER_NETWORK.id}"),
        (WantedInterface(name="a", ips=("10.10.2.9",)), PLACES, DEFAULTS, Refused,
         f"address 10.10.2.9 is not in subnet {SUBNET.id} (10.10.1.0/24)"),
        (WantedInterface(name="a", ips=("fd00::1",)), PLACES, DEFAULTS, Refused, "address fd00::1 is not in subnet"),
    ],
)  # fmt: skip
def test_no_place(
    wanted: WantedInterface, places: Places, defaults: PortDefaults, family: type[PodvifError], words: str
) -> None:
    """Without a place there is the reason: what the look-up said, or what of the request does not agree."""
    with pytest.raises(family) as caught:
        ports.place_of(wanted, places, defaults)

    assert words in caught.value.message


@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({}, {}, None),
        ({}, {"mac": "fa:16:3e:00:00:01", "ips": ("10.10.1.1",)}, None),
        ({"network_id": OTHER_NETWORK.id}, {}, "is in network"),
        ({"fixed_ips": ()}, {}, "has no address of subnet"),
        ({"fixed_ips": (FixedIp(SUBNET6.id, "fd00:1::5"),)}, {}, "has no address of subnet"),
        ({}, {"mac": "fa:16:3e:00:00:99"}, "wanted is fa:16:3e:00:00:99"),
        ({}, {"ips": ("10.10.1.1", "10.10.1.2")}, "has not the address 10.10.1.2"),
    ],
)
def test_fit(changes: dict[str, Any], asked: dict[str, Any], words: str | None) -> None:
    """A port that was adopted fits when it is in the place, and has the MAC and the addresses, that were asked for."""
    wanted = WantedInterface(name="eth0", **asked)
    reason = ports.why_not_fit(neutron_port(**changes), wanted, Place(NETWORK, SUBNET))

    assert (reason is None) == (words is None)
    assert words is None or words in (reason or "")


def test_request() -> None:
    """A port is asked for on the pod's node, with its UID, both tags and a name for people."""
    wanted = WantedInterface(name="eth1", subnet_id=SUBNET.id, mac="02:00:00:00:00:01", ips=("10.10.1.9",))
    defaults = PortDefaults("kubernetes:pod", "", ("sg",), "project", ("cluster=a",))

    assert ports.port_request(pod_vif(wanted), wanted, Place(NETWORK, SUBNET), defaults) == PortRequest(
        network_id=NETWORK.id,
        host_id=NODE,
        device_id=UID,
        device_owner="kubernetes:pod",
        name="ns/p:eth1",
        subnet_ids=(SUBNET.id,),
        mac="02:00:00:00:00:01",
        ips=("10.10.1.9",),
        security_groups=("sg",),
        tags=("podvif", "podvif-if=eth1", "cluster=a"),
        project_id="project",
    )


def test_request_of_the_least() -> None:
    """What was not asked for is left to Neutron."""
    request = ports.port_request(pod_vif(), ETH0, Place(NETWORK, None), DEFAULTS)

    assert (request.subnet_ids, request.mac, request.ips, request.security_groups) == ((), None, (), None)


def test_long_names() -> None:
    """A port's name is cut to what Neutron takes, and still says which interface it is for."""
    pod = cluster_pod(namespace="n" * 63, name="p" * 253)
    name = ports.port_request(pod_vif(pod=pod), ETH0, Place(NETWORK, None), DEFAULTS).name

    assert len(name) == PORT_NAME_MAX
    assert ports.interface_of(neutron_port(tags=NO_TAGS, name=name)) == "eth0"


FACTS = {"port_id": neutron_port().id, "mac": "fa:16:3e:00:00:01", "vif_type": "vhostuser", "vif_details": DETAILS}


@pytest.mark.parametrize(
    ("port", "facts"),
    [
        (neutron_port(), {"mtu": 1442, "ips": (Address("10.10.1.1/24", "10.10.1.1"),)}),
        (
            neutron_port(ETH1),
            {
                "mtu": 9000,
                "ips": (Address("192.168.0.1/16"),),
                "routes": (Route("172.16.0.0/12", "192.168.0.254"),),
                "dns": Dns(("192.168.0.2", "192.168.0.3")),
            },
        ),
        (
            neutron_port(fixed_ips=(FixedIp(SUBNET.id, "10.10.1.1"), FixedIp(SUBNET6.id, "fd00:1::5"), FixedIp(SUBNET6.id, "fd00:1::6"))),
            {
                "mtu": 1442,
                "ips": (Address("10.10.1.1/24", "10.10.1.1"), Address("fd00:1::5/64", "fd00:1::1"), Address("fd00:1::6/64", "fd00:1::1")),
                "routes": (Route("fd00:9::/48", "fd00:1::9"),),
            },
        ),
        (neutron_port(fixed_ips=()), {"mtu": 1442}),
        (neutron_port(vif_details=DETAILS | {"nothing": None}), {"mtu": 1442, "ips": (Address("10.10.1.1/24", "10.10.1.1"),)}),
        (neutron_port(host_id=""), {"mtu": 1442, "ips": (Address("10.10.1.1/24", "10.10.1.1"),)}),
    ],
    ids=["one subnet", "no gateway, routes, dns, jumbo", "two subnets, IPv6", "no address", "a null", "host_id hidden"],
)  # fmt: skip
def test_facts(port: NeutronPort, facts: dict[str, Any]) -> None:
    """A bound port's interface has the prefix, gateway, routes and name servers of its subnets, the MTU of its network."""
    wanted = Interface(name="eth0", state=InterfaceState.BOUND, **FACTS | facts)

    assert ports.interface_facts("eth0", port, PLACES, NODE) == wanted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vif_type": "binding_failed", "vif_details": {}}, "binding_failed: no agent with datapath netdev on node n1"),
        ({"vif_type": "unbound", "vif_details": {}, "host_id": ""}, "unbound: Neutron has bound the port to no host; node n1"),
        ({"host_id": "n2"}, "unbound: Neutron has the port on host n2; node n1 is wanted"),
        ({"vif_type": "hw_veb"}, "hw_veb: podvif plugs"),
        ({"vif_details": {}}, "vhostuser: vif_details has vhostuser_mode None"),
    ],
)  # fmt: skip
def test_facts_of_an_unbound_port(changes: dict[str, Any], words: str) -> None:
    """A port that cannot be plugged is shown with what it has, Failed, and the reason."""
    interface = ports.interface_facts("eth0", neutron_port(**changes), PLACES, NODE)

    assert interface.state is InterfaceState.FAILED
    assert interface.message.startswith(words)
    assert interface.port_id == neutron_port().id


@pytest.mark.parametrize("places", [Places(), Places(PLACES.subnets), Places({}, PLACES.networks)])
def test_facts_without_a_place(places: Places) -> None:
    """While a subnet or the network is not known, nothing is made up."""
    with pytest.raises(Retry, match="was not looked up yet"):
        ports.interface_facts("eth0", neutron_port(), places, NODE)


def test_facts_are_written_and_read_alike() -> None:
    """What goes to the API server comes back the same: else it would be written for ever."""
    facts = ports.interface_facts("eth0", neutron_port(), PLACES, NODE)

    assert msgspec.json.decode(msgspec.json.encode(facts), type=Interface) == facts


def test_network_by_itself() -> None:
    """A network has no subnet of ours to agree with."""
    place = Place(NeutronNetwork("x", 1500), None)

    assert ports.why_not_fit(neutron_port(network_id="x"), ETH0, place) is None
