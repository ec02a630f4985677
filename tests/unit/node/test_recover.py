"""Recovery: after a start, and when OVSDB can be asked again."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from podvif.core.attach import Step
from podvif.errors import Retry
from podvif.host import files
from podvif.model import Attachment, Goal, IpamCall, Listener, SocketFile
from tests.fakes.ipam import FakeIpam
from tests.fakes.node import MODE, MakeNode, Node
from tests.fakes.values import ATTACHMENT, BOTH, config, entry

OTHER = Attachment("beef", "net1")


def network(listener: Listener = Listener.APPLICATION, **changes: Any) -> dict[str, Any]:
    return config(**{"vhostuserMode": MODE[listener], "ipam": {"type": "fake"}} | changes)


def goal(node: Node, attachment: Attachment = ATTACHMENT) -> Goal | None:
    found = node.journal.get(attachment)
    return found.goal if found else None


async def test_half_an_add(node: Node) -> None:
    """An ADD that had not answered is leaving before anybody is served, and gone after recovery."""
    node.journal.put(entry(goal=Goal.ATTACHING, vif=node.vif()))
    daemon = node.again()

    assert goal(daemon) is Goal.LEAVING
    await daemon.recover()
    assert daemon.left() == []


@pytest.mark.parametrize("listener", BOTH)
async def test_nothing_to_do(node: Node, listener: Listener) -> None:
    """What stands as it should is left alone."""
    await node.call("ADD", network(listener))
    before = node.switch.facts().next_cfg

    await node.again().recover()

    assert node.switch.facts().next_cfg == before


@pytest.mark.parametrize("listener", BOTH)
async def test_vswitchd_is_restarted(node: Node, listener: Listener) -> None:
    """After a restart of vswitchd the new socket of a client-mode port is in the pod's place again."""
    await node.call("ADD", network(listener))
    node.switch.kill_vswitchd()
    recovering = asyncio.ensure_future(node.recover())
    await asyncio.sleep(0)
    node.switch.start_vswitchd()

    await asyncio.wait_for(recovering, 5)

    found = files.look_at_socket(node.vif(listener).socket, [None])
    assert found is (SocketFile.BOUND if listener is Listener.OVS else SocketFile.ABSENT)
    assert not Path(node.vif(listener).ovs_socket).exists()  # noqa: ASYNC240


async def test_everything_was_lost_meanwhile(node: Node) -> None:
    """Port and files that somebody has removed are made again, the address stays."""
    answer = await node.call("ADD", network(Listener.OVS))
    node.switch.remove_port(node.vif().name)
    for path in node.pods.iterdir():
        path.unlink()
    daemon = node.again()

    await daemon.recover()

    assert await daemon.call("CHECK", network(Listener.OVS, prevResult=answer)) == {}
    assert node.ipam.calls == ["ADD", "CHECK"]


async def test_one_fails(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be recovered is said and stays for the next time; the others are recovered."""
    for attachment in (ATTACHMENT, OTHER):
        await node.call("ADD", network(), attachment)
        node.switch.lose_ovsdb()
        await node.call("DEL", network(), attachment)
        node.switch.regain_ovsdb()
    node.life.failures["before", Step.UNPLUG] = Retry("this one fails")

    with caplog.at_level(logging.WARNING):
        await node.recover()

    assert "net1 is not as it should be: this one fails" in caplog.text
    assert len(node.journal.all()) == 1
    await node.recover()
    assert node.left() == []


async def test_ovsdb_is_still_away(node: Node) -> None:
    """While OVSDB is away everything stays in the journal as it was."""
    await node.call("ADD", network())
    await node.call("ADD", network(), OTHER)
    node.switch.lose_ovsdb()
    await node.call("DEL", network(), OTHER)

    await node.recover()

    assert (goal(node), goal(node, OTHER)) == (Goal.ATTACHED, Goal.LEAVING)


class SlowIpam(FakeIpam):
    """Gives back the addresses of all sandboxes but one only when it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.asked = 0

    async def remove(self, attachment: Attachment, call: IpamCall) -> None:
        if attachment != ATTACHMENT:
            self.asked += 1
            await self.go_on.wait()
        await super().remove(attachment, call)


async def test_added_anew_before_its_turn(make_node: MakeNode) -> None:
    """What was leaving when recovery began, and was added anew before its turn came, stays."""
    ipam = SlowIpam()
    node = make_node(ipam=ipam)
    many = [Attachment(f"pod{number}", "net1") for number in range(20)]
    for attachment in [*many, ATTACHMENT]:
        await node.call("ADD", network(), attachment)
    node.switch.lose_ovsdb()
    for attachment in [*many, ATTACHMENT]:
        await node.call("DEL", network(), attachment)
    node.switch.regain_ovsdb()
    recovering = asyncio.ensure_future(node.recover())
    while not ipam.asked:  # noqa: ASYNC110  the loop's own next round is the event
        await asyncio.sleep(0)

    await node.call("ADD", network())
    ipam.go_on.set()
    await asyncio.wait_for(recovering, 5)

    assert goal(node) is Goal.ATTACHED
    assert [each.attachment for each in node.journal.all()] == [ATTACHMENT]
    assert len(node.switch.ports()) == 1
