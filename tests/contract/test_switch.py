"""What podvif relies on in a switch, proved on the fake and on the real one."""

import asyncio
import secrets
from pathlib import Path

import msgspec
import pytest

from podvif import names
from podvif.core.attach import OVS_TYPE, is_wired, why_not_port
from podvif.errors import Retry
from podvif.model import Attachment, Listener, SocketFile
from tests.contract.worlds import SECONDS, World, adapter
from tests.fakes.values import BOTH, kernel_vif, port_of

APPLICATION, OVS = Listener.APPLICATION, Listener.OVS
MARKS = names.marks(Attachment("c0ffee", "net1"), "ns/pod")


async def test_facts(world: World) -> None:
    """A switch that can be asked knows DPDK, both kinds of vhost-user port, and how far vswitchd has come."""
    facts = world.switch.facts()

    assert world.switch.trouble() is None
    assert facts.dpdk_initialized
    assert set(OVS_TYPE.values()) <= facts.iface_types
    assert facts.ovs_version
    assert facts.dpdk_version
    assert facts.cur_cfg <= facts.next_cfg


async def test_facts_change(world: World) -> None:
    """What an administrator changes of the switch is seen, and stays while only vswitchd's progress changes."""
    before = world.switch.facts()
    world.configure("podvif-test", "yes")

    await world.plugged(world.vif(APPLICATION))

    facts = world.switch.facts()
    assert facts.other_config["podvif-test"] == "yes"
    assert (facts.iface_types, facts.dpdk_initialized) == (before.iface_types, True)
    assert facts.next_cfg > before.next_cfg


@pytest.mark.parametrize("listener", BOTH)
@pytest.mark.parametrize(("vlan", "mtu"), [(None, 1500), (100, 9000)])
async def test_plug(world: World, listener: Listener, vlan: int | None, mtu: int) -> None:
    """A plugged port is seen at once with everything that was asked for, and its number comes as a change."""
    vif = world.vif(listener, vlan=vlan, mtu=mtu)
    await world.switch.plug(vif, MARKS)

    port = world.switch.port(vif.name)
    assert port is not None
    wanted = port_of(vif)
    assert port.external_ids == wanted.external_ids | MARKS
    assert why_not_port(vif, port) is None

    taken = await world.taken(vif)
    assert (taken.ofport or 0) > 0
    assert taken.error is None
    assert why_not_port(vif, taken) is None
    assert taken.external_ids == port.external_ids
    assert (taken.tag, taken.mtu_request) == (vlan, mtu)
    assert world.switch.ports()[vif.name] == taken
    assert not taken.link_up


async def test_plug_isolated(world: World) -> None:
    """A port that the agent has yet to give a VLAN has the dead one from the first, so that it sees no frame."""
    vif = msgspec.structs.replace(world.vif(OVS), neutron=True, isolated=True)
    await world.switch.plug(vif, MARKS)

    port = world.switch.port(vif.name)

    assert port is not None
    assert port.tag == names.DEAD_VLAN
    assert not is_wired(vif, port)
    assert why_not_port(vif, await world.taken(vif)) is None


@pytest.mark.parametrize("listener", BOTH)
async def test_plug_twice(world: World, listener: Listener) -> None:
    """Plugging again what stands changes nothing."""
    vif = world.vif(listener)
    before = await world.plugged(vif, MARKS)

    assert await world.plugged(vif, MARKS) == before


async def test_socket_of_a_listening_ovs(world: World) -> None:
    """A port on which OVS listens has a living socket under the port's name, one on which it does not has none."""
    listening, calling = world.vif(OVS), world.vif(APPLICATION)
    for vif in (listening, calling):
        await world.plugged(vif)

    assert world.socket(listening.ovs_socket) is SocketFile.BOUND
    assert world.socket(calling.ovs_socket) is SocketFile.ABSENT
    assert world.socket(calling.socket) is SocketFile.ABSENT


async def test_file_in_the_way(world: World) -> None:
    """A port that OVS cannot open has no number and an error that says so in OVS's words."""
    vif = world.vif(OVS)
    Path(vif.ovs_socket).touch()  # noqa: ASYNC240

    port = await world.plugged(vif)

    assert port.ofport == -1
    assert f"could not open network device {vif.name}" in (port.error or "")
    await world.switch.unplug(vif, vif.bridge)
    await world.let_go(vif)


async def test_bridge(world: World) -> None:
    """A bridge that is not there is made for the port, with datapath netdev, and stays when the port goes."""
    bridge = f"br-{secrets.token_hex(4)}"
    assert world.switch.bridge_datapath(bridge) is None
    vif = world.vif(APPLICATION, bridge)

    port = await world.plugged(vif)
    assert (port.bridge, world.switch.bridge_datapath(bridge)) == (bridge, "netdev")

    await world.switch.unplug(vif, bridge)
    await world.let_go(vif)
    assert world.switch.bridge_datapath(bridge) == "netdev"


@pytest.mark.parametrize("listener", BOTH)
async def test_unplug(world: World, listener: Listener) -> None:
    """An unplugged port is gone at once; that vswitchd has let go of it comes later, and its own socket is gone then."""
    vif = world.vif(listener)
    await world.plugged(vif)

    await world.switch.unplug(vif, vif.bridge)
    assert world.switch.port(vif.name) is None
    assert vif.name not in world.switch.ports()

    await world.let_go(vif)
    assert world.socket(vif.ovs_socket) is SocketFile.ABSENT


async def test_many_at_once(world: World) -> None:
    """Ports plugged and unplugged at the same time, the first ones of their bridge, do not get in each other's way."""
    bridge = f"br-{secrets.token_hex(4)}"
    vifs = [world.vif(listener, bridge, vlan=vlan) for listener in BOTH for vlan in (None, 5, 6, 7)]

    ports = await asyncio.gather(*(world.plugged(vif, MARKS) for vif in vifs))

    assert [why_not_port(vif, port) for vif, port in zip(vifs, ports, strict=True)] == [None] * len(vifs)
    assert all((port.ofport or 0) > 0 and MARKS.items() <= port.external_ids.items() for port in ports)
    await asyncio.gather(*(world.switch.unplug(vif, bridge) for vif in vifs))
    assert not {vif.name for vif in vifs} & set(world.switch.ports())


async def test_unplug_of_nothing(world: World) -> None:
    """Unplugging what is not there is fine."""
    vif = world.vif(APPLICATION)
    await world.plugged(vif)
    for _ in range(2):
        await world.switch.unplug(vif, vif.bridge)
        await world.let_go(vif)

    assert world.switch.port(vif.name) is None


async def test_moved_socket(world: World) -> None:
    """A socket that was moved lives on under its new name; OVS does not remove it with the port, it dies there."""
    vif = world.vif(OVS)
    await world.plugged(vif)
    Path(vif.ovs_socket).rename(vif.socket)  # noqa: ASYNC240
    assert world.socket(vif.socket) is SocketFile.BOUND

    await world.switch.unplug(vif, vif.bridge)
    await world.let_go(vif)

    await dies(world, vif.socket)


async def dies(world: World, path: str) -> None:
    """A socket is closed a moment after vswitchd says that it has dealt with the port, and nobody is told."""
    async with asyncio.timeout(SECONDS):
        while world.socket(path) is not SocketFile.DEAD:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_replug(world: World) -> None:
    """A port made again after vswitchd has let go of the former one has a new socket."""
    vif = world.vif(OVS)
    await world.plugged(vif)
    Path(vif.ovs_socket).rename(vif.socket)  # noqa: ASYNC240
    await world.switch.unplug(vif, vif.bridge)
    await world.let_go(vif)

    await world.plugged(vif)

    assert world.socket(vif.ovs_socket) is SocketFile.BOUND
    await dies(world, vif.socket)


async def test_replug_too_early(world: World) -> None:
    """A port made again before vswitchd has looked is the same port to it, without a new socket: hence the wait."""
    vif = world.vif(OVS)
    await world.plugged(vif)
    Path(vif.ovs_socket).rename(vif.socket)  # noqa: ASYNC240
    world.pause_vswitchd()

    await world.switch.unplug(vif, vif.bridge)
    assert not world.switch.settled(vif.name)
    await world.switch.plug(vif, {})
    world.resume_vswitchd()
    await world.taken(vif)
    await world.let_go(vif)

    assert world.socket(vif.ovs_socket) is SocketFile.ABSENT
    assert world.socket(vif.socket) is SocketFile.BOUND


async def test_removal_is_told(world: World) -> None:
    """Who listens for changes of ports hears of it when vswitchd has seen a removal, though no row changes then."""
    vif = world.vif(OVS)
    await world.plugged(vif)
    world.pause_vswitchd()
    await world.switch.unplug(vif, vif.bridge)
    await asyncio.sleep(0)
    heard = asyncio.Event()
    world.switch.on_ports(lambda names: heard.set() if vif.name in names and world.switch.settled(vif.name) else None)

    world.resume_vswitchd()

    await asyncio.wait_for(heard.wait(), SECONDS)


async def test_change_of_type(world: World) -> None:
    """A port can come back in the other mode once vswitchd has let go of it."""
    vif = world.vif(OVS)
    await world.plugged(vif)
    await world.switch.unplug(vif, vif.bridge)
    await world.let_go(vif)
    other = world.vif(APPLICATION)

    port = await world.plugged(other)

    assert (port.type, port.vhost_server_path) == ("dpdkvhostuserclient", other.socket)


async def test_marks(world: World) -> None:
    """Owner marks are added to a port's external_ids, and a port that is not there cannot be marked."""
    vif = world.vif(APPLICATION)
    before = await world.plugged(vif)

    await world.switch.write_marks(vif.name, MARKS)

    after = world.switch.port(vif.name)
    assert after is not None
    assert after.external_ids == before.external_ids | MARKS
    with pytest.raises(Retry, match="could not be written"):
        await world.switch.write_marks("vhunobody-00", MARKS)


async def test_kernel_port(world: World) -> None:
    """A kernel port is opened on the device of its name; unplugging leaves that device, and any other of the name, alone."""
    attachment = Attachment(secrets.token_hex(8), "net1")
    vif = kernel_vif(attachment=attachment, vlan=100)
    world.add_device(vif.name)
    port = await world.plugged(vif, MARKS)

    assert (port.type, port.bridge, port.tag, port.error) == ("", vif.bridge, 100, None)
    assert port.external_ids == port_of(vif).external_ids | MARKS
    assert (port.ofport or 0) > 0
    async with asyncio.timeout(SECONDS):
        while not (found := world.switch.port(vif.name)) or not found.link_up:
            await world.switch.changed(vif.name)

    await world.switch.plug(vif, MARKS)
    assert world.switch.port(vif.name) == found
    for _ in range(2):
        await world.switch.unplug(vif, vif.bridge)
        assert world.switch.port(vif.name) is None
    await world.let_go(vif)
    assert world.has_device(vif.name)


async def test_kernel_port_without_a_device(world: World) -> None:
    """A kernel port whose device is not there has an error that says so, and no number."""
    vif = kernel_vif(attachment=Attachment(secrets.token_hex(8), "net1"))
    await world.switch.plug(vif, MARKS)
    async with asyncio.timeout(SECONDS):
        while not (port := world.switch.port(vif.name)) or not port.error:
            await world.switch.changed(vif.name)

    assert f"could not open network device {vif.name} (No such device)" in (port.error or "")
    assert port.ofport == -1


async def test_marks_of_one_port_alone(world: World) -> None:
    """Writing the marks of one port touches no other, not even one that podvif plugged before and that is another's now."""
    ours, former = world.vif(APPLICATION), world.vif(APPLICATION, vlan=100)
    for vif in (ours, former):
        await world.plugged(vif, MARKS)
    world.remove_port(former.name)
    async with asyncio.timeout(SECONDS):
        while world.switch.port(former.name):
            await world.switch.changed(former.name)
    world.add_port(former.name, "br-dpdk", {"iface-id": "a-vm"})
    await world.taken(former)

    for _ in range(4):  # whichever thread does it
        await world.switch.write_marks(ours.name, MARKS)

    port = world.switch.port(former.name)
    assert port is not None
    assert (port.external_ids, port.tag) == ({"iface-id": "a-vm"}, None)


async def test_ports_of_others(world: World) -> None:
    """Ports that others make and remove are seen, with whose they are, and each is a change."""
    vif = world.vif(APPLICATION)
    made = asyncio.ensure_future(world.switch.changed(vif.name))
    await asyncio.sleep(0)

    world.add_port(vif.name, "br-dpdk", {"iface-id": "a-vm"})
    await asyncio.wait_for(made, SECONDS)
    port = await world.taken(vif)
    assert (port.external_ids, port.bridge, port.type) == ({"iface-id": "a-vm"}, "br-dpdk", "dpdkvhostuserclient")

    gone = asyncio.ensure_future(world.switch.changed(vif.name))
    await asyncio.sleep(0)
    world.remove_port(vif.name)
    await asyncio.wait_for(gone, SECONDS)
    async with asyncio.timeout(SECONDS):
        while world.switch.port(vif.name):
            await world.switch.changed(vif.name)


async def test_vswitchd_is_stopped(world: World) -> None:
    """While vswitchd does nothing rows are written and read, without a number; it catches up when it goes on."""
    vif = world.vif(OVS)
    world.pause_vswitchd()

    await world.switch.plug(vif, MARKS)
    port = world.switch.port(vif.name)
    assert port is not None
    assert (port.ofport, port.error) == (None, None)
    assert world.socket(vif.ovs_socket) is SocketFile.ABSENT

    world.resume_vswitchd()
    assert ((await world.taken(vif)).ofport or 0) > 0


async def test_catching_up_wakes_everybody(world: World) -> None:
    """After a reconnection nothing is settled until vswitchd has caught up; who waits for that is woken by it."""
    busy, waiting = world.vif(APPLICATION), world.vif(APPLICATION)
    world.pause_vswitchd()
    await world.switch.plug(busy, {})
    await world.reconnect()
    assert not world.switch.settled(waiting.name)
    let_go = asyncio.ensure_future(world.let_go(waiting))
    told = asyncio.Event()
    world.switch.on_connect(told.set)
    await asyncio.sleep(0)

    world.resume_vswitchd()

    await asyncio.wait_for(let_go, SECONDS)
    await asyncio.wait_for(told.wait(), SECONDS)
    assert world.switch.settled(busy.name)


async def test_vswitchd_is_restarted(world: World) -> None:
    """After a restart of vswitchd a client-mode port has a new socket under its first name, the moved one is dead."""
    vif = world.vif(OVS)
    await world.plugged(vif)
    Path(vif.ovs_socket).rename(vif.socket)  # noqa: ASYNC240

    world.restart_vswitchd()

    async with asyncio.timeout(SECONDS):
        while world.socket(vif.ovs_socket) is not SocketFile.BOUND:
            await world.switch.changed(vif.name)
    assert world.socket(vif.socket) is SocketFile.DEAD


async def test_ovsdb_is_lost(world: World) -> None:
    """Without OVSDB that is the trouble, acts are a Retry, and who waits is woken; it is found again by itself."""
    vif, fresh = world.vif(APPLICATION), world.vif(APPLICATION)
    await world.plugged(vif, MARKS)
    found: list[str | None] = []
    world.switch.on_connect(lambda: found.append(world.switch.trouble()))
    waiting = asyncio.ensure_future(world.switch.changed(fresh.name))
    await asyncio.sleep(0)

    world.lose_ovsdb()
    await asyncio.wait_for(waiting, SECONDS)
    assert "cannot be reached: the connection was lost" in (world.switch.trouble() or "")
    for act in (
        world.switch.plug(fresh, {}),
        world.switch.unplug(vif, vif.bridge),
        world.switch.write_marks(vif.name, {}),
    ):
        with pytest.raises(Retry, match="cannot be reached"):
            await act

    back = asyncio.ensure_future(world.switch.changed(fresh.name))
    await asyncio.sleep(0)
    world.regain_ovsdb()
    async with asyncio.timeout(30):
        await back
        while world.switch.trouble():
            await world.switch.changed(fresh.name)
    assert found == [None]  # recovery's call, when it can ask
    port = world.switch.port(vif.name)
    assert port is not None
    assert MARKS.items() <= port.external_ids.items()
    await world.plugged(fresh)


async def test_nobody_listens(tmp_path: Path) -> None:
    """Without an ovsdb-server the trouble names the address that was tried."""
    switch = adapter(f"unix:{tmp_path}/db.sock")
    assert f"OVSDB at unix:{tmp_path}/db.sock cannot be reached" in (switch.trouble() or "")

    why = await asyncio.wait_for(switch.connect(), SECONDS)

    assert f"OVSDB at unix:{tmp_path}/db.sock cannot be reached: " in (why or "")
    with pytest.raises(Retry, match="cannot be reached"):
        await switch.write_marks("vhu", {})
    await switch.close()
