"""From a pod's annotation to the interfaces that it wants."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podvif.core.networks import (
    KURYR_CONFIG,
    NETWORKS,
    attachments_of,
    render_network_status,
    wanted_interfaces,
)
from podvif.errors import Refused
from podvif.model import Address, ClusterPod, Dns, Listener, Nad
from podvif.podvifs import INTERFACES_MAX, Interface, InterfaceState, Spec, WantedInterface
from tests.fakes.values import vif

SUBNET = "a56c76a1-a0af-4638-b000-c9a1d6a3ed64"
OTHER_SUBNET = "b56c76a1-a0af-4638-b000-c9a1d6a3ed64"
NETWORK = "0b42ae2d-ac2c-4c40-a34a-496edd8eee99"
ETH0 = WantedInterface(name="eth0")


def kuryr(name: str, subnet: str = SUBNET, namespace: str = "ns", **more: Any) -> Nad:
    return Nad(namespace, name, {KURYR_CONFIG: json.dumps({"subnetId": subnet, **more})})


def multus(name: str, namespace: str = "ns", **keys: Any) -> Nad:
    return Nad(namespace, name, config=json.dumps({"type": "podvif-cni", "name": name, **keys}))


def chain(name: str, *plugins: dict[str, Any]) -> Nad:
    return Nad("ns", name, config=json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": list(plugins)}))


OURS = {"type": "podvif-cni", "subnetId": SUBNET}
NADS = [
    kuryr("k"),
    kuryr("k2", OTHER_SUBNET, driverType="neutron-vif"),
    kuryr("away", namespace="other"),
    multus("m", subnetId=SUBNET),
    multus("mn", networkId=NETWORK.upper()),
    chain("chained", OURS, {"type": "tuning"}),
    multus("standalone", bridge="br-dpdk"),
    Nad("ns", "macvlan", config='{"type": "macvlan"}'),
    Nad("ns", "mixed", {KURYR_CONFIG: json.dumps({"subnetId": SUBNET})}, '{"type": "macvlan"}'),
    Nad("ns", "nothing"),
    Nad("ns", "broken", config="{"),
    Nad("ns", "list", config="[]"),
    Nad("ns", "plugins", config='{"plugins": {}}'),
    Nad("ns", "both", {KURYR_CONFIG: "{}"}, json.dumps(OURS)),
    Nad("ns", "k-broken", {KURYR_CONFIG: "{"}),
    Nad("ns", "k-list", {KURYR_CONFIG: "[]"}),
    Nad("ns", "k-empty", {KURYR_CONFIG: "{}"}),
    Nad("ns", "k-null", {KURYR_CONFIG: '{"subnetId": null}'}),
    kuryr("k-name", "mysubnet"),
    kuryr("k-sriov", driverType="sriov"),
    multus("m-empty"),
    multus("m-name", subnetId=7),
    chain("twice", OURS, OURS),
]


def pod(networks: Any = None) -> ClusterPod:
    text = networks if isinstance(networks, str) else json.dumps(networks)
    return ClusterPod("ns", "p", "uid", annotations={} if networks is None else {NETWORKS: text})


def wants(networks: Any, *, cluster_network: bool = True, prefix: str = "eth") -> tuple[WantedInterface, ...]:
    nads = {str(nad): nad for nad in NADS}
    return wanted_interfaces(pod(networks), nads, cluster_network=cluster_network, prefix=prefix)


def refusal(networks: Any, *, cluster_network: bool = True) -> Refused:
    with pytest.raises(Refused) as caught:
        wants(networks, cluster_network=cluster_network)
    assert "\n" not in caught.value.message
    assert caught.value.remedy
    return caught.value


def of_kuryr(name: str, nad: str = "ns/k", subnet: str = SUBNET, **changes: Any) -> WantedInterface:
    return WantedInterface(name=name, subnet_id=subnet, attachment=nad, **changes)


def of_multus(name: str, nad: str = "ns/m", **changes: Any) -> WantedInterface:
    place: dict[str, Any] = {"subnet_id": SUBNET} if "network_id" not in changes else {}
    return WantedInterface(name=name, attachment=nad, delegated=True, **place, **changes)


@pytest.mark.parametrize(
    ("networks", "wanted"),
    [
        (None, []),
        ("", []),
        ("  ", []),
        ([], []),
        ("k", [of_kuryr("eth1")]),
        ("k,k2", [of_kuryr("eth1"), of_kuryr("eth2", "ns/k2", OTHER_SUBNET)]),
        (" k , ns/k2 ", [of_kuryr("eth1"), of_kuryr("eth2", "ns/k2", OTHER_SUBNET)]),
        ("k,k", [of_kuryr("eth1"), of_kuryr("eth2")]),
        ("k@fast0", [of_kuryr("fast0")]),
        ("other/away", [of_kuryr("eth1", "other/away")]),
        ("other/away,k", [of_kuryr("eth1", "other/away"), of_kuryr("eth2")]),
        ("macvlan,k", [of_kuryr("eth1")]),
        ("mixed", [of_kuryr("eth1", "ns/mixed")]),
        ("m", [of_multus("net1")]),
        ("macvlan,m", [of_multus("net2")]),
        ("k,m,k", [of_kuryr("eth1"), of_multus("net2"), of_kuryr("eth2")]),
        ("mn", [of_multus("net1", "ns/mn", network_id=NETWORK)]),
        ("chained", [of_multus("net1", "ns/chained")]),
        ("standalone", []),
        ("m@" + "x" * 15, [of_multus("x" * 15)]),
        ([{"name": "k"}], [of_kuryr("eth1")]),
        ([{"name": "away", "namespace": "other"}], [of_kuryr("eth1", "other/away")]),
        ([{"name": "k", "namespace": ""}], [of_kuryr("eth1")]),
        ([{"name": "k", "interface": "a"}, {"name": "k"}], [of_kuryr("a"), of_kuryr("eth2")]),
        ([{"name": "k", "mac": "FA:16:3E:00:00:01"}], [of_kuryr("eth1", mac="fa:16:3e:00:00:01")]),
        ([{"name": "m", "ips": ["10.0.0.5/24", "fd00:0::5"]}], [of_multus("net1", ips=("10.0.0.5", "fd00::5"))]),
        ([{"name": "k", "example.com/key": 1, "bandwidth": None, "ips": None, "cni-args": {}}], [of_kuryr("eth1")]),
        ([{"name": "chained", "cni-args": {"sysctl": {}}, "bandwidth": {"x": 1}}], [of_multus("net1", "ns/chained")]),
        ([{"name": "macvlan", "default-route": ["10.0.0.1"], "bogus": 1}], []),
        ("macvlan@a,macvlan@a,k", [of_kuryr("eth1")]),
    ],
    ids=lambda value: json.dumps(value)[:60] if not isinstance(value, list) or not value or isinstance(value[0], dict) else "",
)  # fmt: skip
def test_wanted(networks: Any, wanted: list[WantedInterface]) -> None:
    """As the cluster network podvif serves eth0, Kuryr's entries, and Multus's delegates; entries of others are theirs."""
    assert list(wants(networks)) == [ETH0, *wanted]


@pytest.mark.parametrize(
    ("networks", "wanted"),
    [
        (None, []),
        ("macvlan,nothing", []),
        ("mixed", []),
        ("standalone", []),
        ("nothing,m", [of_multus("net2")]),
        ("m,mn@x", [of_multus("net1"), of_multus("x", "ns/mn", network_id=NETWORK)]),
    ],
)
def test_beside_another_cluster_network(networks: Any, wanted: list[WantedInterface]) -> None:
    """Where another plugin is the cluster network, podvif serves Multus's delegates and nothing else."""
    assert list(wants(networks, cluster_network=False)) == wanted


def test_prefix() -> None:
    """Names in Kuryr's way begin as [kubernetes] additional_ifname_prefix says."""
    assert [interface.name for interface in wants("k,k", prefix="dpdk")] == ["eth0", "dpdk1", "dpdk2"]


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ("gone", "NetworkAttachmentDefinition ns/gone is missing"),
        ("away", "ns/away is missing; there is one in namespace other"),
        ("nothing", "ns/nothing has neither the annotation openstack.org/kuryr-config nor a spec.config"),
        ("broken", "ns/broken: spec.config is broken JSON"),
        ("list", "ns/list: spec.config is no JSON object"),
        ("plugins", "ns/plugins: spec.config's plugins is no list"),
        ("both", "ns/both has both"),
        ("k-broken", "ns/k-broken: annotation openstack.org/kuryr-config is broken JSON"),
        ("k-list", "ns/k-list: annotation openstack.org/kuryr-config is no JSON object"),
        ("k-empty", "ns/k-empty: annotation openstack.org/kuryr-config has no subnetId"),
        ("k-null", "subnetId None is no UUID"),
        ("k-name", "ns/k-name: annotation openstack.org/kuryr-config: subnetId 'mysubnet' is no UUID"),
        ("k-sriov", "ns/k-sriov: annotation openstack.org/kuryr-config has driverType 'sriov'"),
        ("m-empty", "ns/m-empty: spec.config has neither subnetId nor networkId"),
        ("m-name", "ns/m-name: spec.config: subnetId 7 is no UUID"),
        ("twice", "ns/twice: spec.config has podvif-cni 2 times"),
        ("k,", "entry 2: name '' is no Kubernetes name"),
        ("K", "entry 1: name 'K' is no Kubernetes name"),
        ("a/b/k", "entry 1: name 'b/k' is no Kubernetes name"),
        ("/k", "'/k' is not of the form"),
        ("k@", "'k@' is not of the form"),
        ("k@a@b@c@d@e@f@g@h@i", "interface 'a@b@c@d@e@f@g@h@i' cannot be one"),
        ("k@" + "x" * 16, "interface 'xxxxxxxxxxxxxxxx' cannot be one: it has 16 bytes"),
        ("k@a b", "interface 'a b' cannot be one"),
        ("k@eth0", "the pod has an interface eth0 already"),
        ("k@a,k@a", "networks entry ns/k: the pod has an interface a already"),
        ("k@eth2,k", "the pod has an interface eth2 already"),
        ("macvlan,m@net1", "the pod has an interface net1 already"),
        ("m@net2,macvlan", "the pod has an interface net2 already"),
        ("[", "k8s.v1.cni.cncf.io/networks is broken JSON"),
        ("[" * 2000, "k8s.v1.cni.cncf.io/networks is broken JSON"),
        ('{"name": "k"}', "is no JSON list of objects"),
        ('["k"]', "is no JSON list of objects"),
        ([{}], "entry 1: name '' is no Kubernetes name"),
        ([{"name": 7}], "entry 1: name is no string"),
        ([{"name": "k", "interface": 7}], "entry 1: interface is no string"),
        ([{"name": "k", "mac": 7}], "networks entry ns/k: mac is no string"),
        ([{"name": "k", "mac": "02:00:00:00:00"}], "mac 02:00:00:00:00 is no MAC address"),
        ([{"name": "k", "mac": "01:00:00:00:00:01"}], "mac 01:00:00:00:00:01 is no unicast address"),
        ([{"name": "k", "mac": "02:00:00:00:00:0a"}, {"name": "m", "mac": "02:00:00:00:00:0A"}],
         "networks entry ns/m: mac 02:00:00:00:00:0a is eth1's already"),
        ([{"name": "k", "ips": "10.0.0.5"}], "networks entry ns/k: ips is no list"),
        ([{"name": "k", "ips": ["10.0.0.256"]}], "'10.0.0.256' in ips is no IP address"),
        ([{"name": "k", "ips": [7]}], "7 in ips is no IP address"),
        ([{"name": "k", "ips": ["10.0.0.5", "10.0.0.5/8"]}], "ips has an address twice"),
        ([{"name": "k", "default-route": ["10.0.0.1"]}], "networks entry ns/k: default-route cannot be honoured"),
        ([{"name": "chained", "default-route": ["10.0.0.1"]}], "default-route cannot be honoured"),
        ([{"name": "k", "bandwidth": {"ingressRate": 1}}], "podvif does not serve bandwidth"),
        ([{"name": "m", "cni-args": {"x": 1}}], "podvif does not serve cni-args"),
        ([{"name": "chained", "cni-args": {"mac": "x"}}], "cni-args with mac or ips"),
        ([{"name": "chained", "ipam-claim-reference": "x"}], "podvif does not serve ipam-claim-reference"),
        ([{"name": "k", "macs": "x"}], "podvif does not serve macs"),
        (",".join(["k"] * 100), f"asks for 101 interfaces, podvif gives a pod {INTERFACES_MAX}"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)  # fmt: skip
def test_refused(networks: Any, words: str) -> None:
    """What cannot be served as it is asked is refused in one line that names the entry or the NAD, and what to do."""
    assert words in refusal(networks).message


def test_kuryrs_way_needs_the_cluster_network() -> None:
    """Kuryr's annotation is refused where podvif gets no ADD of eth0 to serve it with."""
    assert "only where podvif is the cluster network" in refusal("k", cluster_network=False).message


def test_most_interfaces() -> None:
    """As many interfaces as a DPDK application takes are given; a hundred entries of other plugins do not count."""
    assert len(wants(",".join(["k"] * (INTERFACES_MAX - 1)))) == INTERFACES_MAX
    assert len(wants(",".join([*["macvlan"] * 99, "k"]))) == 2


@given(st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "namespace", "interface", "mac", "ips", "default-route", "x"]), inner), max_leaves=12))  # fmt: skip
def test_any_annotation(networks: Any) -> None:
    """Whatever stands in the annotation, there is an answer: interfaces with names of their own, or a refusal."""
    try:
        found = wants(networks)
    except Refused:
        return
    assert len({interface.name for interface in found}) == len(found)


def test_attachments() -> None:
    """The NADs that a pod waits for are known, also while they are missing; a broken annotation names none."""
    assert attachments_of(pod("k,other/gone@x")) == {"ns/k", "other/gone"}
    assert attachments_of(pod("[")) == frozenset()


def test_network_status() -> None:
    """The network-status of a pod in Kuryr's way: each interface with its facts, and where a socket lies."""
    spec = Spec("n1", "uid", (ETH0, of_kuryr("eth1"), of_kuryr("eth2")))
    facts: dict[str, Any] = {
        "mac": "fa:16:3e:00:00:01",
        "mtu": 1442,
        "ips": (Address("10.0.0.5/24", "10.0.0.1"), Address("fd00::5/64")),
        "dns": Dns(("10.0.0.2",)),
    }
    interfaces = {name: Interface(name=name, state=InterfaceState.BOUND, **facts) for name in ("eth0", "eth1")}
    port = vif(Listener.OVS)

    text = render_network_status(spec, interfaces, {"eth1": port}, "podvif")

    common = {
        "ips": ["10.0.0.5", "fd00::5"],
        "mac": "fa:16:3e:00:00:01",
        "mtu": 1442,
        "dns": {"nameservers": ["10.0.0.2"]},
        "gateway": ["10.0.0.1"],
    }
    device = {"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": "client", "path": port.socket}}
    assert text is not None
    assert json.loads(text) == [
        {"name": "podvif", "interface": "eth0", "default": True, **common},
        {"name": "ns/k", "interface": "eth1", "device-info": device, **common},
    ]


def test_network_status_of_multus() -> None:
    """Where Multus delegates, the annotation is his."""
    assert render_network_status(Spec("n1", "uid", (ETH0, of_multus("net1"))), {}, {}, "podvif") is None
