"""Questions and orders to an Open vSwitch by its own commands, ovs-vsctl and ovs-appctl.

Law: what is known of a switch is asked anew each time; nothing is remembered here.
"""

import json
import time
from pathlib import Path
from typing import Any

from podvif.lab import programs
from podvif.lab.process import output

Row = dict[str, Any]


class OvsClient:
    """One Open vSwitch.

    Args:
        rundir: the folder with its sockets.

    Attributes:
        ovsdb: the database's address as `ovs-vsctl --db` and kuryr.conf want it.
    """

    def __init__(self, rundir: Path) -> None:
        self.rundir = rundir
        self.ovsdb = f"unix:{rundir}/db.sock"
        self._vsctl = programs.ovs_vsctl()
        self._appctl = programs.ovs_appctl()

    def vsctl(self, *arguments: str) -> str:
        """Run ovs-vsctl on this database and return what it printed; fails after 10 s."""
        return output([self._vsctl, f"--db={self.ovsdb}", "--timeout=10", *arguments])

    def appctl(self, *arguments: str) -> str:
        """Run ovs-appctl on this vswitchd and return what it printed; fails after 10 s."""
        return output([self._appctl, "--timeout=10", "-t", f"{self.rundir}/ovs-vswitchd.ctl", *arguments])

    def interfaces(self) -> dict[str, Row]:
        """All Interface rows by name, columns as plain Python values: sets are lists, a set of none or one is None or the one."""
        columns = "name,type,link_state,ofport,error,mac_in_use,mtu,options,external_ids,statistics"
        table = json.loads(self.vsctl("--format=json", f"--columns={columns}", "list", "Interface"))
        rows = [dict(zip(table["headings"], map(plain, row), strict=True)) for row in table["data"]]
        return {row["name"]: row for row in rows}

    def ports(self) -> list[str]:
        """Names of the vhost-user ports (`vhu…`), sorted."""
        return sorted(name for name in self.interfaces() if name.startswith("vhu"))

    def wait_for_link(self, port: str, state: str = "up", timeout: float = 20.0) -> float:
        """Wait until the port's link is `up` or `down`; returns the seconds it took."""
        began = time.monotonic()
        command = [self._vsctl, f"--db={self.ovsdb}", f"--timeout={timeout:g}"]
        output([*command, "wait-until", "Interface", port, f"link_state={state}"], timeout=timeout + 5)
        return time.monotonic() - began


def plain(value: Any) -> Any:
    """An OVSDB value (RFC 7047, 5.1) as a plain Python value."""
    match value:
        case ["set", [*members]]:
            return [plain(member) for member in members] or None
        case ["map", [*pairs]]:
            return {key: plain(member) for key, member in pairs}
        case ["uuid", str(uuid)]:
            return uuid
        case _:
            return value
