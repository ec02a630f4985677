"""The cluster tier: a real Kubernetes with one node, its runtime and kubelet, and podvif on it.

Law: tests are users: they apply objects, and look with kubectl, in pods and on the node.  One cluster stands at a time, and is
gone after the tests that share it.  A machine that cannot run the tier says why and skips it; where CI=true it fails, except
for what has to be built with a Go or a network that a machine need not have.
"""

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podvif.lab import ovs as lab_ovs
from podvif.lab import testpmd as lab_testpmd
from podvif.lab.hugepages import hugepages
from podvif.lab.node import DpdkNode, podvif_on, switch_of
from podvif.lab.onenode import OneNode, bridge, why_not_here
from podvif.lab.process import output
from tests.cluster.chart import ROOT
from tests.kube.conftest import why_not_real
from tests.node.conftest import why_not_here as why_no_switch

PAGES = lab_ovs.PAGES + 3 * (lab_testpmd.PAGES + lab_ovs.PAGES_PER_PORT)
"""Hugepages for the switch and three applications, one of which may be about to end."""

SPECS_PAGES = 512
"""Hugepages of the application that the specification starts: 1 GiB."""


@functools.cache
def why_not() -> str | None:
    """Why this machine cannot run the tier, or None when it can."""
    return why_no_switch() or why_not_here()


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder; the first one waits for a cluster."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.node)
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup() -> None:
    """Let a test begin only where it can."""
    if reason := why_not_real():
        pytest.skip(reason)  # also in CI: the build says why where it cannot be done
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def podvif_images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The archives of podvif's own images, node and controller."""
    folder, names = tmp_path_factory.mktemp("images"), ("node", "controller")
    output([sys.executable, str(ROOT / "scripts" / "build-image"), "--output", str(folder), *names], timeout=300)
    return {name: folder / f"podvif-{name}.tar" for name in names}


@pytest.fixture(scope="module", params=[1, 2], ids=["containerd-1", "containerd-2"])
def multus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DpdkNode]:
    """A cluster whose main network is a kernel bridge, with Multus, and podvif standalone on its node."""
    version = int(request.param)
    if reason := why_not_here(version):
        pytest.skip(reason)  # containerd 2 is built like Kubernetes
    folder = tmp_path_factory.mktemp("c")
    with (
        hugepages(PAGES + SPECS_PAGES),
        OneNode(folder, network=bridge(), multus=True, containerd=version) as cluster,
        switch_of(cluster.machine) as switch,
        podvif_on(cluster, switch) as node,
    ):
        yield node
        cluster.delete_pods()
