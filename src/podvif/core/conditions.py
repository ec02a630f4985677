"""The node's conditions of a PodVif: Plugged and Connected.

Law: they say what was observed just now, of all interfaces of the pod together; the first that is not as it should be gives
the reason.  A condition's time is that of its status, not of its words (metav1.Condition).
"""

from collections.abc import Mapping, Sequence

import msgspec

from podvif.core.attach import Link
from podvif.model import Entry
from podvif.podvifs import Condition, PodVif

PLUGGED, CONNECTED = "Plugged", "Connected"

_PLUGGED = {
    Link.NOT_PLUGGED: ("NotPlugged", "there is no OVS port, or Open vSwitch cannot open it"),
    Link.UNWIRED: ("NotWired", "Neutron's agent on the node has not wired the port"),
    Link.GONE: ("SandboxGone", "the pod's sandbox is gone"),
}
_CONNECTED = _PLUGGED | {
    Link.WAITING: ("WaitingForApplication", "no application uses the socket"),
    Link.STALE: ("WaitingForApplication", "the application that used the socket has ended"),
}


class Standing(msgspec.Struct, frozen=True):
    """An interface that is attached on this node, and how its link is."""

    entry: Entry
    link: Link


def node_conditions(podvif: PodVif, standing: Mapping[str, Standing], now: str) -> tuple[Condition, ...]:
    """The node's conditions; none when there is nothing to say, since nothing of the pod has been attached.

    Args:
        podvif: as it was read last.
        standing: what of the pod is attached on this node, by interface name.
        now: RFC 3339, for a status that has changed.
    """
    former = {condition.type: condition for condition in podvif.status.conditions}
    if not standing and not former.keys() & {PLUGGED, CONNECTED}:
        return ()
    plugged = _first(podvif, standing, _PLUGGED)
    connected = _first(podvif, standing, _CONNECTED)
    return (
        _condition(PLUGGED, plugged or ("PortsPlugged", ""), podvif, former, now, fine=plugged is None),
        _condition(CONNECTED, connected or ("LinksUp", ""), podvif, former, now, fine=connected is None),
    )


def say_the_same(conditions: Sequence[Condition], podvif: PodVif) -> bool:
    """Whether the object has these conditions already."""
    former = {condition.type: condition for condition in podvif.status.conditions}
    return all(former.get(condition.type) == condition for condition in conditions)


def _first(
    podvif: PodVif, standing: Mapping[str, Standing], bad: Mapping[Link, tuple[str, str]]
) -> tuple[str, str] | None:
    """The first thing that is not as it should be, in the order of the spec."""
    ports = {interface.name: interface.port_id for interface in podvif.status.interfaces}
    for wanted in podvif.spec.interfaces:
        found = standing.get(wanted.name)
        if found is None:
            return "NotPlugged", f"{wanted.name}: it is not attached on node {podvif.spec.node_name}"
        has = found.entry.vif.port_id
        if ports.get(wanted.name, has) not in {has, ""}:
            return (
                "PortReplaced",
                f"{wanted.name}: Neutron port {has} is plugged, which is another by now: recreate the pod",
            )
        if found.link in bad:
            reason, words = bad[found.link]
            return reason, f"{wanted.name}: {words}"
    return None


def _condition(
    kind: str, why: tuple[str, str], podvif: PodVif, former: Mapping[str, Condition], now: str, *, fine: bool
) -> Condition:
    status = "True" if fine else "False"
    before = former.get(kind)
    since = before.last_transition_time if before and before.status == status else ""
    return Condition(kind, status, *why, last_transition_time=since or now, observed_generation=podvif.generation)
