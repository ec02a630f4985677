"""Every kind of port has its driver."""

from typing import Any

import pytest

from podvif.core.attach import Step, Want
from podvif.model import Goal, PortKind, Vif
from tests.fakes.node import Node
from tests.fakes.values import ATTACHMENT, entry, kernel_vif


@pytest.mark.parametrize("kind", PortKind)
async def test_one_for_each_kind(node: Node, kind: PortKind) -> None:
    """A port is observed, waited for and done by the driver of its kind: only a kernel port has devices."""
    vif: Vif = node.vif() if kind is PortKind.VHOST_USER else kernel_vif(kind)
    # Its namespace is looked at before a device in it is.
    made = entry(vif=vif, netns="/proc/self/ns/net")
    node.journal.put(made)
    want = Want(ATTACHMENT, Goal.ATTACHED, vif)
    seen = node.driver.observe(want)
    assert (seen.pair is None) is (kind is PortKind.VHOST_USER)

    if kind is PortKind.VETH:
        node.devices.add(vif.name)
        seen = node.driver.observe(want)
    if kind is not PortKind.HYBRID:
        await node.driver.do(want, Step.PLUG, seen)
        await node.driver.wait(want, Step.AWAIT_PORT, seen)  # what was seen was before the plug
    await node.driver.do(want, Step.FORGET, seen)

    assert node.journal.get(ATTACHMENT) is None


def test_vswitchd(node: Node, **_: Any) -> None:
    """What is known of vswitchd is known to all: nothing, where there is no pid file."""
    assert node.driver.vswitchd() is None
    assert node.driver.switch_netns() is None
