"""`podvif controller` between a real API server and a real Neutron: pods get ports that are bound, and lose them."""

import asyncio
from pathlib import Path

import pytest

from tests.neutron.stage import OVN, RealStage, controller, until

pytestmark = pytest.mark.node

PODS_AT_ONCE = 12


async def test_flow(stage: RealStage, tmp_path: Path) -> None:
    """A pod gets a port that Neutron has bound on its node as vhostuser, with the address that the PodVif says."""
    with controller(stage, tmp_path):
        pod = await stage.pod()
        await stage.until_bound("p1")
        (interface,) = (await stage.podvifs())["p1"].status.interfaces
        (port,) = await stage.ports()
        assert (port["device_id"], port["binding:host_id"]) == (pod["metadata"]["uid"], stage.node)
        assert interface.vif_type == port["binding:vif_type"] == "vhostuser"
        assert interface.vif_details["vhostuser_mode"] == stage.neutron.mode
        assert interface.mac == port["mac_address"]
        assert [ip.address for ip in interface.ips] == [f"{port['fixed_ips'][0]['ip_address']}/24"]
        assert interface.mtu > 1000
        await stage.remove_pod()
        await stage.until_bound()


@OVN
async def test_unknown_host(stage: RealStage, tmp_path: Path) -> None:
    """A pod on a node that no agent of Neutron runs on says so in event and condition, and leaves nothing."""
    stage.node = "no-such-node"
    with controller(stage, tmp_path):
        await stage.pod()

        async def said() -> bool:
            return "BindingFailed" in await stage.events()

        await until(said)
        condition = (await stage.podvifs())["p1"].status.conditions[0]
        assert condition.reason == "BindingFailed"
        assert "no-such-node" in condition.message
        await stage.remove_pod()
        await stage.until_bound()


@OVN
async def test_killed(stage: RealStage, tmp_path: Path) -> None:
    """A controller that is killed while it makes and deletes ports leaves none twice and none behind."""
    names = [f"p{number}" for number in range(PODS_AT_ONCE)]
    with controller(stage, tmp_path) as killed:
        await asyncio.gather(*(stage.pod(name) for name in names))

        async def some() -> bool:
            return len(await stage.ports()) >= PODS_AT_ONCE // 3

        await until(some)
        killed.kill()
        killed.start()
        await stage.until_bound(*names)
        await asyncio.gather(*(stage.remove_pod(name) for name in names))

        async def fewer() -> bool:
            return len(await stage.ports()) < PODS_AT_ONCE

        await until(fewer)
        killed.kill()
        killed.start()
        await stage.until_bound()


async def test_neutron_killed(stage: RealStage, tmp_path: Path) -> None:
    """While Neutron is down a pod says since when, a deletion is kept, and both are done when it is back."""
    with controller(stage, tmp_path):
        await stage.pod("old")
        await stage.until_bound("old")
        stage.neutron.stop_api()
        try:
            await stage.pod("new")
            await stage.remove_pod("old")

            async def said() -> bool:
                return "NeutronUnreachable" in await stage.events("new")

            await until(said)
            podvifs = await stage.podvifs()
            assert "Neutron unreachable since" in podvifs["new"].status.conditions[0].message
            assert podvifs["old"].deleting
        finally:
            stage.neutron.start_api()
        await stage.until_bound("new")
        await stage.remove_pod("new")
        await stage.until_bound()
