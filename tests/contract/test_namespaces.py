"""Questions inside of other network namespaces."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from podvif.errors import Refused
from podvif.host import netns
from podvif.lab import programs
from podvif.lab.process import output
from podvif.lab.sandbox import Sandbox, sandbox
from tests.contract.conftest import not_here


@pytest.fixture
def boxes() -> Iterator[list[Sandbox]]:
    """Two sandboxes; the first has an interface called `here`."""
    if os.geteuid() != 0:
        not_here("network namespaces need root")
    with ExitStack() as stack:
        made = [stack.enter_context(sandbox()) for _ in range(2)]
        output([programs.ip(), "-n", made[0].name, "link", "add", "here", "type", "veth", "peer", "name", "there"])
        yield made


def _threads_elsewhere() -> list[str]:
    own = Path("/proc/self/ns/net").stat().st_ino
    return [str(path) for path in Path("/proc/self/task").glob("*/ns/net") if path.stat().st_ino != own]


def test_one_after_the_other(boxes: list[Sandbox]) -> None:
    """Each question is answered by the namespace it is asked of, also after one that is gone, and nobody stays in any."""
    first, second = (str(box.netns) for box in boxes)
    for _ in range(3):
        assert netns.has_interface(first, "here")
        assert not netns.has_interface(second, "here")
        with pytest.raises(Refused, match="cannot be entered"):
            netns.has_interface("/var/run/netns/podvif-nobody", "here")

    assert _threads_elsewhere() == []


def test_at_once(boxes: list[Sandbox]) -> None:
    """Questions of many threads at once, some of them asked within another, are each answered by their own namespace."""
    first, second = (str(box.netns) for box in boxes)

    def ask(number: int) -> bool:
        if number % 2:
            return netns.has_interface(first, "here")
        return netns.inside(second, lambda: netns.has_interface(first, "here"))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))

    assert _threads_elsewhere() == []
