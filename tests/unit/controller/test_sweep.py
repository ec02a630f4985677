"""Rounds: what no event tells."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from podvif.kube.resources import PODS, PODVIFS, Key
from podvif.model import FixedIp, NeutronPort
from podvif.podvifs import FINALIZER
from tests.fakes.cluster import neutron_port
from tests.fakes.controller import NODE, Stage, staged

INTERVAL, GRACE = 10.0, 25.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A cluster whose rounds are quick, with a pod that is bound and a controller."""
    async with staged(resync_interval=INTERVAL, sweep_grace=GRACE) as made:
        await made.pod()
        made.controller()
        await made.until(made.bound)
        yield made


def lost_port(stage: Stage, address: str = "10.10.8.8", **changes: Any) -> NeutronPort:
    facts = {"network_id": stage.network, "fixed_ips": (FixedIp(stage.subnet, address),), "device_id": "gone"}
    port = neutron_port(number=200, **(facts | changes))
    stage.cloud.add_port(port)
    return port


async def test_port_of_nobody(stage: Stage) -> None:
    """A port of ours whose pod is gone is left for the grace time, and then deleted and counted."""
    port = lost_port(stage)
    took = await stage.until(lambda: port.id not in stage.cloud.all_ports)
    assert GRACE <= took <= GRACE + 2 * INTERVAL
    assert stage.controllers[0].tally.swept == 1
    assert stage.bound()


@pytest.mark.parametrize(
    "changes",
    [{"tags": frozenset({"theirs"})}, {"device_owner": "compute:nova"}, {"tags": frozenset(), "name": "kuryr's"}],
)
async def test_ports_of_others(stage: Stage, changes: dict[str, Any]) -> None:
    """Ports of others are never touched."""
    port = lost_port(stage, **changes)
    await stage.never(lambda: port.id not in stage.cloud.all_ports)


async def test_owner_that_comes(stage: Stage) -> None:
    """A port is not deleted whose pod was seen in the meantime."""
    pod = await stage.pod("other", hostNetwork=True)
    port = lost_port(stage, vif_type="vhostuser", device_id=pod["metadata"]["uid"], address="10.10.9.9")
    await asyncio.sleep(GRACE - INTERVAL)
    spec = {"nodeName": NODE, "podUID": pod["metadata"]["uid"], "interfaces": [{"name": "eth0"}]}
    metadata = {"namespace": "ns", "name": "other", "finalizers": [FINALIZER]}
    await stage.kube.create(PODVIFS, {"metadata": metadata, "spec": spec}, "a leader before us")
    await stage.kube.merge(PODS, Key("ns", "other"), {"spec": {"hostNetwork": False}}, "x")
    await stage.until(lambda: stage.bound("other"))

    await stage.never(lambda: port.id not in stage.cloud.all_ports)


async def test_caches_out_of_date(stage: Stage) -> None:
    """Nothing is deleted while what is known of the cluster may be old."""
    port = lost_port(stage)
    stage.kube.lose()
    await stage.never(lambda: port.id not in stage.cloud.all_ports)
    stage.kube.regain()
    await stage.until(lambda: port.id not in stage.cloud.all_ports)


async def test_not_leading(stage: Stage) -> None:
    """Who leads no more deletes nothing."""
    port = lost_port(stage)
    stage.controllers[0].leading = False
    await stage.never(lambda: port.id not in stage.cloud.all_ports)


async def test_second_port(stage: Stage) -> None:
    """A second port of an interface is deleted, and the one that is plugged stays."""
    (first,) = stage.ports
    second = msgspec.structs.replace(first, id="ffffffff-0000-4000-8000-000000000000")
    stage.cloud.add_port(second)
    await stage.until(lambda: stage.ports == [first], 2 * INTERVAL)


async def test_quiet_rounds_are_cheap(stage: Stage) -> None:
    """A round over pods that are as they should be is one listing, however many they are."""
    for number in range(30):
        await stage.pod(f"p{number}")
    await stage.until(lambda: all(stage.bound(f"p{number}") for number in range(30)))
    stage.cloud.requests.clear()
    await asyncio.sleep(5 * INTERVAL)
    assert set(stage.cloud.requests) == {"our_ports"}
    assert 4 <= len(stage.cloud.requests) <= 6


async def test_new_leader_is_cheap(stage: Stage) -> None:
    """A controller that begins anew over bound pods lists the ports once, also when the nodes write their conditions."""
    for number in range(30):
        await stage.pod(f"p{number}")
    await stage.until(lambda: all(stage.bound(f"p{number}") for number in range(30)))
    await stage.controllers[0].kill()
    stage.cloud.requests.clear()
    stage.controller()
    await asyncio.sleep(INTERVAL / 2)
    assert stage.cloud.requests.count("our_ports") == 1
    assert stage.cloud.requests.count("ports_of") == 0


async def test_neutron_away(stage: Stage) -> None:
    """A round while Neutron is away disturbs nobody."""
    stage.cloud.down = True
    await asyncio.sleep(5 * INTERVAL)
    assert stage.bound()
    assert stage.events() == []
    assert stage.controllers[0].leader.waiting == 0


async def test_who_waits_is_looked_at_first(stage: Stage) -> None:
    """A pod that is not bound when a controller begins does not wait for the listing of all ports."""
    await stage.controllers[0].kill()
    await stage.pod("new")
    stage.cloud.requests.clear()
    controller = stage.controller()
    listing = asyncio.Event()
    answer = controller.neutron.our_ports

    async def slow(tag: str) -> tuple[NeutronPort, ...]:
        await listing.wait()
        return await answer(tag)

    controller.neutron.our_ports = slow  # type: ignore[method-assign]
    await stage.until(lambda: stage.bound("new"), 5)
    assert "our_ports" not in stage.cloud.requests
    listing.set()
