"""The node's conditions, from what it sees."""

from typing import Any

import pytest

from podvif.core.attach import Link
from podvif.core.conditions import Standing, node_conditions, say_the_same
from podvif.podvifs import Condition, PodVif, Status
from tests.fakes.cluster import ETH0, ETH1, pod_vif
from tests.fakes.podvifs import bound, port_id
from tests.fakes.values import entry, vif

THEN, NOW = "2026-11-24T00:00:00Z", "2026-11-24T00:00:09Z"
NEUTRON = entry(vif=vif(port_id=port_id(1), neutron=True))


def podvif(*conditions: Condition, **changes: Any) -> PodVif:
    status = Status((bound("eth0", 1), bound("eth1", 1)), (Condition("Bound", "True", "PortsBound"), *conditions))
    facts: dict[str, Any] = {"status": status, "generation": 3}
    return pod_vif(ETH0, ETH1, **facts | changes)


def standing(eth0: Link | None, eth1: Link | None = Link.CONNECTED) -> dict[str, Standing]:
    links = {"eth0": eth0, "eth1": eth1}
    return {name: Standing(NEUTRON, link) for name, link in links.items() if link}


@pytest.mark.parametrize(
    ("seen", "plugged", "connected", "words"),
    [
        (standing(Link.CONNECTED), ("True", "PortsPlugged"), ("True", "LinksUp"), ""),
        (standing(Link.WAITING), ("True", "PortsPlugged"), ("False", "WaitingForApplication"), "eth0: no application"),
        (standing(Link.STALE), ("True", "PortsPlugged"), ("False", "WaitingForApplication"), "eth0: the application"),
        (standing(Link.UNWIRED), ("False", "NotWired"), ("False", "NotWired"), "eth0: Neutron's agent"),
        (standing(Link.NOT_PLUGGED), ("False", "NotPlugged"), ("False", "NotPlugged"), "eth0: there is no OVS port"),
        (
            standing(Link.WAITING, Link.NOT_PLUGGED),
            ("False", "NotPlugged"),
            ("False", "WaitingForApplication"),
            "eth0: no application",
        ),
        (standing(None), ("False", "NotPlugged"), ("False", "NotPlugged"), "eth0: it is not attached on node n1"),
    ],
)
def test_conditions(
    seen: dict[str, Standing], plugged: tuple[str, str], connected: tuple[str, str], words: str
) -> None:
    """Both conditions speak of all interfaces together; the first that is not as it should be gives the reason."""
    first, second = node_conditions(podvif(), seen, NOW)

    assert (first.type, first.status, first.reason) == ("Plugged", *plugged)
    assert (second.type, second.status, second.reason) == ("Connected", *connected)
    assert words in second.message
    for each in (first, second):
        assert (each.observed_generation, each.last_transition_time) == (3, NOW)


def test_port_of_another_time() -> None:
    """A Neutron port that is plugged while the PodVif has another by now is told: no packet will pass."""
    status = Status((bound("eth0", 7), bound("eth1", 1)))

    plugged, _ = node_conditions(podvif(status=status), standing(Link.CONNECTED), NOW)

    assert (plugged.status, plugged.reason) == ("False", "PortReplaced")
    assert port_id(1) in plugged.message


def test_nothing_to_say() -> None:
    """Of a pod of which nothing has been attached nothing is said; of one that was attached, that it is not."""
    told = Condition("Plugged", "True", "PortsPlugged", "", THEN, 3)

    assert node_conditions(podvif(), {}, NOW) == ()
    assert node_conditions(podvif(told), {}, NOW)[0].status == "False"


def test_time() -> None:
    """A condition's time is that of its status: another reason keeps it, another status does not."""
    before = (Condition("Plugged", "True", "PortsPlugged", "", THEN), Condition("Connected", "False", "X", "", THEN))

    plugged, connected = node_conditions(podvif(*before), standing(Link.WAITING), NOW)
    assert (plugged.last_transition_time, connected.last_transition_time) == (THEN, THEN)
    _, connected = node_conditions(podvif(*before), standing(Link.CONNECTED), NOW)
    assert connected.last_transition_time == NOW


def test_say_the_same() -> None:
    """What the object says already need not be written; another reason or generation has to be."""
    seen = standing(Link.WAITING)
    told = node_conditions(podvif(), seen, THEN)

    assert say_the_same((), podvif())
    assert not say_the_same(told, podvif())
    assert say_the_same(node_conditions(podvif(*told), seen, NOW), podvif(*told))
    assert not say_the_same(node_conditions(podvif(*told, generation=4), seen, NOW), podvif(*told, generation=4))
