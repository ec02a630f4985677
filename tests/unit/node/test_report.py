"""What `podvif status` is told."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from podvif.model import Attachment, Goal, Listener
from podvif.node import report
from tests.fakes.node import Node
from tests.fakes.values import ATTACHMENT, config, port_of


async def told(node: Node) -> dict[str, Any]:
    """The answer, as it leaves the daemon."""
    found = await report.status(node.journal, node.switch, node.driver, node.recovery.links())
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return decoded


async def test_switch(node: Node) -> None:
    """The switch is told with its versions, and why it cannot be asked."""
    assert await told(node) == {
        "switch": {
            "trouble": None,
            "ovs_version": "3.1.0",
            "dpdk_version": "DPDK 22.11.11",
            "dpdk_initialized": True,
        },
        "apiserver": None,
        "attachments": [],
    }
    node.switch.lose_ovsdb()
    assert "cannot be reached" in (await told(node))["switch"]["trouble"]


async def test_attachment(node: Node) -> None:
    """Each attachment is told with what it is, in the order of their ADD."""
    network = config(vlan=7, ipam={"type": "fake"})
    await node.call("ADD", network, CNI_ARGS="K8S_POD_NAMESPACE=ns;K8S_POD_NAME=trex")
    await node.call("ADD", config(vhostuserMode="client"), Attachment("beef", "net1"))

    first, second = (await told(node))["attachments"]
    vif = node.vif()

    assert first.pop("age_seconds") in {0, 1}
    assert first == {
        "container_id": "c0ffee",
        "ifname": "net1",
        "pod": "ns/trex",
        "network": "dpdk-net",
        "goal": "attached",
        "port": vif.name,
        "port_id": vif.port_id,
        "bridge": "br-dpdk",
        "kind": "vhost-user",
        "mode": "server",
        "listener": "application",
        "socket": vif.socket,
        "link": "waiting for the application",
        "link_since": None,
        "trouble": None,
        "mac": vif.mac,
        "mtu": 1500,
        "vlan": 7,
        "queues": 1,
        "ips": ["10.1.0.2/24"],
    }
    assert (second["mode"], second["listener"], second["ips"], second["pod"]) == ("client", "ovs", [], "")


def _connects(node: Node) -> None:
    port = node.switch.port(node.vif().name)
    assert port is not None
    node.switch.add_port(msgspec.structs.replace(port, link_up=True))


@pytest.mark.parametrize(
    ("happens", "link", "trouble"),
    [
        (_connects, "connected", None),
        (lambda node: node.switch.remove_port(node.vif().name), "not plugged", "is missing"),
        (lambda node: node.switch.lose_ovsdb(), "not plugged", "cannot be reached"),
        (lambda node: node.switch.add_port(port_of(node.vif(), tag=9)), "waiting for the application", "VLAN 9"),
    ],
)
async def test_link(node: Node, happens: Callable[[Node], None], link: str, trouble: str | None) -> None:
    """The link is connected when OVS says so; what is wrong with an attachment is told in CHECK's words."""
    await node.call("ADD", config())
    happens(node)

    (found,) = (await told(node))["attachments"]

    assert found["link"] == link
    assert (found["trouble"] is None) if trouble is None else trouble in found["trouble"]


@pytest.mark.parametrize("listener", ["server", "client"])
async def test_leaving(node: Node, listener: str) -> None:
    """What is leaving is told as that and not as trouble."""
    await node.call("ADD", config(vhostuserMode=listener))
    node.switch.lose_ovsdb()
    await node.call("DEL", config())

    (found,) = (await told(node))["attachments"]

    assert (found["goal"], found["link"], found["trouble"]) == (Goal.LEAVING.value, "leaving", None)


async def test_age_of_what_was_never_added(node: Node) -> None:
    """An attachment that DEL met first, while OVSDB was away, is as old as that DEL, not as the epoch."""
    node.switch.lose_ovsdb()
    await node.call("DEL", config())

    (found,) = (await told(node))["attachments"]

    assert found["age_seconds"] < 60


async def test_age(node: Node) -> None:
    """Ages are whole seconds since the ADD and never negative, whatever the clock does."""
    await node.call("ADD", config())
    made = node.journal.get(ATTACHMENT)
    assert made is not None
    for ago, age in ((100, 100), (-100, 0)):
        node.journal.put(msgspec.structs.replace(made, created=time.time() - ago))
        (found,) = (await told(node))["attachments"]
        assert found["age_seconds"] in {age, age + 1}


async def test_answer_does_not_act(node: Node) -> None:
    """Being asked changes nothing."""
    await node.call("ADD", config(vhostuserMode="client"))
    before, lines = node.switch.facts().next_cfg, node.left()

    await told(node)

    assert (node.switch.facts().next_cfg, node.left()) == (before, lines)
    assert node.vif(Listener.OVS).name in str(lines)
