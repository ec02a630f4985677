"""Neutron with the Open vSwitch agent: ports go ACTIVE in both modes."""

import asyncio
import uuid
from pathlib import Path

import pytest

from podvif.lab.neutron import PrivateNeutron
from podvif.model import PortRequest
from tests.neutron.support import client_of, plugged_goes_active
from tests.neutron.worlds import OWNER, TAG, port_of

pytestmark = pytest.mark.node


@pytest.mark.parametrize("mode", ["server", "client"])
async def test_agent(agent: PrivateNeutron, tmp_path: Path, mode: str) -> None:
    """With the Open vSwitch agent a port that podvif plugs becomes ACTIVE in both modes, and DOWN when it is unplugged."""
    if agent.mode != mode:
        agent.restart_agent(mode)  # not in a thread that ends: its children would end with it
    await plugged_goes_active(agent, tmp_path)


async def test_tags(agent: PrivateNeutron, tmp_path: Path) -> None:
    """Where Neutron takes tags with the request, a port has them from the first, and is known by them."""
    network, subnet = await asyncio.to_thread(agent.network, "10.2.0.0/24")
    async with client_of(agent, tmp_path) as client:
        request = PortRequest(network, agent.host, str(uuid.uuid4()), OWNER, "default/pod eth0", (subnet,), tags=(TAG,))
        port = await client.create_port(request)
        seen = await asyncio.to_thread(agent.ask, "GET", f"/ports/{port.id}")
        assert seen["port"]["tags"] == [TAG]
        assert (await port_of(client, request)).id == port.id
        assert [one.id for one in await client.our_ports(TAG)] == [port.id]
        await client.delete_port(port.id)
    await asyncio.to_thread(agent.ask, "DELETE", f"/networks/{network}")
