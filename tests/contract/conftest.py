"""Each case of the contract runs on the fake, and on the real thing where this machine can have it.

Where it cannot, the case says why and is skipped; where CI=true nothing may be skipped, so there it fails.
"""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from podvif.lab import ovs as lab_ovs
from podvif.lab import programs
from podvif.lab.hugepages import hugepages, observe_pages
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import LabError
from tests.contract.worlds import FakeWorld, RealWorld, World


def not_here(reason: str) -> NoReturn:
    """Skip this test, or fail it where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateOvs]:
    """A private Open vSwitch with DPDK, for all cases of a file."""
    if os.geteuid() != 0:
        not_here("a real Open vSwitch with DPDK needs root")
    try:
        observe_pages()
        for program in (programs.vswitchd, programs.ovsdb_server, programs.ovs_vsctl, programs.schema):
            program()
    except LabError as error:
        not_here(str(error))
    with hugepages(lab_ovs.PAGES), PrivateOvs(tmp_path_factory.mktemp("ovs")) as switch:
        yield switch


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.node)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A switch that podvif is connected to, the fake one or the real one."""
    made = FakeWorld(tmp_path) if request.param == "fake" else RealWorld(request.getfixturevalue("ovs"), tmp_path)
    assert await made.switch.connect() is None
    yield made
    await made.switch.close()
    if isinstance(made, RealWorld):
        made.clear()
