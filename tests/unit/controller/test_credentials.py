"""What the credentials lack."""

import asyncio

import pytest

from podvif.controller.credentials import AGAIN, Credentials
from podvif.controller.defaults import Defaults
from podvif.kube.events import Recorder
from podvif.kube.resources import LEASES
from tests.fakes.controller import LEASE, Stage
from tests.fakes.neutron import FakeNeutron


@pytest.fixture
async def lease(stage: Stage) -> None:
    """The Lease is there."""
    await stage.kube.create(LEASES, {"metadata": {"namespace": LEASE.namespace, "name": LEASE.name}}, "elector")


def credentials(stage: Stage, user: str = "service", *, leading: bool = True) -> Credentials:
    neutron = FakeNeutron(stage.cloud, user)
    recorder = Recorder(stage.kube, "podvif.io/controller", "me")
    defaults = Defaults(neutron, stage.settings)
    return Credentials(neutron, defaults, stage.kube, recorder, lease=LEASE, leading=lambda: leading)


async def test_enough(stage: Stage, lease: None) -> None:
    """Credentials that may do all are asked about once, and nothing is said."""
    found = credentials(stage)
    await found.watch()
    assert found.missing is None
    assert stage.events(LEASE.name, LEASES) == []


@pytest.mark.parametrize(("user", "words"), [("member", "binding:host_id"), ("nobody", "requires authentication")])
async def test_not_enough(stage: Stage, lease: None, user: str, words: str) -> None:
    """What they lack is said of the Lease, in one event, however long it lasts."""
    found = credentials(stage, user)
    watching = asyncio.ensure_future(found.watch())
    await asyncio.sleep(3 * AGAIN)
    assert found.missing is not None
    assert words in found.missing
    ((reason, note),) = stage.events(LEASE.name, LEASES)
    assert (reason, words in note) == ("NeutronCredentials", True)
    watching.cancel()


async def test_neutron_away(stage: Stage, lease: None) -> None:
    """A Neutron that cannot be asked is asked again, and that ends when it answers."""
    stage.cloud.down = True
    found = credentials(stage)
    watching = asyncio.ensure_future(found.watch())
    await asyncio.sleep(1)
    assert found.missing is not None
    stage.cloud.down = False
    async with asyncio.timeout(AGAIN + 1):
        await watching
    assert found.missing is None


async def test_nowhere_to_say_it(stage: Stage) -> None:
    """Without a Lease, and by who leads no more, nothing is said but in the log."""
    stage.cloud.down = True
    for found in (credentials(stage), credentials(stage, leading=False)):
        assert not await found._ask()
    stage.kube.lose()
    assert not await credentials(stage)._ask()
    stage.kube.regain()
    assert stage.events(LEASE.name, LEASES) == []
