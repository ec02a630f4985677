"""Values of a cluster to start from: a pod, its PodVif, a Neutron port of each kind, a subnet and its network."""

from typing import Any

from podvif.core.ports import INTERFACE_TAG, TAG, Places, PortDefaults
from podvif.model import ClusterPod, FixedIp, NeutronNetwork, NeutronPort, NeutronSubnet, Route
from podvif.podvifs import FINALIZER, PodVif, Spec, WantedInterface

UID = "0f3c2a6e-52f1-4d0b-9a55-3f8f0c1d2e3f"
NODE = "n1"
NETWORK = NeutronNetwork("0b42ae2d-ac2c-4c40-a34a-496edd8eee99", 1442)
SUBNET = NeutronSubnet("a56c76a1-a0af-4638-b000-c9a1d6a3ed64", NETWORK.id, "10.10.1.0/24", "10.10.1.1")
SUBNET6 = NeutronSubnet(
    "c56c76a1-a0af-4638-b000-c9a1d6a3ed64", NETWORK.id, "fd00:1::/64", "fd00:1::1", (Route("fd00:9::/48", "fd00:1::9"),)
)
OTHER_NETWORK = NeutronNetwork("1b42ae2d-ac2c-4c40-a34a-496edd8eee99", 9000)
OTHER_SUBNET = NeutronSubnet(
    "b56c76a1-a0af-4638-b000-c9a1d6a3ed64",
    OTHER_NETWORK.id,
    "192.168.0.0/16",
    None,
    (Route("172.16.0.0/12", "192.168.0.254"),),
    ("192.168.0.2", "192.168.0.3"),
)
PLACES = Places(
    {subnet.id: subnet for subnet in (SUBNET, SUBNET6, OTHER_SUBNET)},
    {network.id: network for network in (NETWORK, OTHER_NETWORK)},
)
DEFAULTS = PortDefaults(pod_subnet=SUBNET.id)
ETH0 = WantedInterface(name="eth0")
ETH1 = WantedInterface(name="eth1", subnet_id=OTHER_SUBNET.id, attachment="ns/fast")
DETAILS = {
    "port_filter": False, "vhostuser_mode": "server", "vhostuser_ovs_plug": True, "datapath_type": "netdev",
    "vhostuser_socket": "/run/vhu/vhu60f9ed24-42", "bridge_name": "br-int", "bound_drivers": {"0": "openvswitch"},
}  # fmt: skip


def cluster_pod(**changes: Any) -> ClusterPod:
    """A scheduled pod that lives."""
    facts: dict[str, Any] = {"namespace": "ns", "name": "p", "uid": UID, "node_name": NODE}
    return ClusterPod(**facts | changes)


def pod_vif(*interfaces: WantedInterface, pod: ClusterPod | None = None, **changes: Any) -> PodVif:
    """The PodVif of a pod as the controller makes it; without interfaces it is for eth0."""
    pod = pod or cluster_pod()
    spec = Spec(pod.node_name, pod.uid, interfaces or (ETH0,), pod.host_paths)
    facts: dict[str, Any] = {
        "spec": spec,
        "uid": "podvif-uid",
        "resource_version": "7",
        "generation": 1,
        "finalizers": (FINALIZER,),
    }
    return PodVif(pod.namespace, pod.name, **facts | changes)


def neutron_port(wanted: WantedInterface = ETH0, number: int = 1, **changes: Any) -> NeutronPort:
    """A bound port for an interface, as Neutron has it after the controller asked for it."""
    other = wanted.subnet_id == OTHER_SUBNET.id
    subnet, address = (OTHER_SUBNET, f"192.168.0.{number}") if other else (SUBNET, f"10.10.1.{number}")
    facts: dict[str, Any] = {
        "id": f"{number:08x}-0000-4000-8000-000000000000",
        "network_id": subnet.network_id,
        "mac": wanted.mac or f"fa:16:3e:00:00:{number:02x}",
        "name": f"ns/p:{wanted.name}",
        "device_id": UID,
        "device_owner": DEFAULTS.device_owner,
        "fixed_ips": (FixedIp(subnet.id, address),),
        "status": "DOWN",
        "host_id": NODE,
        "vif_type": "vhostuser",
        "vif_details": DETAILS,
        "tags": frozenset({TAG, f"{INTERFACE_TAG}{wanted.name}"}),
        "created": f"2026-11-24T00:00:{number:02d}Z",
    }
    return NeutronPort(**facts | changes)
