"""Two switches under one contract: the fake in memory, and the adapter on a real Open vSwitch with DPDK.

Law: a case speaks to `switch` as podvif does, and to the world as an administrator, a crash or another program would; it
does not know which of the two it has.
"""

import asyncio
import secrets
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from podvif.host import files
from podvif.lab import programs
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import LabError, output
from podvif.model import Attachment, Listener, SeenPort, SocketFile, Vif
from podvif.node import readiness, vhostuser
from tests.fakes.switch import FakeSwitch
from tests.fakes.values import vif

SECONDS = 15.0
"""The longest that a case waits for something that happens by itself."""


class Switch(vhostuser.Switch, readiness.Switch, Protocol):
    """All that podvif needs of a switch."""

    def ports(self) -> Mapping[str, SeenPort]:
        """All OVS ports by name."""

    def on_connect(self, call: Callable[[], None]) -> None:
        """Have `call` called each time that OVSDB can be asked (again), and when vswitchd has caught up with it then."""

    def on_ports(self, call: Callable[[frozenset[str]], None]) -> None:
        """Have `call` called with the names of the OVS ports that changed, or whose removal vswitchd has seen."""

    async def close(self) -> None:
        """End the connection."""


def adapter(remote: str) -> Switch:
    """Podvif's own adapter, not connected yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what os-vif imports warns about what that imports
        from podvif.ovs.switch import Switch as Adapter  # noqa: PLC0415  half a second that the fake's cases do not need

    return Adapter(remote)


class World:
    """A switch, and what happens to it.

    Attributes:
        switch: podvif's side.
        rundir: where vswitchd makes its sockets.
        pods: a directory to move them to, on the same file system.
    """

    def __init__(self, switch: Switch, rundir: Path, pods: Path) -> None:
        self.switch = switch
        self.rundir = rundir
        self.pods = pods
        self.namespaces: list[str | None] = [None]

    def vif(self, listener: Listener, bridge: str = "br-dpdk", vlan: int | None = None, mtu: int = 1500) -> Vif:
        """A port that nobody has had before."""
        attachment = Attachment(secrets.token_hex(8), "net1")
        return vif(listener, attachment, str(self.pods), str(self.rundir), bridge=bridge, vlan=vlan, mtu=mtu)

    def socket(self, path: str) -> SocketFile:
        """What lies at a path, as vswitchd's namespace and ours see it."""
        return files.look_at_socket(path, self.namespaces)

    async def taken(self, wanted: Vif) -> SeenPort:
        """The port, once vswitchd has dealt with it; waited for by event."""
        async with asyncio.timeout(SECONDS):
            while (port := self.switch.port(wanted.name)) is None or port.ofport is None:
                await self.switch.changed(wanted.name)
        return port

    async def let_go(self, wanted: Vif) -> None:
        """Wait by event until vswitchd has seen the removal of the port."""
        async with asyncio.timeout(SECONDS):
            while not self.switch.settled(wanted.name):
                await self.switch.changed(wanted.name)

    async def plugged(self, wanted: Vif, marks: Mapping[str, str] | None = None) -> SeenPort:
        """Plug and wait for vswitchd."""
        await self.switch.plug(wanted, marks or {})
        return await self.taken(wanted)

    # What happens to it; each world has its own way.

    async def reconnect(self) -> None:
        """Podvif's connection is another one, which knows nothing of what the last one did."""
        raise NotImplementedError

    def lose_ovsdb(self) -> None:
        """ovsdb-server ends."""
        raise NotImplementedError

    def regain_ovsdb(self) -> None:
        """ovsdb-server is started again."""
        raise NotImplementedError

    def pause_vswitchd(self) -> None:
        """Vswitchd does nothing for now."""
        raise NotImplementedError

    def resume_vswitchd(self) -> None:
        """Vswitchd goes on."""
        raise NotImplementedError

    def restart_vswitchd(self) -> None:
        """Vswitchd is killed and started again."""
        raise NotImplementedError

    def add_port(self, name: str, bridge: str, external_ids: Mapping[str, str]) -> None:
        """Another program makes a client-mode port."""
        raise NotImplementedError

    def remove_port(self, name: str) -> None:
        """Another program removes a port."""
        raise NotImplementedError

    def configure(self, key: str, value: str) -> None:
        """An administrator sets a key of the switch's other_config."""
        raise NotImplementedError

    def add_device(self, name: str) -> None:
        """A network device of that name comes to where vswitchd looks for it, with its link up, and to where podvif runs."""
        raise NotImplementedError

    def has_device(self, name: str) -> bool:
        """Whether both are still there."""
        raise NotImplementedError


class FakeWorld(World):
    """The fake switch."""

    def __init__(self, folder: Path) -> None:
        rundir, pods = folder / "ovs", folder / "pods"
        for directory in (rundir, pods):
            directory.mkdir()
        self.fake = FakeSwitch(rundir)
        self._devices: set[str] = set()
        self.fake.has_device = self.has_device
        super().__init__(self.fake, rundir, pods)

    async def reconnect(self) -> None:
        self.fake.regain_ovsdb()

    def lose_ovsdb(self) -> None:
        self.fake.lose_ovsdb()

    def regain_ovsdb(self) -> None:
        self.fake.regain_ovsdb()

    def pause_vswitchd(self) -> None:
        self.fake.pause_vswitchd()

    def resume_vswitchd(self) -> None:
        self.fake.start_vswitchd()

    def restart_vswitchd(self) -> None:
        self.fake.kill_vswitchd()
        self.fake.start_vswitchd()

    def add_port(self, name: str, bridge: str, external_ids: Mapping[str, str]) -> None:
        self.fake.add_port(SeenPort(name, bridge, "dpdkvhostuserclient", dict(external_ids), "/nowhere/x"))

    def remove_port(self, name: str) -> None:
        self.fake.remove_port(name)

    def configure(self, key: str, value: str) -> None:
        self.fake.dpdk = msgspec.structs.replace(self.fake.dpdk, other_config={key: value})

    def add_device(self, name: str) -> None:
        self._devices.add(name)

    def has_device(self, name: str) -> bool:
        return name in self._devices


class RealWorld(World):
    """podvif's adapter, connected to a private Open vSwitch."""

    def __init__(self, ovs: PrivateOvs, pods: Path) -> None:
        self.ovs = ovs
        self._devices: list[str] = []
        super().__init__(self._made(), ovs.rundir, pods)
        self._know_vswitchd()

    def _made(self) -> Switch:
        return adapter(self.ovs.ovsdb)

    def _know_vswitchd(self) -> None:
        self.namespaces = [f"/proc/{self.ovs.vswitchd_pid}/ns/net", None]

    async def reconnect(self) -> None:
        await self.switch.close()
        self.switch = self._made()
        await self.switch.connect()

    def lose_ovsdb(self) -> None:
        self.ovs.stop_ovsdb()

    def regain_ovsdb(self) -> None:
        self.ovs.start_ovsdb()

    def pause_vswitchd(self) -> None:
        self.ovs.pause_vswitchd()

    def resume_vswitchd(self) -> None:
        self.ovs.resume_vswitchd()

    def restart_vswitchd(self) -> None:
        self.ovs.kill_vswitchd()
        self.ovs.start_vswitchd()
        self._know_vswitchd()

    def add_port(self, name: str, bridge: str, external_ids: Mapping[str, str]) -> None:
        ids = [f"external_ids:{key}={value}" for key, value in external_ids.items()]
        there = ["--may-exist", "add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev"]
        made = ["type=dpdkvhostuserclient", "options:vhost-server-path=/nowhere/x", *ids]
        self.ovs.vsctl("--no-wait", *there, "--", "add-port", bridge, name, "--", "set", "Interface", name, *made)

    def remove_port(self, name: str) -> None:
        self.ovs.vsctl("--no-wait", "del-port", name)

    def configure(self, key: str, value: str) -> None:
        self.ovs.vsctl("--no-wait", "set", "Open_vSwitch", ".", f"other_config:{key}={value}")

    def _namespaces(self) -> list[list[str]]:
        return [[], ["nsenter", f"--net={self.namespaces[0]}"]]

    def add_device(self, name: str) -> None:
        self._devices.append(name)
        for where in self._namespaces():
            output([*where, programs.ip(), "link", "add", name, "type", "veth", "peer", "name", f"p{name[:12]}"])
            for end in (name, f"p{name[:12]}"):
                output([*where, programs.ip(), "link", "set", end, "up"])

    def has_device(self, name: str) -> bool:
        for where in self._namespaces():
            try:
                output([*where, programs.ip(), "link", "show", "dev", name])
            except LabError:
                return False
        return True

    def clear(self) -> None:
        """Leave no port and no socket for the next case.

        A port that cannot bind is tried again and again, and DPDK 22.11 then closes descriptors that are not its own,
        vswitchd's connection to OVSDB among them.
        """
        self.ovs.resume_vswitchd()
        for port in self.ovs.ports():
            self.ovs.vsctl("del-port", port)
        for name in self._devices:
            for where in self._namespaces():
                output([*where, programs.ip(), "link", "delete", name])
        for left in self.rundir.glob("vhu*"):
            left.unlink()
