"""Neutron with OVN: ports go ACTIVE, and Neutron itself is killed."""

import asyncio
import uuid
from pathlib import Path

import pytest

from podvif.errors import Retry
from podvif.lab.neutron import PrivateNeutron
from podvif.model import NeutronPort, PortRequest
from tests.neutron.support import client_of, plugged_goes_active
from tests.neutron.worlds import OWNER, TAG, port_of

pytestmark = pytest.mark.node


async def test_ovn(ovn: PrivateNeutron, tmp_path: Path) -> None:
    """With OVN a port that podvif plugs becomes ACTIVE with nobody connected, and DOWN when it is unplugged."""
    await plugged_goes_active(ovn, tmp_path)


async def test_killed_while_creating(ovn: PrivateNeutron, tmp_path: Path) -> None:
    """When Neutron itself is killed under a create, a repeat after its restart makes the port, and there is one."""
    network, subnet = await asyncio.to_thread(ovn.network, "10.2.0.0/24")
    async with client_of(ovn, tmp_path) as client:
        request = PortRequest(network, ovn.host, str(uuid.uuid4()), OWNER, "default/pod eth0", (subnet,), tags=(TAG,))
        creating = asyncio.ensure_future(client.create_port(request))
        await asyncio.to_thread(ovn.stop_api)
        (came,) = await asyncio.gather(creating, return_exceptions=True)
        assert isinstance(came, NeutronPort | Retry)  # on a fast machine the answer may win
        ovn.start_api()  # not in a thread that ends: its children would end with it
    async with client_of(ovn, tmp_path) as client:
        port = await port_of(client, request)
        if port.vif_type != "vhostuser":  # killed between making it and binding it
            port = await client.bind_port(port.id, ovn.host)
        assert port.vif_type == "vhostuser"
        assert [one.id for one in await client.our_ports(TAG)] == [port.id]
        await client.delete_port(port.id)
    await asyncio.to_thread(ovn.ask, "DELETE", f"/networks/{network}")
