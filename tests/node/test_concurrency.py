"""Many pods at once: everything succeeds, nothing is left, and the daemon is as small as before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from podvif.lab.sandbox import Sandbox, sandbox
from tests.node.support import MODES, MakeNode, Node

PODS = 200
AT_ONCE = 16
RSS_MAX = 90 * 1024
"""KiB: what the daemon may have resident."""


@pytest.fixture(scope="module")
def many() -> Iterator[list[Sandbox]]:
    """As many sandboxes as there are pods; none of their network namespaces is left after the tests."""
    with ExitStack() as stack:
        made = [stack.enter_context(sandbox()) for _ in range(PODS)]
        yield made
    assert [box.name for box in made if box.netns.exists()] == []


def descriptors(node: Node) -> int:
    """How many files the daemon has open, once it has answered a call: all calls before are over then."""
    assert node.cni("STATUS", node.network()).code == 0
    return len(list(Path(f"/proc/{node.daemon.pid}/fd").iterdir()))


def test_200_pods_16_at_once(make_node: MakeNode, many: list[Sandbox]) -> None:
    """200 ADDs and then 200 DELs, 16 at once, half of them in each mode, all succeed, and leave nothing and no file open."""
    node = make_node()
    configs = [node.network(MODES[number % 2]) for number in range(PODS)]
    with node.running() as daemon, ThreadPoolExecutor(AT_ONCE) as pool:
        node.delete(node.add(node.network(), many[0]))  # whatever is opened once for all is open now
        before = descriptors(node)

        added = list(pool.map(lambda config, box: node.cni("ADD", config, box), configs, many))
        assert {answer.text for answer in added if answer.code} == set()
        assert len({answer.document["ips"][0]["address"] for answer in added if answer.document}) == PODS
        assert len(node.ovs.ports()) == len(list(daemon.journal.iterdir())) == PODS
        full = daemon.rss_kib()

        deleted = list(pool.map(lambda config, box: node.cni("DEL", config, box), configs, many))
        assert {answer.text for answer in deleted if answer.code} == set()
        assert node.leftovers() == []

        # One connection, that of the last STATUS, may not be closed yet.
        assert descriptors(node) <= before + 3  # links to the kernel are opened when first needed, and kept
        print(f"RSS of the daemon: {full} KiB with {PODS} attachments, {daemon.rss_kib()} KiB after their DEL")
        assert max(full, daemon.rss_kib()) <= RSS_MAX


def test_200_pods_that_come_and_go(node: Node, many: list[Sandbox]) -> None:
    """200 pods that are added and removed at once, 16 of them at a time, all succeed and leave nothing."""

    def come_and_go(number: int) -> list[str]:
        config = node.network(MODES[number % 2])
        answers = [node.cni(command, config, many[number]) for command in ("ADD", "DEL")]
        return [answer.text for answer in answers if answer.code]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [text for texts in pool.map(come_and_go, range(PODS)) for text in texts]
    assert failures == []
    assert node.leftovers() == []
