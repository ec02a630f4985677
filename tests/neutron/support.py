"""A client of a private Neutron, and a port's whole way on it.

Law: what is here runs on a real Neutron alone.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from podvif.core.translate import neutron_to_osvif_vif_ovs
from podvif.lab.neutron import PrivateNeutron
from podvif.lab.neutron_files import BRIDGE
from podvif.model import NeutronPort, PortRequest, SocketDir, Vif
from podvif.neutron import access
from podvif.neutron.client import Neutron
from podvif.podvifs import Interface, InterfaceState
from tests.contract.worlds import adapter
from tests.neutron.worlds import OWNER, TAG


@asynccontextmanager
async def client_of(lab: PrivateNeutron, folder: Path, user: str = "service") -> AsyncIterator[Neutron]:
    """The client, with the role of `user`."""
    file = folder / "kuryr.conf"
    file.write_text("\n".join(["[neutron]", *(f"{key} = {value}" for key, value in lab.options(user).items())]))
    client = Neutron(access.load([str(file)]))
    yield client
    await client.close()


def vif_of(port: NeutronPort, mtu: int, lab: PrivateNeutron, pods: Path) -> Vif:
    """The port as the node plugs it."""
    facts = Interface(
        name="eth0",
        state=InterfaceState.BOUND,
        port_id=port.id,
        mac=port.mac,
        mtu=mtu,
        vif_type=port.vif_type,
        vif_details=port.vif_details,
    )
    return neutron_to_osvif_vif_ovs(facts, SocketDir(str(pods)), SocketDir(str(lab.ovs.rundir)))


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
