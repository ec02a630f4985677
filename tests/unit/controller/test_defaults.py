"""[neutron_defaults] and what its names stand for."""

import asyncio

import msgspec
import pytest

from podvif.controller.defaults import Defaults
from podvif.errors import Refused, Retry
from tests.fakes.controller import Stage
from tests.fakes.neutron import FakeNeutron


def defaults(stage: Stage, **settings: object) -> Defaults:
    return Defaults(FakeNeutron(stage.cloud), msgspec.structs.replace(stage.settings, **settings))


async def test_names(stage: Stage) -> None:
    """A subnet and security groups are known by their UUIDs once they were looked up, which is done once for all."""
    group = "0b42ae2d-ac2c-4c40-a34a-496edd8eee99"
    stage.cloud.security_groups[group] = "dpdk"
    found = defaults(stage, pod_security_groups=("dpdk",), project="p", resource_tags=("mine",))
    await asyncio.gather(*(found.look_up() for _ in range(10)))

    assert found.known.pod_subnet == stage.subnet
    assert found.known.security_groups == (group,)
    assert (found.known.project_id, found.known.tags) == ("p", ("mine",))
    assert stage.cloud.requests.count("find") == 2


async def test_no_groups(stage: Stage) -> None:
    """Without security groups Neutron's own default holds."""
    found = defaults(stage)
    await found.look_up()

    assert found.known.security_groups is None


async def test_subnet_that_is_missing(stage: Stage) -> None:
    """A subnet that is missing stands there under its name, for the pods to say so, and is found when it is there."""
    found = defaults(stage, pod_subnet="later")
    await found.look_up()
    assert found.known.pod_subnet == "later"
    assert "later not found" in found.refused["later"].message
    subnet = stage.cloud.add_subnet(stage.network, "10.99.0.0/24", "later")
    await found.look_up()

    assert found.known.pod_subnet == subnet
    assert found.refused == {}


async def test_group_that_is_missing(stage: Stage) -> None:
    """A security group that is missing is refused each time: no port may be made without it."""
    found = defaults(stage, pod_security_groups=("later",))
    for _ in range(2):
        with pytest.raises(Refused, match="later"):
            await found.look_up()
    assert found.known.pod_subnet == stage.subnet


async def test_neutron_away(stage: Stage) -> None:
    """While Neutron is away nothing is known, and nothing is lost."""
    found = defaults(stage)
    stage.cloud.down = True
    with pytest.raises(Retry):
        await found.look_up()
    stage.cloud.down = False
    await found.look_up()

    assert found.known.pod_subnet == stage.subnet
