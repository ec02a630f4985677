"""The node tier: real shim, real `podvif node`, real OVS-DPDK, real host-local, real dpdk-testpmd.

Law: one switch serves the whole session and one daemon all tests that do not break it.  A machine that cannot run the tier
says why and skips it; where CI=true nothing may be skipped, so there it fails.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from podvif.lab import ovs as lab_ovs
from podvif.lab import programs
from podvif.lab.hugepages import hugepages, observe_pages
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import LabError
from podvif.lab.sandbox import Sandbox, sandbox
from tests.node.support import MakeNode, Node


@functools.cache
def why_not_here() -> str | None:
    """Why this machine cannot run the tier, or None when it can."""
    if os.geteuid() != 0:
        return "the node tests need root: they make network namespaces, hugepages and a switch"
    try:
        programs.look_for_all()
        observe_pages()
    except LabError as error:
        return "the node tests cannot run here: " + "; ".join(str(error).splitlines())
    return None


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.node)


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup() -> None:
    """Let a test begin only where it can; this place in the summary stands for them all."""
    if reason := why_not_here():
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateOvs]:
    """The switch that all tests share."""
    with hugepages(lab_ovs.PAGES), PrivateOvs(tmp_path_factory.mktemp("ovs")) as switch:
        yield switch


@pytest.fixture(scope="session")
def standing(ovs: PrivateOvs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The node whose daemon runs all the time."""
    node = Node(ovs, tmp_path_factory.mktemp("n"))
    with node.running():
        yield node


@pytest.fixture
def node(standing: Node) -> Iterator[Node]:
    """The standing node; the test has to leave nothing on it."""
    yield standing
    standing.finish()


@pytest.fixture
def make_node(ovs: PrivateOvs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeNode]:
    """Makes a node of the test's own, whose daemon does not run yet; the test has to leave nothing on it."""
    made: list[Node] = []

    def make(**arguments: Any) -> Node:
        node = Node(ovs, tmp_path_factory.mktemp("n"), **arguments)
        made.append(node)
        return node

    yield make
    for node in made:
        node.finish()


@pytest.fixture
def boxes() -> Iterator[Callable[[], Sandbox]]:
    """Makes sandboxes that last as long as the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(sandbox())


@pytest.fixture
def box(boxes: Callable[[], Sandbox]) -> Sandbox:
    """A sandbox."""
    return boxes()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: sockets have room in it."""
    return tmp_path_factory.mktemp("t")
