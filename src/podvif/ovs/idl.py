"""One connection to OVSDB that both os-vif and we use, and that tells what changed.

Law: the replica is read and published in the connection's own thread, after each batch of updates and never in the middle
of one, as frozen values; nobody else touches a row.  os-vif would open a connection of its own: with this one in its
place each update is parsed once (in Python, which is where the time goes), a plug's rows are visible the moment it
returns, its transactions report their errors instead of logging them, and they do not block the connection until
vswitchd has caught up: waiting is the loop's business, by event and with a deadline.
docs/decisions/0002-os-vif-in-process.md has the reasons and the figures.
"""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
from ovs.db import idl
from ovsdbapp.backend.ovs_idl import connection, idlutils, transaction
from ovsdbapp.schema.open_vswitch import commands
from ovsdbapp.schema.open_vswitch import impl_idl as open_vswitch
from vif_plug_ovs.ovsdb import impl_idl as os_vif_idl

from podvif.model import SeenPort, SwitchFacts

# Only what os-vif writes and we read: Interface.statistics alone would be most of the traffic of an idle node.
_COLUMNS = {
    "Open_vSwitch": [
        "bridges",
        "next_cfg",
        "cur_cfg",
        "dpdk_initialized",
        "iface_types",
        "ovs_version",
        "dpdk_version",
        "other_config",
    ],
    "Bridge": ["name", "datapath_type", "ports"],
    "Port": ["name", "interfaces", "tag", "trunks", "vlan_mode", "qos", "external_ids"],
    "Interface": [
        "name",
        "type",
        "options",
        "external_ids",
        "ofport",
        "error",
        "mtu_request",
        "link_state",
        "status",
    ],
}

_NUMBERS = frozenset({"next_cfg", "cur_cfg"})
"""What changes at each transaction in the switch's own row; the rest of it hardly ever does."""

_PROBE_MS = 2000  # finds an ovsdb-server that is there and does not answer; the library would not ask on a unix socket


class Replica:
    """What OVSDB says, as frozen values.

    Written by the connection's thread; reading one key of a dict from another thread is safe under the interpreter lock.
    """

    def __init__(self) -> None:
        self.connected = False
        self.facts = SwitchFacts()
        self.datapaths: dict[str, str] = {}
        self.ports: dict[str, SeenPort] = {}


class WatchedIdl(idl.Idl):
    """An IDL that keeps a `Replica` and calls `on_change` with the names of the ports that changed (None: everything)."""

    def __init__(self, remote: str, on_change: Callable[[frozenset[str] | None], None]) -> None:
        """Fetch the schema and prepare the session; blocks until the server has answered.

        Raises:
            Exception: the library's, when the server cannot be reached.
        """
        helper = idlutils.get_schema_helper(remote, "Open_vSwitch")
        for table, columns in _COLUMNS.items():
            helper.register_columns(table, columns)
        helper.register_columns("QoS", ["type", "external_ids"])
        super().__init__(remote, helper, probe_interval=_PROBE_MS)
        self.replica = Replica()
        self._on_change = on_change
        self._dirty_ports: set[str] = set()
        self._dirty_bridges: set[str] = set()
        self._dirty_root: set[str] = set()
        self._bridge_of: dict[Any, str] = {}
        self._ports_of: dict[str, set[Any]] = {}

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """Note what a row's change touches; the library calls this in the middle of a batch."""
        del event
        match row._table.name:  # noqa: SLF001  a row has no public way to its table
            case "Interface" | "Port":
                self._dirty_ports.add(row.name)
            # Asking a row for a column converts all of it: hundreds of ports at each ADD.
            case "Bridge" if updates is None or not updates._data.keys().isdisjoint({"ports", "datapath_type"}):  # noqa: SLF001
                self._dirty_bridges.add(row.name)
            case "Open_vSwitch":
                self._dirty_root.update(_COLUMNS["Open_vSwitch"] if updates is None else updates._data)  # noqa: SLF001

    def run(self) -> bool:
        """Handle what has come from the server, then publish it."""
        changed: bool = super().run()
        self._publish()
        return changed

    def _publish(self) -> None:
        connected = self._session.is_connected() and self.state == self.IDL_S_MONITORING
        if connected and not self.replica.connected:
            self._read_all()
            self.replica.connected = True
            self._on_change(None)
        elif not connected and self.replica.connected:
            self.replica.connected = False
            self._on_change(None)
        elif self._dirty_root or self._dirty_bridges or self._dirty_ports:
            self._read_dirty()

    def _read_all(self) -> None:
        self._bridge_of.clear()
        self._ports_of.clear()
        self.replica.datapaths.clear()
        self.replica.ports.clear()
        self._dirty_root = set(_COLUMNS["Open_vSwitch"])
        self._dirty_bridges = {row.name for row in self.tables["Bridge"].rows.values()}
        self._dirty_ports = {row.name for row in self.tables["Port"].rows.values()}
        self._read()

    def _read_dirty(self) -> None:
        names = frozenset(self._dirty_ports)
        self._read()
        self._on_change(names)

    def _read(self) -> None:
        if self._dirty_root:
            self._read_root()
        for name in self._dirty_bridges:
            self._read_bridge(name)
        for name in self._dirty_ports:
            port = self._read_port(name)
            if port is None:
                self.replica.ports.pop(name, None)
            else:
                self.replica.ports[name] = port
        self._dirty_root = set()
        self._dirty_bridges = set()
        self._dirty_ports = set()

    def _read_root(self) -> None:
        for row in self.tables["Open_vSwitch"].rows.values():
            if self._dirty_root <= _NUMBERS:
                self.replica.facts = msgspec.structs.replace(
                    self.replica.facts, next_cfg=_one(row, "next_cfg"), cur_cfg=_one(row, "cur_cfg")
                )
                continue
            self.replica.facts = SwitchFacts(
                dpdk_initialized=bool(row.dpdk_initialized),
                iface_types=frozenset(row.iface_types),
                ovs_version=_one(row, "ovs_version") or "",
                dpdk_version=_one(row, "dpdk_version") or "",
                next_cfg=row.next_cfg,
                cur_cfg=row.cur_cfg,
                other_config=dict(row.other_config),
            )

    def _read_bridge(self, name: str) -> None:
        row = idlutils.row_by_value(self, "Bridge", "name", name, None)
        members = set() if row is None else {atom.value for atom in row._data["ports"].values}  # noqa: SLF001
        for uuid in self._ports_of.get(name, set()) - members:
            if self._bridge_of.get(uuid) == name:
                del self._bridge_of[uuid]
        for uuid in members:
            self._bridge_of[uuid] = name
        if row is None:
            self._ports_of.pop(name, None)
            self.replica.datapaths.pop(name, None)
        else:
            self._ports_of[name] = members
            # OVS leaves the column empty for the kernel's datapath.
            self.replica.datapaths[name] = row.datapath_type or "system"

    def _read_port(self, name: str) -> SeenPort | None:
        interface = idlutils.row_by_value(self, "Interface", "name", name, None)
        port = idlutils.row_by_value(self, "Port", "name", name, None)
        if interface is None or port is None:
            return None
        return SeenPort(
            name=name,
            bridge=self._bridge_of.get(port.uuid),
            type=_one(interface, "type") or "",
            external_ids=_map(interface, "external_ids"),
            vhost_server_path=_map(interface, "options").get("vhost-server-path"),
            ofport=_one(interface, "ofport"),
            error=_one(interface, "error"),
            mtu_request=_one(interface, "mtu_request"),
            tag=_one(port, "tag"),
            link_up=_one(interface, "link_state") == "up",
            status=_map(interface, "status"),
        )


def _one(row: Any, column: str) -> Any:
    """The value of a column that has one or none, as the server sent it.

    Asked by its attribute, a row converts a set or a map to Python's types, back and once more, since a transaction may have changed
    it; here none runs.
    """
    return next((atom.value for atom in row._data[column].values), None)  # noqa: SLF001


def _map(row: Any, column: str) -> dict[str, str]:
    """The value of a map of strings, likewise."""
    return {key.value: value.value for key, value in row._data[column].values.items()}  # noqa: SLF001


class PlugContext(threading.local):
    """What the calling thread adds to os-vif's transaction, and what came of it.

    Attributes:
        extras: makes the commands that join the transaction; they see the rows that it makes.
        error: why the last transaction of this thread failed.
        next_cfg: the configuration number of the last transaction of this thread.
    """

    extras: Callable[[Any], list[Any]] | None = None
    error: Exception | None = None
    next_cfg: int = 0

    def begin(self, extras: Callable[[Any], list[Any]] | None = None) -> None:
        """Forget the last transaction of this thread, and set what joins the next ones."""
        self.extras = extras
        self.error = None


class _Transaction(open_vswitch.OvsVsctlTransaction):
    def __init__(self, api: Any, *, context: PlugContext) -> None:
        super().__init__(api, api.ovsdb_connection, check_error=True, log_errors=False)
        self._context = context
        self._next_cfg = 0

    def commit(self) -> Any:
        """Run in the connection's thread, together with the calling thread's own commands."""
        if self._context.extras:
            for command in self._context.extras(self.api):
                self.add(command)
        try:
            result = super().commit()
        except Exception as error:
            # The library swallows this for a single command whatever it was told; the caller looks here.
            self._context.error = error
            raise
        self._context.next_cfg = self._next_cfg
        return result

    def post_commit(self, txn: Any) -> None:
        """Do what the commands have to do, and do not wait for vswitchd: that would hold up everybody else."""
        transaction.Transaction.post_commit(self, txn)
        self._next_cfg = txn.get_increment_new_value()


class _DelPort(commands.DelPortCommand):
    """The library's, without its look through every port of the bridge."""

    def run_idl(self, txn: Any) -> None:
        """Remove the port from the bridge it is in; gone already is fine."""
        del txn
        port = idlutils.row_by_value(self.api.idl, "Port", "name", self.port, None)
        bridge = idlutils.row_by_value(self.api.idl, "Bridge", "name", self.bridge, None)
        if port is None or bridge is None:
            return
        bridge.delvalue("ports", port)
        for interface in port.interfaces:
            interface.delete()
        port.delete()


class SharedOvsdb(os_vif_idl.NeutronOvsdbIdl):
    """os-vif's interface to OVSDB, over our connection."""

    _own: Any = None

    def __init__(self, watched: WatchedIdl, timeout: float) -> None:
        self.context = PlugContext()
        super().__init__(connection.Connection(idl=watched, timeout=timeout))

    @property
    def ovsdb_connection(self) -> Any:
        """The library keeps one connection for each class; a daemon that reconnects needs one for each object."""
        return self._own

    @ovsdb_connection.setter
    def ovsdb_connection(self, value: Any) -> None:
        self._own = value

    def create_transaction(self, check_error: bool = False, log_errors: bool = True, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002  the library's signature
        """A transaction that reports errors and does not wait, whatever os-vif asks for."""
        del check_error, log_errors, kwargs
        return _Transaction(self, context=self.context)

    def del_port(self, port: str, bridge: str | None = None, if_exists: bool = True) -> Any:  # noqa: FBT001, FBT002  the library's signature
        """The command that removes a port; podvif always knows its bridge."""
        return _DelPort(self, port, bridge, if_exists)
