"""The switch: os-vif plugs and unplugs, OVSDB is observed, and waiting is by event.

Law: what is plugged is read from OVSDB each time and never remembered.  A plug is believed when its row has been read back;
rows without our mark are left alone by the caller's decision, bridges are made by os-vif and never changed or deleted here.
"""

import asyncio
import contextlib
import functools
import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, assert_never

# os-vif pulls in oslo.service, which starts eventlet unless it is told otherwise before anything of it is used.
from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)

import os_vif  # noqa: E402
from os_vif.objects import instance_info, network  # noqa: E402
from os_vif.objects import vif as os_vif_vif  # noqa: E402
from oslo_config import cfg  # noqa: E402
from vif_plug_ovs import privsep  # noqa: E402

from podvif import errors, names  # noqa: E402
from podvif.core.translate import mode_of  # noqa: E402
from podvif.errors import Bug, Refused, Retry  # noqa: E402
from podvif.model import PortKind, SeenPort, SwitchFacts, Vif  # noqa: E402
from podvif.ovs import fastjson  # noqa: E402
from podvif.ovs.idl import Replica, SharedOvsdb, WatchedIdl  # noqa: E402

_LOG = logging.getLogger(__name__)
_TRANSACTION_SECONDS = 10.0
_RECONNECT_SECONDS = 2.0
_THREADS = 32
_T = TypeVar("_T")


class Switch:
    """One Open vSwitch, through one OVSDB connection.

    Every method belongs to the event loop's thread; os-vif and the connection have threads of their own.
    """

    def __init__(self, remote: str) -> None:
        """Prepare; `remote` is OVSDB's address as OVS writes it, `unix:/var/run/openvswitch/db.sock`."""
        self._remote = remote
        self._loop: asyncio.AbstractEventLoop | None = None
        self._api: SharedOvsdb | None = None
        self._idl: WatchedIdl | None = None
        self._opening: asyncio.Future[SharedOvsdb] | None = None
        # More than asyncio's own few: while OVSDB hangs each call holds one until its time is over.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="os-vif")
        self._empty = Replica()
        self._why = "podvif has not connected to it yet"
        self._connecting = asyncio.Lock()
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._on_connect: list[Callable[[], None]] = []
        self._on_ports: list[Callable[[frozenset[str]], None]] = []
        self._settling: dict[str, int] = {}
        self._baseline = 0
        self._cur_cfg = 0
        self._plugin = _load_os_vif()

    # -- the connection ------------------------------------------------------------------------------------------------

    async def connect(self) -> str | None:
        """Connect if that has not succeeded yet; returns why not, or None when OVSDB can be asked.

        Once connected the library reconnects by itself.
        """
        async with self._connecting:
            if self._api is None:
                self._loop = asyncio.get_running_loop()
                # Kept when the caller gives up waiting: the library cannot be told to, and its result counts later.
                if self._opening is None:
                    self._opening = self._open_in_thread(self._loop)
                try:
                    async with asyncio.timeout(_TRANSACTION_SECONDS):
                        api = await asyncio.shield(self._opening)
                except TimeoutError:
                    self._why = "it does not answer"
                except Exception as error:  # noqa: BLE001  the library raises bare Exception here: this is its door
                    self._why = str(error)
                    self._opening = None
                else:
                    self._api, self._idl = api, api.idl
                    self._plugin.ovsdb._ovsdb = self._api  # noqa: SLF001  os-vif's only seam: see docs/decisions/0002
                    self._changed(None)
        return self.trouble()

    async def keep_connected(self) -> None:
        """Try until the first connection succeeds; a task of the daemon's whole life."""
        while self._api is None:
            await self.connect()
            if self._api is None:
                await asyncio.sleep(_RECONNECT_SECONDS)

    def _open_in_thread(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[SharedOvsdb]":
        """In a thread that the interpreter does not wait for: the library waits without end for a server that is silent."""
        opening: asyncio.Future[SharedOvsdb] = loop.create_future()
        # At SIGTERM nobody is left who would hear how it ended.
        opening.add_done_callback(lambda opening: opening.cancelled() or opening.exception())

        def tell(outcome: SharedOvsdb | Exception) -> None:
            if opening.done():
                return
            if isinstance(outcome, Exception):
                opening.set_exception(outcome)
            else:
                opening.set_result(outcome)

        def run() -> None:
            try:
                outcome: SharedOvsdb | Exception = self._open(loop)
            except Exception as error:  # noqa: BLE001  carried over to whoever waits
                outcome = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, outcome)

        threading.Thread(target=run, name="ovsdb-open", daemon=True).start()
        return opening

    def _open(self, loop: asyncio.AbstractEventLoop) -> SharedOvsdb:
        def on_change(names: frozenset[str] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(self._changed, names)

        return SharedOvsdb(WatchedIdl(self._remote, on_change), _TRANSACTION_SECONDS)

    async def _in_thread(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def on_connect(self, call: Callable[[], None]) -> None:
        """Have `call` called each time that OVSDB can be asked (again), and when vswitchd has caught up with it then."""
        self._on_connect.append(call)

    def on_ports(self, call: Callable[[frozenset[str]], None]) -> None:
        """Have `call` called with the names of the OVS ports that changed, or whose removal vswitchd has seen."""
        self._on_ports.append(call)

    async def close(self) -> None:
        """End the connection's thread."""
        if self._api is not None:
            await self._in_thread(self._api.ovsdb_connection.stop, 5)
        self._threads.shutdown(wait=False)

    # -- what is there -------------------------------------------------------------------------------------------------

    @property
    def _replica(self) -> Replica:
        return self._empty if self._idl is None else self._idl.replica

    def trouble(self) -> str | None:
        """Why OVSDB cannot be asked, one sentence; None when it can."""
        if self._replica.connected:
            return None
        why = "the connection was lost" if self._api is not None else self._why
        return f"OVSDB at {self._remote} cannot be reached: {why}"

    def facts(self) -> SwitchFacts:
        """The switch's own row."""
        return self._replica.facts

    def port(self, name: str) -> SeenPort | None:
        """The OVS port called `name`."""
        return self._replica.ports.get(name)

    def ports(self) -> Mapping[str, SeenPort]:
        """All OVS ports by name."""
        return dict(self._replica.ports)

    def bridge_datapath(self, bridge: str) -> str | None:
        """The bridge's datapath type, None when there is no such bridge."""
        return self._replica.datapaths.get(bridge)

    def settled(self, name: str) -> bool:
        """Whether vswitchd has dealt with our removal of the port called `name`.

        A port that is removed and made again before vswitchd looks is the same port to it: it would make no new socket.
        """
        return self.facts().cur_cfg >= max(self._settling.get(name, 0), self._baseline)

    # -- events --------------------------------------------------------------------------------------------------------

    async def changed(self, name: str) -> None:
        """Wait until something about the port called `name`, or about the connection, has changed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(name, set())
        waiters.add(future)
        try:
            await future
        finally:
            waiters.discard(future)
            if not waiters and self._waiters.get(name) is waiters:
                del self._waiters[name]

    def _changed(self, names: frozenset[str] | None) -> None:
        before, self._cur_cfg = self._cur_cfg, self.facts().cur_cfg
        cur = self._cur_cfg
        woken = (names or frozenset()) | {name for name, wanted in self._settling.items() if wanted <= cur}
        self._settling = {name: wanted for name, wanted in self._settling.items() if wanted > cur}
        if names is None and self._replica.connected:
            self._baseline = self.facts().next_cfg
            self._settling.clear()  # covered by the baseline; in a database made anew the numbers begin again
        caught_up = before < self._baseline <= cur
        if self._replica.connected and (names is None or caught_up):
            for call in self._on_connect:
                call()
        if woken:
            for tell in self._on_ports:
                tell(woken)
        if not names or caught_up:
            woken |= set(self._waiters)  # the row of the switch itself: rare, and cheap to look at again
        for name in woken:
            for future in self._waiters.get(name, ()):
                if not future.done():
                    future.set_result(None)

    # -- doing ---------------------------------------------------------------------------------------------------------

    async def plug(self, vif: Vif, marks: Mapping[str, str]) -> None:
        """Have os-vif make the port, with our marks and the VLAN in the same transaction; returns before vswitchd has it.

        Raises:
            Retry: OVSDB failed.
            Refused: os-vif cannot plug this VIF.
        """
        api = self._connected()

        def extras(ovsdb: Any) -> list[Any]:
            commands = [ovsdb.db_set("Interface", vif.name, ("external_ids", dict(marks)))]
            if vif.vlan is not None:
                commands.append(ovsdb.db_set("Port", vif.name, ("tag", vif.vlan)))
            if vif.isolated:  # as os-vif's isolate_vif, which is one for all ports, OVN's too
                dead = (("tag", names.DEAD_VLAN), ("vlan_mode", "trunk"), ("trunks", [names.DEAD_VLAN]))
                commands.append(ovsdb.db_set("Port", vif.name, *dead))
            return commands

        await self._in_thread(_plug, api, _os_vif_object(vif, vif.bridge), vif, extras)
        if self.port(vif.name) is None:
            raise Retry(f"OVS port {vif.name} was plugged and is not in OVSDB", "see ovsdb-server's log")

    async def unplug(self, vif: Vif, bridge: str) -> None:
        """Have os-vif remove the port from `bridge`; returns before vswitchd has let go of it.

        Raises:
            Retry: OVSDB failed.
        """
        api = self._connected()
        self._settling[vif.name] = await self._in_thread(_unplug, api, _os_vif_object(vif, bridge), vif)
        if self.port(vif.name) is not None:
            raise Retry(f"OVS port {vif.name} was unplugged and still is in OVSDB", "see ovsdb-server's log")

    async def write_marks(self, name: str, marks: Mapping[str, str]) -> None:
        """Add owner marks to the Interface called `name`."""
        api = self._connected()
        command = api.db_set("Interface", name, ("external_ids", dict(marks)), if_exists=False)
        try:
            await self._in_thread(lambda: command.execute(check_error=True, log_errors=False))
        except Exception as error:  # ovsdbapp has no base class for what a transaction raises
            raise Retry(f"the owner marks of OVS port {name} could not be written: {error}") from error

    def _connected(self) -> SharedOvsdb:
        trouble = self.trouble()
        if self._api is None or trouble:
            raise Retry(trouble or "OVSDB cannot be reached")
        return self._api


def _plug(api: SharedOvsdb, vif_object: Any, vif: Vif, extras: Callable[[Any], list[Any]]) -> None:
    context = api.context
    context.begin(extras)
    try:
        os_vif.plug(vif_object, _instance(vif))
    except Exception as error:
        if context.error is not None:
            raise Retry(f"OVSDB did not take port {vif.name}: {context.error}") from error
        raise Refused(f"os-vif cannot plug {vif.name}: {error}", code=errors.INTERNAL) from error
    finally:
        context.extras = None  # the thread goes on to other work, and this port's marks are no part of it


def _unplug(api: SharedOvsdb, vif_object: Any, vif: Vif) -> int:
    context = api.context
    context.begin()
    try:
        os_vif.unplug(vif_object, _instance(vif))
    except Exception as error:
        raise Retry(f"os-vif could not unplug {vif.name}: {context.error or error}") from error
    if context.error is not None:
        raise Retry(f"OVSDB did not remove port {vif.name}: {context.error}") from context.error
    return context.next_cfg


def _instance(vif: Vif) -> Any:
    # os-vif writes it to external_ids:vm-uuid.  A pod's uid is none when the runtime does not say it; the port's always is.
    return instance_info.InstanceInfo(uuid=vif.port_id, name=vif.name)


def _os_vif_object(vif: Vif, bridge: str) -> Any:
    common: dict[str, Any] = {
        "id": vif.port_id,
        "address": vif.mac,
        "network": _network(bridge, vif.mtu),
        "plugin": "ovs",
        "vif_name": vif.name,
        "has_traffic_filtering": False,
        "preserve_on_delete": False,
        "active": False,
    }
    profile: dict[str, Any] = {"interface_id": vif.port_id, "datapath_type": "netdev"}
    match vif.kind:
        case PortKind.VHOST_USER:
            common |= {"mode": mode_of(vif.listener), "path": vif.socket}
            made = os_vif_vif.VIFVHostUser
        case PortKind.VETH:
            profile["create_port"] = True  # else os-vif makes the bridge and leaves the port to libvirt
            made = os_vif_vif.VIFOpenVSwitch
        case PortKind.HYBRID:
            common["bridge_name"] = names.linux_bridge(vif.port_id)
            made = os_vif_vif.VIFBridge
        case _:
            assert_never(vif.kind)
    return made(**common, port_profile=os_vif_vif.VIFPortProfileOpenVSwitch(**profile))


@functools.lru_cache
def _network(bridge: str, mtu: int) -> Any:
    # os-vif asks for an id and makes nothing of it; its objects are slow to make, and this one is the same for all ports.
    return network.Network(id=str(uuid.uuid5(uuid.NAMESPACE_OID, bridge)), bridge=bridge, mtu=mtu)


def _load_os_vif() -> Any:
    """Load os-vif's OVS plug-in, to run in this process as root: without a privsep daemon and without sudo.

    Raises:
        Bug: os-vif is not laid out as this adapter expects.
    """
    for name in ("os_vif", "vif_plug_ovs", "ovsdbapp", "ovs", "oslo_privsep", "stevedore"):
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # what they say is raised, or read from OVSDB, and said by us
    if not cfg.CONF._args:  # noqa: SLF001  the library reads its options from this global, and it may be set only once
        cfg.CONF([], project="podvif", default_config_files=[], default_config_dirs=[])
    privsep.vif_plug.set_client_mode(False)
    os_vif.initialize()
    manager = os_vif._EXT_MANAGER  # noqa: SLF001  there is no public way to the plug-in: see docs/decisions/0002
    try:
        plugin = manager["ovs"].obj
    except (KeyError, TypeError) as error:
        raise Bug("os-vif has no plug-in called ovs: is it installed whole?") from error
    if not hasattr(plugin.ovsdb, "_ovsdb"):
        raise Bug("os-vif's OVS plug-in keeps its connection elsewhere: this podvif does not know that os-vif version")
    plugin.ovsdb.delete_ovs_vif_port = functools.partial(_delete_port, plugin.ovsdb.delete_ovs_vif_port)
    fastjson.install()
    return plugin


def _delete_port(delete: Callable[..., None], bridge: str, dev: str, **arguments: Any) -> None:
    """os-vif's, which deletes a device of the port's name, whosever it is, only where os-vif has made it itself.

    A vhost-user port has none, and the looking alone (pyroute2) costs more than the unplugging; of a veth it is ours
    (`podvif.host.veth`).
    """
    delete(bridge, dev, **arguments | {"delete_netdev": dev.startswith(names.linux_bridge_ends("")[1])})
