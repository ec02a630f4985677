"""The custom resource PodVif: podvifs.podvif.io/v1alpha1, one for each pod that has ports of ours.

Law: `spec` is what the pod asks for and is written once; `status.interfaces` are Neutron's facts and written by the
controller alone; each condition has one writer (Bound the controller; Plugged and Connected the node).  Paths are not in
it: each node computes them from its own configuration.  The CRD's schema is generated from these types.
"""

import enum
from typing import Annotated, Any

import msgspec

from podvif.model import Address, Dns, Route

GROUP, VERSION, PLURAL, KIND = "podvif.io", "v1alpha1", "podvifs", "PodVif"
SHORT_NAME = "pvif"
FINALIZER = "podvif.io/ports"
NODE_LABEL = "podvif.io/node"

INTERFACES_MAX = 32
"""Interfaces of one pod: DPDK's RTE_MAX_ETHPORTS, what an application takes unless it was built otherwise."""

Uuid = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?$")]
Mac = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2}(:[0-9a-f]{2}){5})?$")]
IfName = Annotated[str, msgspec.Meta(min_length=1, max_length=15)]


class WantedInterface(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One interface that the pod asks for.

    Attributes:
        name: of the interface in the pod; the key of the list.
        subnet_id: UUID; an address of it, and its network.  Empty together with networkId: the default pod subnet.
        network_id: UUID, where Neutron chooses the subnet.
        attachment: `namespace/name` of the NetworkAttachmentDefinition, empty for the pod's main interface.
        delegated: a Multus delegate brings it with an ADD of its own; else it comes with the ADD of eth0.
        mac: asked for.
        ips: addresses asked for, without prefix length.
    """

    name: IfName
    subnet_id: Uuid = ""
    network_id: Uuid = ""
    attachment: str = ""
    delegated: bool = False
    mac: Mac = ""
    ips: tuple[str, ...] = ()


class Spec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What the pod asks for: immutable, since a pod's node and networks are.

    Attributes:
        node_name: the node the pod was scheduled to.
        pod_uid: of the very pod; a pod that comes again under the same name has another.
        interfaces: wanted, in order; none where what the pod asks for is refused, which the condition Bound explains.
        host_paths: the hostPath volumes that its containers mount: a pod that does not mount the node's vhost-user
            directory has no use for a socket.
        runtime_uid: the UID by which the runtime knows the pod, where it is not the object's: a static pod's.
    """

    node_name: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    pod_uid: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="podUID")
    interfaces: Annotated[tuple[WantedInterface, ...], msgspec.Meta(max_length=INTERFACES_MAX)] = ()
    host_paths: tuple[str, ...] = ()
    runtime_uid: str = msgspec.field(name="runtimeUID", default="")

    def is_of(self, uid: str) -> bool:
        """Whether a pod that the runtime names by this UID is the very pod."""
        return uid == (self.runtime_uid or self.pod_uid)


class InterfaceState(enum.Enum):
    """How far the controller has come with one interface."""

    PENDING = "Pending"
    BOUND = "Bound"
    FAILED = "Failed"


class Interface(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One interface's Neutron facts.

    Attributes:
        name: the key, as in spec.
        state: Bound when the rest can be plugged.
        port_id: Neutron port.
        mac: of the port.
        mtu: of the network.
        ips: with prefix length and gateway.
        routes: the subnets' host routes.
        dns: the subnets' name servers.
        vif_type: binding:vif_type.
        vif_details: binding:vif_details, as it came.
        message: why it is not bound.
    """

    name: IfName
    state: InterfaceState
    port_id: Uuid = ""
    mac: Mac = ""
    mtu: int = 0
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    vif_type: str = ""
    vif_details: dict[str, Any] = {}
    message: str = ""


class Condition(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A condition as metav1.Condition has it.

    Attributes:
        type: Bound (the controller's), Plugged and Connected (the node's); the key of the list.
        status: True, False or Unknown.
        reason: one word for programs.
        message: one line for people.
        last_transition_time: when the status became what it is, RFC 3339.
        observed_generation: metadata.generation of the spec that this is about.
    """

    type: Annotated[str, msgspec.Meta(min_length=1)]
    status: Annotated[str, msgspec.Meta(pattern="^(True|False|Unknown)$")]
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class Status(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Neutron's facts and what the node made of them.

    Attributes:
        interfaces: one for each of spec, by name.
        conditions: by type.
    """

    interfaces: Annotated[tuple[Interface, ...], msgspec.Meta(max_length=INTERFACES_MAX)] = ()
    conditions: tuple[Condition, ...] = ()


class PodVif(msgspec.Struct, frozen=True):
    """The object as the API server has it.

    Attributes:
        namespace: the pod's.
        name: the pod's.
        uid: of this very object; writes carry it as a precondition.
        spec: what the pod asks for.
        status: Neutron's facts and the node's conditions.
        resource_version: of what was read; opaque.
        generation: of the spec.
        finalizers: all of them.
        deleting: it has a deletionTimestamp.
    """

    namespace: str
    name: str
    uid: str
    spec: Spec
    status: Status = Status()
    resource_version: str = ""
    generation: int = 0
    finalizers: tuple[str, ...] = ()
    deleting: bool = False

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
