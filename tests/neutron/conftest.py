"""The Neutron tier: a real Neutron with OVN and one with the Open vSwitch agent, each booted once for all tests that need it.

Law: a machine that cannot run a real part says why and skips its tests; where CI=true nothing may be skipped, so there it
fails.  The fake's cases of the contract run everywhere.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.kube.resources import Document
from podvif.lab import leftovers
from podvif.lab import neutron as lab
from podvif.lab import ovs as lab_ovs
from podvif.lab.hugepages import hugepages, observe_pages
from podvif.lab.kube import KubeApi
from podvif.lab.neutron import Mechanism, PrivateNeutron
from podvif.lab.neutron_files import BRIDGE
from podvif.lab.process import LabError
from tests.kube.conftest import CRD, serves, visited, why_not_real
from tests.kube.test_controller import NAD_CRD
from tests.neutron.proxy import Wire
from tests.neutron.stage import RealStage
from tests.neutron.worlds import FakeWorld, RealWorld, World


def not_here(reason: str) -> None:
    """Skip this test, or fail it where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def look(mechanism: Mechanism) -> None:
    """Skip where this machine cannot run a private Neutron."""
    if os.geteuid() != 0:
        not_here("a private Neutron needs root: it makes a network namespace, hugepages and a switch")
    try:
        lab.look_for_all(mechanism)
        observe_pages()
    except LabError as error:
        not_here("a private Neutron cannot run here: " + "; ".join(str(error).splitlines()))


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of a real part waits for its boot, and on a new machine for Neutron's environment to be made."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("node"):
            item.add_marker(pytest.mark.timeout(900))


@contextlib.contextmanager
def booted(folder: Path, mechanism: Mechanism, **arguments: Any) -> Iterator[PrivateNeutron]:
    """A private Neutron; it has to leave no process and no namespace."""
    look(mechanism)
    with hugepages(lab_ovs.PAGES), PrivateNeutron(folder, mechanism=mechanism, **arguments) as neutron:
        yield neutron
    assert leftovers.on_machine(folder, [neutron.box.name], None) == [f"folder {folder}"]


OTHER_HOSTS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "sriov-host": ("hw_veb", {"port_filter": False, "vlan": "100"}),
    "mute-host": ("vhostuser", {}),
    "odd-host": ("vhostuser", {"vhostuser_mode": "sideways", "bridge_name": BRIDGE, "datapath_type": "netdev"}),
}
"""Hosts whose ports another mechanism driver binds, to what podvif cannot plug."""


@pytest.fixture(scope="session")
def ovn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNeutron]:
    """Neutron with OVN."""
    with booted(tmp_path_factory.mktemp("n"), Mechanism.OVN, other_hosts=OTHER_HOSTS) as neutron:
        yield neutron


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNeutron]:
    """Neutron with the Open vSwitch agent; unlike the other it takes tags in the request that creates a port."""
    drivers = ("port_security", "tag_ports_during_bulk_creation")
    with booted(
        tmp_path_factory.mktemp("n"), Mechanism.OVS, extension_drivers=drivers, other_hosts=OTHER_HOSTS
    ) as neutron:
        yield neutron


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.node)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A Neutron that podvif is connected to, the fake one or the real one."""
    if request.param == "fake":
        yield FakeWorld()
        return
    neutron: PrivateNeutron = request.getfixturevalue("ovn")
    async with Wire(neutron.port) as wire:
        made = RealWorld(neutron, wire, tmp_path)
        yield made
        await made.close()


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """An API server."""
    if reason := why_not_real():
        pytest.skip(reason)
    with KubeApi(tmp_path_factory.mktemp("kube")) as made:
        yield made


@pytest.fixture(params=["ovn", "agent"])
async def stage(request: pytest.FixtureRequest, api: KubeApi) -> AsyncIterator[RealStage]:
    """The stage, with each kind of Neutron; no port is left on it."""
    neutron: PrivateNeutron = request.getfixturevalue(request.param)
    crd = msgspec.yaml.decode(CRD.read_bytes(), type=Document)
    network, subnet = await asyncio.to_thread(neutron.network, "10.6.0.0/24", name="pods")
    async with visited(api, crd) as world:
        await serves(world, NAD_CRD)
        made = RealStage(world, neutron, network, subnet)
        yield made
        await made.clear()
        left = await made.ports()
        await asyncio.to_thread(neutron.remove_ports)
        await asyncio.to_thread(neutron.ask, "DELETE", f"/networks/{network}")
        assert left == []
