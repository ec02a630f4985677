"""A pod's Neutron ports: what is asked for, which port is whose, and what of them goes into the PodVif.

Law: a port says itself whose it is, by `device_id` and tags (by owner and name where Neutron has no tags), so that a
controller that remembers nothing finds what it made.  Neutron's facts are copied, never judged anew on the node: prefix
lengths, gateways, routes and name servers are the subnets', the MTU is the network's.
"""

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import msgspec

from podvif.core.cni import why_not_ifname
from podvif.core.translate import why_not_pluggable
from podvif.errors import PodvifError, Refused, Retry
from podvif.model import Address, Dns, NeutronNetwork, NeutronPort, NeutronSubnet, PortRequest, Route
from podvif.podvifs import Interface, InterfaceState, PodVif, WantedInterface

Fact = TypeVar("Fact", NeutronSubnet, NeutronNetwork)
Item = TypeVar("Item", Route, str)

TAG = "podvif"
"""Tag of every port of ours."""

INTERFACE_TAG = "podvif-if="
"""Begins the tag that says which interface of the pod a port is for."""

PORT_NAME_MAX = 255
"""Characters of a port's name (Neutron's `NAME_FIELD_SIZE`)."""


class PortDefaults(msgspec.Struct, frozen=True):
    """What the configuration says of every port.

    Attributes:
        device_owner: [neutron] device_owner.
        pod_subnet: UUID of the subnet of interfaces that name none; empty when there is none.
        security_groups: UUIDs; None leaves the project's default group.
        project_id: whose the ports are; None for the credentials' own.
        tags: more tags, [neutron_defaults] resource_tags.
    """

    device_owner: str = "compute:kuryr"
    pod_subnet: str = ""
    security_groups: tuple[str, ...] | None = None
    project_id: str | None = None
    tags: tuple[str, ...] = ()


class Places(msgspec.Struct, frozen=True):
    """The subnets and networks that were looked up, by UUID: their facts, or why there are none."""

    subnets: Mapping[str, NeutronSubnet | PodvifError] = {}
    networks: Mapping[str, NeutronNetwork | PodvifError] = {}


class Place(msgspec.Struct, frozen=True):
    """Where a port shall be: its network, and the one subnet, or None where Neutron chooses."""

    network: NeutronNetwork
    subnet: NeutronSubnet | None


# -- whose a port is --------------------------------------------------------------------------------------------------


def interface_of(port: NeutronPort) -> str:
    """The pod's interface that a port of ours is for: by its tag, else by its name; empty when neither says so."""
    for tag in port.tags:
        if tag.startswith(INTERFACE_TAG):
            return tag.removeprefix(INTERFACE_TAG)
    name = port.name.rpartition(":")[2] if ":" in port.name else ""
    return "" if why_not_ifname(name) else name


def is_ours(port: NeutronPort, device_owner: str) -> bool:
    """Whether podvif made a port.  Owner and device id alone do not say so: Kuryr's ports had the same."""
    if port.tags:
        return TAG in port.tags
    return port.device_owner == device_owner and bool(interface_of(port))


def orphans(ports: Iterable[NeutronPort], uids: Collection[str], device_owner: str) -> tuple[NeutronPort, ...]:
    """The ports of ours that belong to no pod and no PodVif: what a sweep removes after a grace time.

    Args:
        ports: all that Neutron has of our owner.
        uids: of every pod that is served (`pods.is_served`), and the `podUID` of every PodVif.
        device_owner: ours.
    """
    return tuple(port for port in ports if is_ours(port, device_owner) and port.device_id not in uids)


# -- where a port shall be --------------------------------------------------------------------------------------------


def subnet_ids(
    interfaces: Iterable[WantedInterface], ports: Iterable[NeutronPort], defaults: PortDefaults
) -> frozenset[str]:
    """The subnets to look up before a decision: those asked for, and those that the ports have addresses of."""
    asked = {_subnet_of(interface, defaults) for interface in interfaces}
    return frozenset(asked | {ip.subnet_id for port in ports for ip in port.fixed_ips}) - {""}


def network_ids(interfaces: Iterable[WantedInterface], ports: Iterable[NeutronPort], places: Places) -> frozenset[str]:
    """The networks to look up, once the subnets are there."""
    of_subnets = {subnet.network_id for subnet in places.subnets.values() if isinstance(subnet, NeutronSubnet)}
    asked = {interface.network_id for interface in interfaces}
    return frozenset(of_subnets | asked | {port.network_id for port in ports}) - {""}


def _subnet_of(interface: WantedInterface, defaults: PortDefaults) -> str:
    return interface.subnet_id or ("" if interface.network_id else defaults.pod_subnet)


def place_of(wanted: WantedInterface, places: Places, defaults: PortDefaults) -> Place:
    """Where the port of an interface shall be.

    Raises:
        PodvifError: Neutron has no such place, or could not be asked for it.
    """
    subnet_id = _subnet_of(wanted, defaults)
    if not subnet_id and not wanted.network_id:
        raise Refused(
            f"interface {wanted.name} names no subnet and there is no default one", "set [neutron_defaults] pod_subnet"
        )
    subnet = _found(places.subnets, subnet_id, "subnet") if subnet_id else None
    network_id = subnet.network_id if subnet else wanted.network_id
    if subnet and wanted.network_id not in {"", network_id}:
        raise Refused(
            f"subnet {subnet_id} is in network {network_id} and not in {wanted.network_id}",
            f"mend NetworkAttachmentDefinition {wanted.attachment}: one of subnetId and networkId is enough",
        )
    if subnet:
        for ip in wanted.ips:
            if ipaddress.ip_address(ip) not in ipaddress.ip_network(subnet.cidr, strict=False):
                raise Refused(
                    f"address {ip} is not in subnet {subnet_id} ({subnet.cidr})", "ask for one of the subnet's"
                )
    return Place(_found(places.networks, network_id, "network"), subnet)


def _found(facts: Mapping[str, Fact | PodvifError], key: str, kind: str) -> Fact:
    fact = facts.get(key)
    if fact is None:
        raise Retry(f"{kind} {key} was not looked up yet")
    if isinstance(fact, PodvifError):
        raise fact
    return fact


def why_not_fit(port: NeutronPort, wanted: WantedInterface, place: Place) -> str | None:
    """In which way a port is not what the interface asks for, or None when it is."""
    if port.network_id != place.network.id:
        return f"port {port.id} is in network {port.network_id}, wanted is {place.network.id}"
    if place.subnet and place.subnet.id not in {ip.subnet_id for ip in port.fixed_ips}:
        return f"port {port.id} has no address of subnet {place.subnet.id}"
    if wanted.mac and port.mac != wanted.mac:
        return f"port {port.id} has MAC {port.mac}, wanted is {wanted.mac}"
    have = {ipaddress.ip_address(ip.address) for ip in port.fixed_ips}
    for ip in wanted.ips:
        if ipaddress.ip_address(ip) not in have:
            return f"port {port.id} has not the address {ip}"
    return None


def port_request(podvif: PodVif, wanted: WantedInterface, place: Place, defaults: PortDefaults) -> PortRequest:
    """The port to ask Neutron for; the same for every repeat."""
    end = f":{wanted.name}"
    return PortRequest(
        network_id=place.network.id,
        host_id=podvif.spec.node_name,
        device_id=podvif.spec.pod_uid,
        device_owner=defaults.device_owner,
        name=str(podvif)[: PORT_NAME_MAX - len(end)] + end,
        subnet_ids=(place.subnet.id,) if place.subnet else (),
        mac=wanted.mac or None,
        ips=wanted.ips,
        security_groups=defaults.security_groups,
        tags=(TAG, f"{INTERFACE_TAG}{wanted.name}", *defaults.tags),
        project_id=defaults.project_id,
    )


# -- what goes into the PodVif ----------------------------------------------------------------------------------------


def why_not_bound(port: NeutronPort, node: str) -> str | None:
    """Why a port cannot be plugged on a node, one line; None when it can."""
    # Credentials that may not read host_id may be able to read the rest: then the rest counts.
    if port.host_id not in {"", node}:
        return f"unbound: Neutron has the port on host {port.host_id}; node {node} is wanted"
    return why_not_pluggable(port.vif_type, port.vif_details, node)


def interface_facts(name: str, port: NeutronPort, places: Places, node: str) -> Interface:
    """One interface as its port, subnets and network say; Bound, or Failed with the binding's reason.

    Raises:
        PodvifError: a subnet or the network is not known.
    """
    subnets: dict[str, NeutronSubnet] = {}
    ips = []
    for ip in port.fixed_ips:
        subnet = subnets[ip.subnet_id] = _found(places.subnets, ip.subnet_id, "subnet")
        prefix = ipaddress.ip_network(subnet.cidr, strict=False).prefixlen
        ips.append(Address(f"{ip.address}/{prefix}", subnet.gateway))
    reason = why_not_bound(port, node)
    return Interface(
        name=name,
        state=InterfaceState.FAILED if reason else InterfaceState.BOUND,
        port_id=port.id,
        mac=port.mac,
        mtu=_found(places.networks, port.network_id, "network").mtu,
        ips=tuple(ips),
        routes=_once(route for subnet in subnets.values() for route in subnet.routes),
        dns=Dns(nameservers=_once(server for subnet in subnets.values() for server in subnet.nameservers)),
        vif_type=port.vif_type,
        # The API server keeps no nulls: with them what was written would never be what is read.
        vif_details={key: value for key, value in port.vif_details.items() if value is not None},
        message=reason or "",
    )


def _once(items: Iterable[Item]) -> tuple[Item, ...]:
    found: list[Item] = []
    for item in items:
        if item not in found:
            found.append(item)
    return tuple(found)
