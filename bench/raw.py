"""OVSDB without anything between: JSON-RPC (RFC 7047) on the unix socket, by the standard library.

Law: this is the physical limit, so it does the least that is right: one transaction that is known to be committed, and the
wait until vswitchd has put it into effect (`cur_cfg`), which comes as an update and is never asked for again and again.
"""

import itertools
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from podvif.lab.process import LabError

TIMEOUT = 60.0
"""Seconds until an answer or an update is given up."""


@dataclass(frozen=True, slots=True)
class Port:
    """A vhost-user port to be made by hand.

    Attributes:
        name: of port and interface.
        type: OVS's type of the interface.
        options: of the interface.
    """

    name: str
    type: str
    options: dict[str, str]


def port(name: str, mode: str, folder: Path) -> Port:
    """The port for an application of that mode; in server mode its socket is in `folder`, in client mode where OVS makes it."""
    if mode == "client":
        return Port(name, "dpdkvhostuser", {})
    return Port(name, "dpdkvhostuserclient", {"vhost-server-path": str(folder / name)})


class RawOvsdb:
    """A connection to one database, for one bridge in it.

    Args:
        path: the socket.
        bridge: its name; it is there.
    """

    def __init__(self, path: Path, bridge: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._path = path
        self._bridge = bridge
        self._buffer = ""
        self._ids = itertools.count()
        self._decoder = json.JSONDecoder()
        self._cur_cfg = -1
        self._uuids: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(str(self._path))
        wanted = {"Open_vSwitch": {"columns": ["cur_cfg"]}}
        self._note(self._call("monitor", ["Open_vSwitch", None, wanted]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def add(self, *ports: Port) -> None:
        """Make ports and wait until vswitchd has them."""
        operations: list[dict[str, Any]] = []
        for number, each in enumerate(ports):
            options = ["map", list(map(list, each.options.items()))]
            row = {"name": each.name, "type": each.type, "options": options}
            interface, name = f"interface{number}", f"port{number}"
            operations += [
                {"op": "insert", "table": "Interface", "row": row, "uuid-name": interface},
                {
                    "op": "insert",
                    "table": "Port",
                    "row": {"name": each.name, "interfaces": ["named-uuid", interface]},
                    "uuid-name": name,
                },
            ]
        members = [["named-uuid", f"port{number}"] for number in range(len(ports))]
        results, wanted = self._configure([*operations, self._mutation("insert", members)])
        for number, each in enumerate(ports):
            self._uuids[each.name] = results[2 * number + 1]["uuid"][1]
        self._wait(wanted)

    def remove(self, *names: str) -> None:
        """Remove ports that were made here, and wait until vswitchd has let go of them."""
        members = [["uuid", self._uuids.pop(name)] for name in names]
        _, wanted = self._configure([self._mutation("delete", members)])
        self._wait(wanted)

    def settle(self) -> None:
        """Wait until vswitchd has put into effect all that anybody has committed up to now."""
        self._wait(self._next_cfg(self._transact([_select()])[-1]))

    def _mutation(self, mutator: str, members: Sequence[Any]) -> dict[str, Any]:
        return {
            "op": "mutate",
            "table": "Bridge",
            "where": [["name", "==", self._bridge]],
            "mutations": [["ports", mutator, ["set", members]]],
        }

    def _configure(self, operations: Sequence[dict[str, Any]]) -> tuple[list[Any], int]:
        """Commit, and count the configuration up as ovs-vsctl does; the results and the number to wait for."""
        count = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        results = self._transact([*operations, count, _select()])
        return results, self._next_cfg(results[-1])

    def _transact(self, operations: Sequence[dict[str, Any]]) -> list[Any]:
        results: list[Any] = self._call("transact", ["Open_vSwitch", *operations])
        for result in results:
            if isinstance(result, dict) and result.get("error"):
                raise LabError(f"OVSDB refused a transaction: {result}")
        return results

    @staticmethod
    def _next_cfg(result: dict[str, Any]) -> int:
        return int(result["rows"][0]["next_cfg"])

    def _wait(self, wanted: int) -> None:
        deadline = time.monotonic() + TIMEOUT
        while self._cur_cfg < wanted:
            if time.monotonic() > deadline:
                raise LabError(f"ovs-vswitchd has not put configuration {wanted} into effect within {TIMEOUT:g} s")
            self._take(self._receive())

    def _call(self, method: str, params: Sequence[Any]) -> Any:
        number = next(self._ids)
        self._send({"method": method, "params": params, "id": number})
        while True:
            message = self._receive()
            if message.get("id") == number and "method" not in message:
                if message.get("error"):
                    raise LabError(f"OVSDB: {method}: {message['error']}")
                return message["result"]
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        """Deal with what was not asked for: an update, or the question whether we live."""
        if message.get("method") == "update":
            self._note(message["params"][1])
        elif message.get("method") == "echo":
            self._send({"result": message["params"], "error": None, "id": message["id"]})

    def _note(self, tables: dict[str, Any]) -> None:
        for row in tables.get("Open_vSwitch", {}).values():
            self._cur_cfg = row.get("new", {}).get("cur_cfg", self._cur_cfg)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode())

    def _receive(self) -> dict[str, Any]:
        while True:
            try:
                message, end = self._decoder.raw_decode(self._buffer)
            except ValueError:  # not the whole message yet
                data = self._socket.recv(1 << 16)
                if not data:
                    raise LabError("ovsdb-server closed the connection") from None
                self._buffer += data.decode()
            else:
                self._buffer = self._buffer[end:].lstrip()
                found: dict[str, Any] = message
                return found


def _select() -> dict[str, Any]:
    return {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}
