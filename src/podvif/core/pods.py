"""The controller's decision for one pod: one closed table, and nothing else may decide.

Law: `next_action` looks at what was observed of a pod, its PodVif and its Neutron ports, and names the one next thing to
do, None when there is nothing left, or `Fail` when something stands in the way.  It remembers nothing: it is right after a
crash at any point, after an answer that was lost, and for a pod that comes again under the same name.  Every action may be
done twice, and after it its condition no longer holds, so a walk ends.

"The pod is served" means that it is there, neither finished (Succeeded, Failed) nor in the node's own network, and was
scheduled.  A port is *of* a pod's UID by its device_id.  The rows, in order (the first that matches is taken):

| observed                                                                   | next action                          |
|----------------------------------------------------------------------------|--------------------------------------|
| a PodVif of another UID, or of a pod that is not served; not being deleted | DeletePodVif                         |
| such a PodVif, being deleted, while Neutron cannot be asked                | fail: try again                      |
| such a PodVif, being deleted: a port of ours of its UID                    | DeletePort                           |
| such a PodVif, being deleted: it has our finalizer                         | RemoveFinalizer                      |
| no PodVif, and the pod is not served                                       | None                                 |
| the pod is being deleted                                                   | None: it keeps what it has while it ends, and gets no more |
| its PodVif is being deleted (by hand)                                      | RemoveFinalizer: it comes again, the ports stay |
| no PodVif: what the pod wants is not known for now                         | fail: try again                      |
| no PodVif: what the pod wants is refused                                   | CreatePodVif without an interface, to say so |
| no PodVif: the pod wants interfaces (or none)                              | CreatePodVif (or None)               |
| the PodVif has lost our finalizer                                          | AddFinalizer                         |
| it has no interface, and what the pod wants is refused                     | WriteStatus if it does not say so; fail, with the reason |
| it has no interface, and by now the pod wants none                         | DeletePodVif                         |
| the pod wants something else by now, and nothing was bound                 | DeletePodVif (it comes again)        |
| Neutron cannot be asked                                                    | WriteStatus if it does not say so; fail: try again |
| a second port of an interface; one of no interface; one, never bound in the status, that is not what was asked for | DeletePort |
| an interface without a port, and its place is known                        | CreatePort                           |
| the status does not say all this                                           | WriteStatus                          |
| an interface is not bound                                                  | fail, with its reason                |
| otherwise                                                                  | None: it is bound                    |

Ports are made only under a PodVif that has our finalizer, so where there is none Neutron need not be asked.  What somebody
leaves behind all the same, by taking the finalizer off, or a request that Neutron carries out after the caller has given it
up, is for the sweep (`ports.orphans`).

Of two ports of one interface that one stays which the status calls bound, else the one that can be plugged, else the ACTIVE
one, else the older.  A port whose binding failed is *bound again* (`RebindPort`), which keeps its MAC and addresses and is
what Neutron itself does on an update; one that is bound to something podvif cannot plug is deleted and made again.  Both are
done once after each back-off: `Fail.again`.
"""

from collections.abc import Mapping

import msgspec

from podvif.core.ports import (
    Place,
    Places,
    PortDefaults,
    interface_facts,
    interface_of,
    is_ours,
    place_of,
    port_request,
    why_not_bound,
    why_not_fit,
)
from podvif.errors import PodvifError, Refused, Retry
from podvif.model import ClusterPod, NeutronPort, PortRequest
from podvif.podvifs import (
    FINALIZER,
    Condition,
    Interface,
    InterfaceState,
    PodVif,
    Spec,
    Status,
    WantedInterface,
)

BOUND = "Bound"
"""The controller's condition."""

UNREACHABLE = "NeutronUnreachable"

REFUSED = "NetworksRefused"
"""The pod's annotation, or a NetworkAttachmentDefinition that it names, cannot be served."""

MIRROR = "kubernetes.io/config.mirror"
"""Pod annotation of a static pod's mirror: the UID that kubelet gave the pod itself (pkg/kubelet/pod/mirror_client.go)."""

ACTIONS_MAX = 200
"""Actions of one walk: two for each of 32 interfaces, with room for duplicates; a longer one is a bug."""


class CreatePodVif(msgspec.Struct, frozen=True):
    """Make the object, with our finalizer, the node's label and the pod as its owner; one that is there already is fine."""

    namespace: str
    name: str
    spec: Spec


class DeletePodVif(msgspec.Struct, frozen=True):
    """Delete the object if it is still this one, as it was read."""

    uid: str
    resource_version: str


class AddFinalizer(msgspec.Struct, frozen=True):
    """Put our finalizer on the object, if it is still this one."""

    uid: str


class RemoveFinalizer(msgspec.Struct, frozen=True):
    """Take our finalizer off the object, if it is still this one."""

    uid: str


class CreatePort(msgspec.Struct, frozen=True):
    """Ask Neutron for a port.  A refusal goes into `SeenPod.refusals` under the interface's name until a back-off is over."""

    interface: str
    request: PortRequest


class DeletePort(msgspec.Struct, frozen=True):
    """Delete a port; one that is gone is fine.  `why` is for the log."""

    port_id: str
    why: str


class RebindPort(msgspec.Struct, frozen=True):
    """Set binding:host_id, also to what it is: Neutron tries again to bind what is not bound."""

    port_id: str
    host_id: str


class WriteStatus(msgspec.Struct, frozen=True):
    """Write the status, if the object is still this one.

    A condition without a time is new: `stamped` puts the clock's in.  The conditions of others are as they were read.
    """

    uid: str
    status: Status


Action = (
    CreatePodVif | DeletePodVif | AddFinalizer | RemoveFinalizer | CreatePort | DeletePort | RebindPort | WriteStatus
)


class Fail(msgspec.Struct, frozen=True):
    """No action leads on now.

    Attributes:
        error: why, for an event; its family says how soon to look again.
        reason: one word for the event and the condition.
        again: what to do, once, when the back-off is over and a new look has found the same.
    """

    error: PodvifError
    reason: str
    again: tuple[Action, ...] = ()


class SeenPod(msgspec.Struct, frozen=True):
    """The facts about one namespace and name, each observed from its owner just now.

    Attributes:
        pod: the pod, None when there is none; to be read from a list that is not older than the PodVif.
        podvif: the object of the same name.
        wanted: what the pod asks for (`networks.wanted_interfaces`), or why it cannot be served.
        ports: every port in Neutron whose device_id is the PodVif's podUID; not asked for where there is no PodVif.
        places: the subnets and networks of `ports.subnet_ids` and `ports.network_ids`.
        refusals: why Neutron made no port when it was last asked, by interface; forgotten when a back-off is over.
        trouble: why Neutron cannot be asked ("Neutron unreachable since …"), or None when it can; ports count only then.
    """

    pod: ClusterPod | None
    podvif: PodVif | None
    wanted: tuple[WantedInterface, ...] | PodvifError = ()
    ports: tuple[NeutronPort, ...] = ()
    places: Places = Places()
    refusals: Mapping[str, PodvifError] = {}
    trouble: str | None = None


def next_action(seen: SeenPod, defaults: PortDefaults) -> Action | Fail | None:
    """The next thing to do for one pod, or None when all is as it should be."""
    pod, podvif = seen.pod, seen.podvif
    if podvif and (pod is None or not is_served(pod) or podvif.spec.pod_uid != pod.uid):
        return _toward_absent(seen, podvif, defaults)
    if pod is None or not is_served(pod) or pod.deleting:
        return None
    if podvif is None:
        return _begin(seen, pod)
    if podvif.deleting:
        return RemoveFinalizer(podvif.uid) if FINALIZER in podvif.finalizers else None
    if FINALIZER not in podvif.finalizers:
        return AddFinalizer(podvif.uid)
    if not podvif.spec.interfaces and isinstance(seen.wanted, PodvifError):
        return _refused(podvif, seen.wanted)
    if not podvif.spec.interfaces or _outdated(seen, pod, podvif):
        return DeletePodVif(podvif.uid, podvif.resource_version)
    if seen.trouble:
        return _unreachable(podvif, seen.trouble)
    return _toward_bound(seen, podvif, defaults)


def is_served(pod: ClusterPod) -> bool:
    """Whether a pod can have ports: a container of it may run, on a node that is known, in a network of its own."""
    return bool(pod.node_name) and not pod.host_network and not pod.finished


def spec_of(pod: ClusterPod, wanted: tuple[WantedInterface, ...]) -> Spec:
    """The PodVif's spec for a pod."""
    return Spec(
        node_name=pod.node_name,
        pod_uid=pod.uid,
        interfaces=wanted,
        host_paths=pod.host_paths,
        runtime_uid=pod.annotations.get(MIRROR, ""),
    )


def _toward_absent(seen: SeenPod, podvif: PodVif, defaults: PortDefaults) -> Action | Fail | None:
    if not podvif.deleting:
        return DeletePodVif(podvif.uid, podvif.resource_version)
    if seen.trouble:
        return Fail(Retry(seen.trouble, "the pod's ports are deleted when Neutron answers"), UNREACHABLE)
    ports = _ours(seen, podvif, defaults)
    if ports:
        return DeletePort(ports[0].id, "its pod has ended")
    return RemoveFinalizer(podvif.uid) if FINALIZER in podvif.finalizers else None


def _ours(seen: SeenPod, podvif: PodVif, defaults: PortDefaults) -> list[NeutronPort]:
    """The ports of the PodVif's pod, those first that shall stay."""
    uid, owner = podvif.spec.pod_uid, defaults.device_owner
    ports = [port for port in seen.ports if port.device_id == uid and is_ours(port, owner)]
    return sorted(ports, key=lambda port: _preference(port, podvif))


def _begin(seen: SeenPod, pod: ClusterPod) -> Action | Fail | None:
    wanted = seen.wanted
    if isinstance(wanted, Retry):
        return Fail(wanted, REFUSED)
    if isinstance(wanted, PodvifError):
        return CreatePodVif(pod.namespace, pod.name, spec_of(pod, ()))
    return CreatePodVif(pod.namespace, pod.name, spec_of(pod, wanted)) if wanted else None


def _refused(podvif: PodVif, error: PodvifError) -> Action | Fail:
    if isinstance(error, Retry):  # what was said before stands
        return Fail(error, REFUSED)
    status = _with(podvif, (), Condition(BOUND, "False", REFUSED, _line(error.message)))
    return WriteStatus(podvif.uid, status) if status != podvif.status else Fail(error, REFUSED)


def _outdated(seen: SeenPod, pod: ClusterPod, podvif: PodVif) -> bool:
    # A NAD that was mended helps the pod that waits for it; what is bound may be plugged, and stays.
    if isinstance(seen.wanted, PodvifError) or any(_is_bound(interface) for interface in podvif.status.interfaces):
        return False
    return podvif.spec != spec_of(pod, seen.wanted)


def _is_bound(interface: Interface) -> bool:
    return interface.state is InterfaceState.BOUND


# -- ports ------------------------------------------------------------------------------------------------------------


class _Look(msgspec.Struct, frozen=True):
    """One wanted interface: what goes into the status, and what is wrong with it."""

    interface: Interface
    reason: str = ""
    error: PodvifError | None = None
    again: Action | None = None


def _toward_bound(seen: SeenPod, podvif: PodVif, defaults: PortDefaults) -> Action | Fail | None:
    places = {wanted.name: _place(wanted, seen.places, defaults) for wanted in podvif.spec.interfaces}
    kept: dict[str, NeutronPort] = {}
    for port in _ours(seen, podvif, defaults):
        name = interface_of(port)
        if name not in places:
            return DeletePort(port.id, "it is for no interface of its pod")
        if name in kept:
            return DeletePort(port.id, f"{name} has port {kept[name].id}")
        kept[name] = port
    for wanted in podvif.spec.interfaces:
        standing, place = kept.get(wanted.name), places[wanted.name]
        if isinstance(place, PodvifError):
            continue
        if standing is None and wanted.name not in seen.refusals:
            return CreatePort(wanted.name, port_request(podvif, wanted, place, defaults))
        if standing and not _vouched(standing, podvif) and (misfit := why_not_fit(standing, wanted, place)):
            return DeletePort(standing.id, misfit)
    looks = [_look(wanted, kept.get(wanted.name), places[wanted.name], seen) for wanted in podvif.spec.interfaces]
    status = _status(podvif, looks)
    if status != podvif.status:
        return WriteStatus(podvif.uid, status)
    failed = [(look, look.error) for look in looks if look.error]
    if not failed:
        return None
    # One that will pass by itself must not wait for somebody to change something.
    first, error = next((pair for pair in failed if isinstance(pair[1], Retry)), failed[0])
    return Fail(error, first.reason, tuple(look.again for look, _ in failed if look.again))


def _preference(port: NeutronPort, podvif: PodVif) -> tuple[bool, bool, bool, str, str]:
    unpluggable = why_not_bound(port, podvif.spec.node_name) is not None
    return not _vouched(port, podvif), unpluggable, port.status != "ACTIVE", port.created, port.id


def _vouched(port: NeutronPort, podvif: PodVif) -> bool:
    """Whether the status calls this very port bound: it may be plugged."""
    return _bound_facts(port, podvif) is not None


def _bound_facts(port: NeutronPort, podvif: PodVif) -> Interface | None:
    for interface in podvif.status.interfaces:
        if _is_bound(interface) and interface.port_id == port.id:
            return interface
    return None


def _place(wanted: WantedInterface, places: Places, defaults: PortDefaults) -> Place | PodvifError:
    try:
        return place_of(wanted, places, defaults)
    except PodvifError as error:
        return error


def _look(wanted: WantedInterface, port: NeutronPort | None, place: Place | PodvifError, seen: SeenPod) -> _Look:
    assert seen.podvif is not None  # noqa: S101  for mypy: there is no way here without one
    node = seen.podvif.spec.node_name
    if port is None:
        error = place if isinstance(place, PodvifError) else seen.refusals[wanted.name]
        reason = "PlaceUnknown" if error is place else "PortNotMade" if isinstance(error, Retry) else "PortRefused"
        failed = Interface(name=wanted.name, state=InterfaceState.FAILED, message=_line(error.message))
        return _Look(failed, reason, error)
    try:
        interface = interface_facts(wanted.name, port, seen.places, node)
    except PodvifError as error:
        unknown = Interface(
            name=wanted.name, state=InterfaceState.FAILED, port_id=port.id, message=_line(error.message)
        )
        # What was read once stays true while Neutron is slow to say it again.
        return _Look(_bound_facts(port, seen.podvif) or unknown, "PlaceUnknown", error)
    if _is_bound(interface):
        return _Look(interface)
    return _Look(interface, *_unbound(port, node, interface.message))


def _unbound(port: NeutronPort, node: str, message: str) -> tuple[str, PodvifError, Action]:
    rebind = RebindPort(port.id, node)
    if port.vif_type == "binding_failed":
        remedy = f"look at the agent on node {node}: `openstack network agent list --host {node}`"
        return "BindingFailed", Retry(message, remedy), rebind
    if port.vif_type in {"unbound", ""} or port.host_id not in {"", node}:
        return "Unbound", Retry(message, "the credentials may have to be of role service or admin"), rebind
    why = "it cannot be plugged on its node"
    return "UnpluggableVif", Refused(message, "the agent on the node decides the vif_type"), DeletePort(port.id, why)


def _line(text: str) -> str:
    return " ".join(text.split())


# -- the status -------------------------------------------------------------------------------------------------------


def _status(podvif: PodVif, looks: list[_Look]) -> Status:
    bad = [look for look in looks if not _is_bound(look.interface)]
    if not bad:
        condition = Condition(BOUND, "True", "PortsBound")
    else:
        message = bad[0].interface.message
        if len(looks) > 1:
            message = f"{bad[0].interface.name}: {message}"
        condition = Condition(BOUND, "False", bad[0].reason, message)
    return _with(podvif, tuple(look.interface for look in looks), condition)


def _unreachable(podvif: PodVif, trouble: str) -> Action | Fail:
    named = {interface.name: interface for interface in podvif.status.interfaces}
    interfaces = tuple(
        named.get(wanted.name, Interface(name=wanted.name, state=InterfaceState.PENDING))
        for wanted in podvif.spec.interfaces
    )
    fail = Fail(Retry(trouble, "look at [neutron] auth_url and the networking endpoint"), UNREACHABLE)
    if all(_is_bound(interface) for interface in interfaces):
        return fail
    status = _with(podvif, interfaces, Condition(BOUND, "False", UNREACHABLE, _line(trouble)))
    return WriteStatus(podvif.uid, status) if status != podvif.status else fail


def _with(podvif: PodVif, interfaces: tuple[Interface, ...], condition: Condition) -> Status:
    """The status with our condition in its place; its time stays while its value does (metav1.Condition)."""
    conditions = list(podvif.status.conditions)
    former = next((place for place, other in enumerate(conditions) if other.type == condition.type), None)
    since = ""
    if former is not None and conditions[former].status == condition.status:
        since = conditions[former].last_transition_time
    ours = msgspec.structs.replace(condition, last_transition_time=since, observed_generation=podvif.generation)
    if former is None:
        conditions.append(ours)
    else:
        conditions[former] = ours
    return Status(interfaces, tuple(conditions))


def stamped(status: Status, now: str) -> Status:
    """The status with the time (RFC 3339) in every condition that is new or has changed."""
    conditions = tuple(
        condition if condition.last_transition_time else msgspec.structs.replace(condition, last_transition_time=now)
        for condition in status.conditions
    )
    return Status(status.interfaces, conditions)
