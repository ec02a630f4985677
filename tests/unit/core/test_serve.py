"""What an ADD is served with."""

from typing import Any

import pytest

from podvif import errors
from podvif.core import serve, translate
from podvif.core.serve import Serve, Wait, Way, Whose, next_answer, way_of
from podvif.errors import Refused
from podvif.model import Address, Addresses, Attachment, Dns, Route, SocketDir
from podvif.podvifs import Condition, Interface, InterfaceState, PodVif, Spec, Status, WantedInterface
from tests.fakes.cluster import ETH0, ETH1, NODE, OTHER_NETWORK, OTHER_SUBNET, UID, pod_vif
from tests.fakes.podvifs import bound
from tests.fakes.values import config, request

MAIN = config(bridge=None, name="podvif")
NET1 = WantedInterface(name="net1", subnet_id=OTHER_SUBNET.id, attachment="ns/fast", delegated=True)
DELEGATE = config(bridge=None, name="fast", subnetId=OTHER_SUBNET.id.upper())
ALL = (ETH0, ETH1, NET1)
US = Whose(UID, "", NODE)


def answer(
    podvif: PodVif | None, network: dict[str, Any] | None = None, ifname: str = "eth0", whose: Whose = US
) -> Serve | Wait:
    asked = request("ADD", network or MAIN, Attachment("c0ffee", ifname))
    return next_answer(asked, translate.parse_cluster_network(asked.config), whose, podvif)


def bound_podvif(*wanted: WantedInterface, **changes: Any) -> PodVif:
    wanted = wanted or ALL
    interfaces = tuple(bound(each.name, number) for number, each in enumerate(wanted, start=1))
    return pod_vif(*wanted, **{"status": Status(interfaces)} | changes)


@pytest.mark.parametrize(
    ("changes", "way"),
    [
        ({}, Way.STANDALONE),
        ({"bridge": None}, Way.MAIN),
        ({"subnetId": OTHER_SUBNET.id}, Way.DELEGATED),
        ({"bridge": None, "networkId": OTHER_NETWORK.id}, Way.DELEGATED),
        ({"bridge": None, "subnetId": ""}, Way.MAIN),
    ],
)
def test_way(changes: dict[str, Any], way: Way) -> None:
    """The configuration says whether Multus delegates, whether it is the cluster network, or none of Neutron's business."""
    assert way_of(config(**changes)) is way


def test_main() -> None:
    """The pod's main interface comes with all that Multus does not delegate, the one that was asked for first."""
    found = answer(bound_podvif())

    assert isinstance(found, Serve)
    assert [interface.name for interface in found.interfaces] == ["eth0", "eth1"]


def test_main_is_first() -> None:
    """Whatever the order of the spec."""
    found = answer(bound_podvif(ETH1, ETH0))

    assert isinstance(found, Serve)
    assert [interface.name for interface in found.interfaces] == ["eth0", "eth1"]


def test_delegated() -> None:
    """An interface that Multus delegates comes alone, and waits for no other."""
    podvif = bound_podvif(status=Status((bound("net1", 3),)))

    assert answer(podvif, DELEGATE, "net1") == Serve((bound("net1", 3),))


PENDING = Interface(name="eth1", state=InterfaceState.FAILED, message="binding_failed: no agent on node n1")
REFUSED = Condition("Bound", "False", "NetworksRefused", "NAD ns/fast is missing")
NOT_BOUND = Condition("Bound", "False", "NeutronUnreachable", "Neutron unreachable since 12:00")


@pytest.mark.parametrize(
    ("podvif", "words"),
    [
        (None, "there is none"),
        (bound_podvif(spec=Spec(NODE, "another", ALL)), f"it is of pod UID another, and this pod's is {UID}"),
        (bound_podvif(spec=Spec("n2", UID, ALL)), "it is for node n2, and this is n1"),
        (bound_podvif(deleting=True), "it is being deleted"),
        (pod_vif(*ALL), "its interface eth0 has no Neutron port yet"),
        (pod_vif(*ALL, status=Status((bound(),))), "its interface eth1 has no Neutron port yet"),
        (pod_vif(*ALL, status=Status((bound(), PENDING))), "eth1 is not bound: binding_failed: no agent on node n1"),
        (bound_podvif(spec=Spec(NODE, UID), status=Status((), (REFUSED,))), "it is not bound: NAD ns/fast is missing"),
        (pod_vif(*ALL, status=Status((), (NOT_BOUND,))), "it is not bound: Neutron unreachable since 12:00"),
    ],
)
def test_wait(podvif: PodVif | None, words: str) -> None:
    """What is not there, not ours, about to go or not bound is waited for, and why is told in the controller's words."""
    found = answer(podvif)

    assert isinstance(found, Wait)
    assert words in found.reason


def test_static_pod() -> None:
    """The runtime knows a static pod by another UID than its object has: that one is meant, and no other."""
    podvif = bound_podvif(spec=Spec(NODE, UID, ALL, runtime_uid="hash"))

    assert isinstance(answer(podvif, whose=Whose("hash", "", NODE)), Serve)
    assert isinstance(answer(podvif), Wait)


def test_runtime_that_says_no_uid() -> None:
    """Where the runtime says no UID the pod object's own counts, and never nothing."""
    assert isinstance(answer(bound_podvif(), whose=Whose("", UID, NODE)), Serve)
    assert isinstance(answer(bound_podvif(), whose=Whose("", "another", NODE)), Wait)
    assert isinstance(answer(bound_podvif(), whose=Whose("", "", NODE)), Wait)


@pytest.mark.parametrize(
    ("network", "ifname", "words"),
    [
        (MAIN, "eth7", "has no interface eth7: it has eth0, eth1, net1"),
        (MAIN, "net1", "net1 of PodVif ns/p comes with an ADD of its own"),
        (DELEGATE, "eth1", "eth1 of PodVif ns/p comes with the pod's main interface"),
        (config(bridge=None, subnetId=OTHER_NETWORK.id), "net1", "was made for"),
        (config(bridge=None, networkId=OTHER_NETWORK.id), "net1", "has subnetId (none)"),
        (DELEGATE | {"networkId": OTHER_NETWORK.id}, "net1", f"has networkId {OTHER_NETWORK.id}"),
    ],
)
def test_refused(network: dict[str, Any], ifname: str, words: str) -> None:
    """What the PodVif does not have, has in another way or on another subnet is refused with its name."""
    with pytest.raises(Refused) as caught:
        answer(bound_podvif(), network, ifname)

    assert (caught.value.code, words in caught.value.message) == (errors.INVALID_CONFIG, True), caught.value.message


def test_what_was_asked_for() -> None:
    """A MAC or address asked for at run time has to be what Neutron has given."""
    pods, ovs = SocketDir("/pods"), SocketDir("/ovs")
    interface = bound()
    vif, addresses = translate.neutron_to_osvif_vif_ovs(interface, pods, ovs), serve.addresses_of(interface, main=True)

    def ask(**changes: Any) -> None:
        network = MAIN | {"runtimeConfig": changes}
        serve.refuse_unasked(request("ADD", network), translate.parse_cluster_network(network), vif, addresses)

    ask()
    ask(mac=interface.mac.upper(), ips=["10.10.1.1/24"])
    with pytest.raises(Refused, match="MAC 02:00:00:00:00:01 was asked for and Neutron port"):
        ask(mac="02:00:00:00:00:01")
    with pytest.raises(Refused, match=r"10\.10\.1\.9 was asked for and Neutron did not give it"):
        ask(ips=["10.10.1.9"])


IPS = (Address("10.10.1.5/24", "10.10.1.1"), Address("10.10.2.5/24", "10.10.2.1"), Address("fd00::5/64", "fd00::1"))
ROUTE, DEFAULT, DEFAULT6 = Route("10.0.0.0/8", "10.10.1.9"), Route("0.0.0.0/0", "10.10.1.1"), Route("::/0", "fd00::1")


@pytest.mark.parametrize(
    ("ips", "routes", "main", "wanted"),
    [
        (IPS, (ROUTE,), False, (ROUTE,)),
        (IPS, (ROUTE,), True, (ROUTE, DEFAULT, DEFAULT6)),
        (IPS, (Route("0.0.0.0/0", "10.10.1.9"),), True, (Route("0.0.0.0/0", "10.10.1.9"), DEFAULT6)),
        ((Address("10.10.1.5/24"),), (), True, ()),
    ],
)
def test_addresses(
    ips: tuple[Address, ...], routes: tuple[Route, ...], wanted: tuple[Route, ...], *, main: bool
) -> None:
    """Addresses, routes and name servers are Neutron's; the main interface leads to everything else by its first gateways."""
    dns = Dns(("10.10.1.2",))

    assert serve.addresses_of(bound(ips=ips, routes=routes, dns=dns), main=main) == Addresses(ips, wanted, dns)


def test_gone() -> None:
    """The error of an ADD whose pod has ended tells the runtime that there is nothing to clean up."""
    assert serve.gone("ns/p").code == errors.UNKNOWN_CONTAINER
