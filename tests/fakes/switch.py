"""An Open vSwitch in memory that behaves: OVSDB's rows, vswitchd's rounds, real sockets in a real directory.

Law: it runs the same contract as the real one (tests/contract/test_switch.py).  What no careful caller may ask of the real
one (a bridge flipped to another datapath, a foreign row taken over) is an AssertionError here, so that no test passes by it.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from podvif import names
from podvif.core.attach import OVS_TYPE
from podvif.errors import Retry
from podvif.model import SeenPort, SwitchFacts, Vif
from tests.fakes.values import port_of


@dataclass
class _Device:
    """What vswitchd holds open for a port."""

    type: str
    listening: socket.socket | None


class FakeSwitch:
    """One Open vSwitch; `rundir` is where vswitchd makes its sockets.

    Attributes:
        automatic: vswitchd makes a round soon after each transaction; False leaves that to the test (`round`).
        bridges: datapath by bridge.
        dpdk: what the switch's row says of DPDK; the test may change it.
        before_act: called with the name of each act before it happens; raise from it to make it fail.
        has_device: whether vswitchd finds a network device of that name; a kernel port is opened on it.
        waited: set when somebody begins to wait for a change.
    """

    def __init__(self, rundir: Path, *, automatic: bool = True) -> None:
        self.rundir = rundir
        self.automatic = automatic
        self.bridges: dict[str, str] = {}
        self.dpdk = SwitchFacts(
            dpdk_initialized=True,
            iface_types=frozenset(OVS_TYPE.values()),
            ovs_version="3.1.0",
            dpdk_version="DPDK 22.11.11",
        )
        self.before_act: Callable[[str], None] = lambda _: None
        self.waited = asyncio.Event()
        self.has_device: Callable[[str], bool] = lambda _: True
        self._ports: dict[str, SeenPort] = {}
        self._devices: dict[str, _Device] = {}
        self._runs = True
        self._trouble: str | None = None
        self._next_cfg = self._cur_cfg = self._baseline = 0
        self._settling: dict[str, int] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._on_connect: list[Callable[[], None]] = []
        self._on_ports: list[Callable[[frozenset[str]], None]] = []

    # -- what podvif asks for ------------------------------------------------------------------------------------------

    async def connect(self) -> str | None:
        return self._trouble

    def on_connect(self, call: Callable[[], None]) -> None:
        self._on_connect.append(call)

    def on_ports(self, call: Callable[[frozenset[str]], None]) -> None:
        self._on_ports.append(call)

    async def close(self) -> None:
        self.kill_vswitchd()

    def trouble(self) -> str | None:
        return self._trouble

    def facts(self) -> SwitchFacts:
        return msgspec.structs.replace(self.dpdk, next_cfg=self._next_cfg, cur_cfg=self._cur_cfg)

    def port(self, name: str) -> SeenPort | None:
        return self._ports.get(name)

    def ports(self) -> Mapping[str, SeenPort]:
        return dict(self._ports)

    def bridge_datapath(self, bridge: str) -> str | None:
        return self.bridges.get(bridge)

    def settled(self, name: str) -> bool:
        return self._cur_cfg >= max(self._settling.get(name, 0), self._baseline)

    async def changed(self, name: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(name, set()).add(future)
        self.waited.set()
        try:
            await future
        finally:
            self._waiters[name].discard(future)

    async def plug(self, vif: Vif, marks: Mapping[str, str]) -> None:
        await self._act("plug")
        assert self.bridges.get(vif.bridge, "netdev") == "netdev", f"os-vif would flip bridge {vif.bridge}"
        former = self._ports.get(vif.name)
        if former is not None:
            assert former.external_ids.get("iface-id") == vif.port_id, f"os-vif would take over the row of {vif.name}"
            assert former.bridge == vif.bridge, f"{vif.name} would be in two bridges"
        self.bridges[vif.bridge] = "netdev"
        made = port_of(
            vif,
            tag=names.DEAD_VLAN if vif.isolated else vif.vlan,
            ofport=former.ofport if former else None,
            link_up=bool(former and former.link_up),
        )
        self._ports[vif.name] = msgspec.structs.replace(made, external_ids=made.external_ids | dict(marks))
        self._commit(vif.name)

    async def unplug(self, vif: Vif, bridge: str) -> None:
        await self._act("unplug")
        former = self._ports.get(vif.name)
        assert former is None or former.bridge == bridge, f"{vif.name} is in {former}, not in {bridge}"
        self._ports.pop(vif.name, None)
        self._settling[vif.name] = self._next_cfg + 1
        self._commit(vif.name)

    async def write_marks(self, name: str, marks: Mapping[str, str]) -> None:
        await self._act("write_marks")
        if name not in self._ports:
            raise Retry(f"the owner marks of OVS port {name} could not be written: there is no such row")
        former = self._ports[name]
        self._ports[name] = msgspec.structs.replace(former, external_ids=former.external_ids | dict(marks))
        self._commit(name)

    async def _act(self, name: str) -> None:
        self.before_act(name)
        if self._trouble:
            raise Retry(self._trouble)
        await asyncio.sleep(0)  # the real one hands its work to a thread here

    # -- what the test does to it --------------------------------------------------------------------------------------

    def lose_ovsdb(self) -> None:
        """OVSDB cannot be asked any more; what was known of it stays known."""
        self._trouble = "OVSDB at unix:/ovs/db.sock cannot be reached: the connection was lost"
        self._wake(None)

    def regain_ovsdb(self) -> None:
        """OVSDB can be asked again, by a connection that knows nothing of the removals of the last one."""
        self._trouble = None
        self._settling.clear()
        self._baseline = self._next_cfg
        self._wake(None)
        for call in self._on_connect:
            call()

    def pause_vswitchd(self) -> None:
        """Rows are written and nothing happens; its sockets live."""
        self._runs = False

    def kill_vswitchd(self) -> None:
        """It is gone; its sockets' files stay, dead."""
        self._runs = False
        for device in self._devices.values():
            if device.listening:
                device.listening.close()
        self._devices.clear()

    def start_vswitchd(self) -> None:
        """It runs (again) and makes a round."""
        self._runs = True
        self.round()

    def add_port(self, port: SeenPort) -> None:
        """Somebody else's transaction: a row as it says, in a bridge that is there or made with datapath netdev."""
        if port.bridge is not None:
            self.bridges.setdefault(port.bridge, "netdev")
        self._ports[port.name] = port
        self._commit(port.name)

    def remove_port(self, name: str) -> None:
        """Somebody else's transaction: the port is gone."""
        del self._ports[name]
        self._commit(name)

    def _commit(self, name: str) -> None:
        self._next_cfg += 1
        self._wake(name)
        if self.automatic:
            asyncio.get_running_loop().call_soon(self.round)

    # -- vswitchd ------------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """One round of vswitchd: close what is gone, open what is new, and say how far it is."""
        if not self._runs:
            return
        for name, device in list(self._devices.items()):
            if name not in self._ports or self._ports[name].type != device.type:
                self._close(name)
        before = dict(self._ports)
        for port in before.values():
            # A row that was removed and made again meanwhile is the same port: it gets its number and no new socket.
            error = None if port.name in self._devices else self._open(port)
            number = -1 if error else port.ofport if (port.ofport or -1) > 0 else len(self._devices)
            up = port.link_up if port.type else error is None and self.has_device(port.name)
            self._ports[port.name] = msgspec.structs.replace(port, ofport=number, error=error, link_up=up)
        caught_up = self._cur_cfg < self._baseline
        self._cur_cfg = self._next_cfg
        settled = [name for name, wanted in self._settling.items() if wanted <= self._cur_cfg]
        for name in {*settled, *(name for name, port in self._ports.items() if port != before[name])}:
            self._wake(name)
        for name in settled:
            del self._settling[name]
        if caught_up:
            self._wake(None)
            for call in self._on_connect:
                call()

    def _open(self, port: SeenPort) -> str | None:
        listening = None
        if not port.type and not self.has_device(port.name):
            return f"could not open network device {port.name} (No such device)"
        if port.type == "dpdkvhostuser":
            listening = socket.socket(socket.AF_UNIX)
            try:
                listening.bind(str(self.rundir / port.name))
                listening.listen()
            except OSError as error:
                listening.close()
                return f"could not open network device {port.name} ({error.strerror})"
        self._devices[port.name] = _Device(port.type, listening)
        return None

    def _close(self, name: str) -> None:
        device = self._devices.pop(name)
        if device.listening:
            device.listening.close()
            with contextlib.suppress(FileNotFoundError):
                (self.rundir / name).unlink()  # by the name it was made with: a socket that was moved is out of reach

    def _wake(self, name: str | None) -> None:
        if name is not None:
            for tell in self._on_ports:
                asyncio.get_running_loop().call_soon(tell, frozenset({name}))
        for waiting, futures in self._waiters.items():
            if name is None or waiting == name:
                for future in futures:
                    if not future.done():
                        future.set_result(None)
