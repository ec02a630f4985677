"""STATUS's question."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from podvif.node.readiness import Readiness
from tests.fakes.node import Node
from tests.fakes.switch import FakeSwitch


def _dpdk_is_off(node: Node) -> None:
    node.switch.dpdk = msgspec.structs.replace(node.switch.dpdk, dpdk_initialized=False)


def _built_without_dpdk(node: Node) -> None:
    node.switch.dpdk = msgspec.structs.replace(node.switch.dpdk, iface_types=frozenset({"system", "dpdkvhostuser"}))


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (lambda node: node.switch.lose_ovsdb(), "OVSDB at unix:/ovs/db.sock cannot be reached"),
        (_dpdk_is_off, "DPDK is not initialized in ovs-vswitchd"),
        (_built_without_dpdk, "does not know the interface type dpdkvhostuserclient: it is not built with DPDK"),
        (lambda node: node.pods.rmdir(), "pods is missing"),
        (lambda node: node.rundir.rmdir(), "ovs is missing"),
    ],
)
async def test_reasons(node: Node, happens: Callable[[Node], None], words: str) -> None:
    """Each precondition of an ADD that does not hold is the reason, in one sentence; there is none when all hold."""
    assert await node.readiness.why_not() is None

    happens(node)

    reason = await node.readiness.why_not()
    assert words in (reason or "")
    assert "\n" not in (reason or "")


async def test_first_reason(node: Node) -> None:
    """Of several reasons the one nearest to the switch is told."""
    node.pods.rmdir()
    _dpdk_is_off(node)
    assert "DPDK is not initialized" in (await node.readiness.why_not() or "")

    node.switch.lose_ovsdb()
    assert "OVSDB" in (await node.readiness.why_not() or "")


async def test_nothing_is_left(node: Node) -> None:
    """Trying the rename between the directories leaves nothing in either."""
    await node.readiness.why_not()

    assert not [*node.pods.iterdir(), *node.rundir.iterdir()]


class Unconnected(FakeSwitch):
    """A switch that nobody has connected to yet; connecting takes as long as it is told to."""

    def __init__(self, rundir: Path, seconds: float) -> None:
        super().__init__(rundir)
        self.lose_ovsdb()
        self._seconds = seconds

    async def connect(self) -> str | None:
        await asyncio.sleep(self._seconds)
        self.regain_ovsdb()
        return None


async def test_first_connection(node: Node) -> None:
    """A switch that was not there before is tried again for the answer."""
    assert await Readiness(Unconnected(node.rundir, 0), node.settings).why_not() is None


async def test_connection_that_takes_too_long(node: Node) -> None:
    """A switch that does not answer is said to within the second that STATUS has."""
    began = time.monotonic()
    reason = await Readiness(Unconnected(node.rundir, 30), node.settings).why_not()

    assert "OVSDB" in (reason or "")
    assert time.monotonic() - began < 1.5  # 0.8 s, and what a busy machine takes
