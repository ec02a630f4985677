"""A port of the client's, plugged with podvif's own switch, becomes ACTIVE: on a real Neutron alone."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podvif import names
from podvif.core.translate import mode_of
from podvif.errors import Retry
from podvif.lab.neutron import PrivateNeutron
from podvif.lab.neutron_files import BRIDGE
from podvif.model import Listener, NeutronPort, PortRequest, SocketDir, Vif
from podvif.neutron import access
from podvif.neutron.client import Neutron
from tests.contract.worlds import adapter
from tests.neutron.worlds import OWNER, TAG

pytestmark = pytest.mark.node

LISTENERS = {mode_of(listener): listener for listener in Listener}


@asynccontextmanager
async def client_of(lab: PrivateNeutron, folder: Path) -> AsyncIterator[Neutron]:
    """The client, with the role `service`."""
    file = folder / "kuryr.conf"
    file.write_text("\n".join(["[neutron]", *(f"{key} = {value}" for key, value in lab.options().items())]))
    client = Neutron(access.load([str(file)]))
    yield client
    await client.close()


def vif_of(port: NeutronPort, mtu: int, lab: PrivateNeutron, pods: Path) -> Vif:
    """The port as the node plugs it."""
    name = names.vif_name(port.id)
    return Vif(
        port_id=port.id,
        name=name,
        mac=port.mac,
        mtu=mtu,
        bridge=port.vif_details["bridge_name"],
        listener=LISTENERS[port.vif_details["vhostuser_mode"]],
        socket=names.socket_path(SocketDir(str(pods)), name),
        ovs_socket=names.socket_path(SocketDir(str(lab.ovs.rundir)), name),
    )


async def plugged_goes_active(lab: PrivateNeutron, folder: Path) -> None:
    """Create, plug, ACTIVE, unplug, DOWN, delete."""
    network, subnet = await asyncio.to_thread(lab.network, "10.4.0.0/24")
    switch = adapter(lab.ovs.ovsdb)
    assert await switch.connect() is None
    async with client_of(lab, folder) as client:
        device = str(uuid.uuid4())
        request = PortRequest(network, lab.host, device, OWNER, "default/pod eth0", (subnet,), tags=(TAG, "eth0"))
        port = await client.create_port(request)
        assert (port.vif_type, port.vif_details["vhostuser_mode"]) == ("vhostuser", lab.mode)
        assert (port.vif_details["bridge_name"], port.vif_details["datapath_type"]) == (BRIDGE, "netdev")
        assert switch.bridge_datapath(BRIDGE) == "netdev"
        vif = vif_of(port, (await client.network(network)).mtu, lab, folder)
        await switch.plug(vif, {"podvif-pod": "default/pod"})
        await asyncio.to_thread(lab.wait_for_status, port.id, "ACTIVE")
        await switch.unplug(vif, BRIDGE)
        await asyncio.to_thread(lab.wait_for_status, port.id, "DOWN")
        await client.delete_port(port.id)
    await switch.close()
    assert lab.ovs.ports() == []
    await asyncio.to_thread(lab.ask, "DELETE", f"/networks/{network}")


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
        await asyncio.to_thread(ovn.start_api)
    async with client_of(ovn, tmp_path) as client:
        port = await client.create_port(request)
        assert port.vif_type == "vhostuser"
        assert [one.id for one in await client.our_ports(TAG)] == [port.id]
        await client.delete_port(port.id)
    await asyncio.to_thread(ovn.ask, "DELETE", f"/networks/{network}")
