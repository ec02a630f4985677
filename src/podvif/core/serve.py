"""What an ADD of `source = cluster` is served with: a decision on the pod's PodVif.

Law: a PodVif of another pod, of another node, or one that is being deleted is never served, and of the right one either all
interfaces that come with this ADD or none.  The rows, in order (the first that matches is taken):

| observed                                                                  | answer                                  |
|---------------------------------------------------------------------------|-----------------------------------------|
| no PodVif of the pod's name                                               | wait: the controller makes it           |
| one of another pod UID, or of another node                                | wait: the controller replaces it        |
| it is being deleted                                                       | wait: its ports are about to go         |
| what the pod asks for is refused: it has no interface at all              | wait, with the controller's own words   |
| it has no such interface; it comes in another way; on another subnet or network | fail                              |
| an interface that comes with this ADD is not bound                        | wait, with the controller's own words   |
| otherwise                                                                 | these interfaces                        |

A configuration says which way the interface comes:

| the network configuration has           | the interface                                                              |
|-----------------------------------------|----------------------------------------------------------------------------|
| `subnetId` or `networkId`               | is one that Multus delegates: it comes alone                               |
| neither, but `bridge`                   | is standalone: no PodVif is asked                                          |
| neither                                 | is the pod's main one; what Multus does not delegate comes with it         |
"""

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from podvif import errors
from podvif.core import translate
from podvif.core.cni import Request
from podvif.core.translate import ClusterNetwork
from podvif.errors import Refused
from podvif.model import Addresses, Route, Vif
from podvif.podvifs import Interface, InterfaceState, PodVif, WantedInterface


class Way(enum.Enum):
    """How an interface comes to its pod."""

    MAIN = "main"
    DELEGATED = "delegated"
    STANDALONE = "standalone"


class Wait(msgspec.Struct, frozen=True):
    """Not yet; `reason` is a sentence about the PodVif."""

    reason: str


class Serve(msgspec.Struct, frozen=True):
    """The interfaces that come with this ADD, the one that it names first."""

    interfaces: tuple[Interface, ...]


class Whose(msgspec.Struct, frozen=True):
    """The pod and the node that an ADD is about.

    Attributes:
        uid: the pod's, as the runtime knows it; of a static pod that is not the object's.
        object_uid: the pod object's, asked for where the runtime says no UID; then `uid` is empty.
        node: this one's name in Kubernetes.
    """

    uid: str
    object_uid: str
    node: str

    def why_not(self, podvif: PodVif) -> str | None:
        """Why a PodVif is not for this pod on this node, or None when it is."""
        spec = podvif.spec
        if not (spec.is_of(self.uid) if self.uid else spec.pod_uid == self.object_uid):
            return (
                f"it is of pod UID {spec.runtime_uid or spec.pod_uid}, and this pod's is {self.uid or self.object_uid}"
            )
        if spec.node_name != self.node:
            return f"it is for node {spec.node_name}, and this is {self.node}"
        return None


def way_of(config: Mapping[str, Any]) -> Way:
    """How the interface comes for which the runtime sends this configuration."""
    if config.get("subnetId") or config.get("networkId"):
        return Way.DELEGATED
    return Way.STANDALONE if "bridge" in config else Way.MAIN


def next_answer(request: Request, network: ClusterNetwork, whose: Whose, podvif: PodVif | None) -> Serve | Wait:
    """What an ADD is served with now, or what it has to wait for.

    Raises:
        Refused: it asks for what the PodVif has not.
    """
    if podvif is None:
        return Wait("there is none")
    if reason := whose.why_not(podvif):
        return Wait(reason)
    if podvif.deleting:
        return Wait("it is being deleted")
    if not podvif.spec.interfaces:
        return Wait(_why_not_bound(podvif, request.expect_attachment().ifname, None))
    wanted = _wanted(request, network, podvif)
    bound = {interface.name: interface for interface in podvif.status.interfaces}
    serving = []
    for each in wanted:
        interface = bound.get(each.name)
        if interface is None or interface.state is not InterfaceState.BOUND:
            return Wait(_why_not_bound(podvif, each.name, interface))
        serving.append(interface)
    return Serve(tuple(serving))


def _wanted(request: Request, network: ClusterNetwork, podvif: PodVif) -> list[WantedInterface]:
    ifname = request.expect_attachment().ifname
    named = next((wanted for wanted in podvif.spec.interfaces if wanted.name == ifname), None)
    there = ", ".join(wanted.name for wanted in podvif.spec.interfaces) or "none"
    if named is None:
        raise Refused(
            f"PodVif {podvif} has no interface {ifname}: it has {there}",
            "the pod's annotation and its NetworkAttachmentDefinitions say which; the names have to be the same there",
        )
    delegated = way_of(request.config) is Way.DELEGATED
    if named.delegated is not delegated:
        comes = "with an ADD of its own" if named.delegated else "with the pod's main interface"
        raise Refused(
            f"interface {ifname} of PodVif {podvif} comes {comes}, and network {request.network} asks for it otherwise",
            "subnetId or networkId stand in the configurations of additional interfaces, and only there",
        )
    if not delegated:
        return [named, *(each for each in podvif.spec.interfaces if not each.delegated and each is not named)]
    for key, asked, has in (
        ("subnetId", network.subnet_id, named.subnet_id),
        ("networkId", network.network_id, named.network_id),
    ):
        if asked.lower() != has:
            raise Refused(
                f"network {request.network} has {key} {asked or '(none)'}, and interface {ifname} of PodVif {podvif} was"
                f" made for {has or '(none)'}",
                "the NetworkAttachmentDefinition was changed since; recreate the pod",
            )
    return [named]


def _why_not_bound(podvif: PodVif, name: str, interface: Interface | None) -> str:
    if interface is not None and interface.message:
        return f"its interface {name} is not bound: {interface.message}"
    for condition in podvif.status.conditions:
        if condition.type == "Bound" and condition.status != "True" and condition.message:
            return f"it is not bound: {condition.message}"
    return f"its interface {name} has no Neutron port yet"


def addresses_of(interface: Interface, *, main: bool) -> Addresses:
    """An interface's addresses as the journal keeps them; by the main one's gateways the pod reaches everything else."""
    named = {route.dst for route in interface.routes}
    gateways: dict[str, str] = {}
    for ip in interface.ips if main else ():
        if ip.gateway:
            gateways.setdefault("::/0" if ":" in ip.gateway else "0.0.0.0/0", ip.gateway)
    defaults = (Route(dst, gateway) for dst, gateway in gateways.items() if dst not in named)
    return Addresses(interface.ips, (*interface.routes, *defaults), interface.dns)


def refuse_unasked(request: Request, network: ClusterNetwork, vif: Vif, addresses: Addresses) -> None:
    """Refuse an ADD that asks for another MAC or address than Neutron has given.

    Raises:
        Refused: it does.
    """
    asked = translate.requested_mac(request, network)
    if asked and asked != vif.mac:
        raise Refused(
            f"MAC {asked} was asked for and Neutron port {vif.port_id} has {vif.mac}",
            "ask for it in the pod's networks annotation: the controller passes that to Neutron",
        )
    if reason := translate.why_not_addresses(translate.requested_ips(request, network), addresses, "Neutron"):
        raise Refused(reason, "ask for it in the pod's networks annotation: the controller passes that to Neutron")


def gone(podvif: str) -> Refused:
    """The error of an ADD whose pod has ended while it waited: the runtime has nothing to clean up."""
    return Refused(
        f"PodVif {podvif} is gone: the pod has been deleted, or made again",
        "nothing was plugged for it",
        code=errors.UNKNOWN_CONTAINER,
    )
