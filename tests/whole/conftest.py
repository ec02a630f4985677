"""The whole: a real API server, a real Neutron, `podvif controller`, `podvif node` and Open vSwitch with DPDK.

Law: the test plays those who are not here: the scheduler, which names a node, and kubelet with its runtime, which makes
sandboxes, calls the shim and finishes pods.  Nobody else writes a PodVif, a port or an OVS row.
"""

from pathlib import Path

import pytest

from tests.kube.conftest import why_not_real


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder; the first one waits for all parts to boot."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.node)
            item.add_marker(pytest.mark.timeout(900))


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup() -> None:
    """Let a test begin only where there is an API server; the fixtures look for the rest."""
    if reason := why_not_real():
        pytest.skip(reason)  # also in CI: the build says why where it cannot be done
