"""How soon a node is whole again: after restarts of vswitchd, and after applications that were killed.

Law: when a socket was made and when it came to its pod's place is what its own file says: bind(2) sets its mtime, rename(2) its
ctime, both by the kernel's clock; so nobody has to be awake to see it.  An application has started when packets arrive at it.
"""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from bench.burst import all_at_once
from bench.contenders import shim
from bench.rows import Row, Rows
from bench.stage import LOOK, Stage
from podvif.lab.process import LabError
from podvif.lab.testpmd import Testpmd, read_env

MOVED = "socket of a new vswitchd, until it is in its pod's place"
FREED = "socket of a killed application, until it is removed"
STARTED = "starts after kill -9, with packets (1: yes)"

PORTS = 50
"""Client-mode ports that stand while vswitchd is restarted."""

PACKETS = 100
SOON = 20.0
"""Seconds after which something that should come by itself counts as not coming."""


def measure(stage: Stage, rows: Rows, restarts: int, kills: int) -> None:
    """Adds rows of section recovery.

    Raises:
        LabError: something did not come back.
    """
    _restarts(stage, rows, restarts)
    _kills(stage, rows, kills)


def _restarts(stage: Stage, rows: Rows, count: int) -> None:
    ids = [secrets.token_hex(32) for _ in range(PORTS)]
    row = Row("recovery", MOVED, "ms", stage.maxsleep, "client", "", PORTS)
    try:
        all_at_once(stage, "ADD", "client", ids)
        sockets = [Path(read_env(stage.pods / f"{each}.env")["VHOSTUSER_0_SOCKET"]) for each in ids]
        for _ in range(count):
            stage.signals.check()
            with stage.turn(stage.daemon.pid):
                stage.ovs.stop_vswitchd()
                began = time.time()
                stage.ovs.start_vswitchd()
                _await_moved(sockets, began)
            for found in [each.stat() for each in sockets]:
                rows.take(row, (found.st_ctime_ns - found.st_mtime_ns) / 1e6)
    finally:
        all_at_once(stage, "DEL", "client", ids)


def _await_moved(sockets: list[Path], began: float) -> None:
    """Wait until each is one that was made after that moment, which is long after the last one was."""

    def made(path: Path) -> bool:
        try:
            return path.stat().st_mtime >= began
        except FileNotFoundError:
            return False

    _await(lambda: all(map(made, sockets)), "every socket of the new vswitchd is in its pod's place")


def _kills(stage: Stage, rows: Rows, count: int) -> None:
    sender, receiver = ids = [secrets.token_hex(32) for _ in range(2)]
    mode = "server"
    files = {each: stage.pods / f"{each}.env" for each in ids}
    try:
        for each in ids:
            shim(stage, "ADD", stage.config(mode), each)
        told = read_env(files[receiver])
        socket = Path(told["VHOSTUSER_0_SOCKET"])
        with _testpmd(stage, files[sender], to=told["VHOSTUSER_0_MAC"]):
            for _ in range(count):
                stage.signals.check()
                rows.take(
                    Row("recovery", STARTED, "", stage.maxsleep, mode), _start_and_kill(stage, rows, files[receiver])
                )
                began = time.monotonic()
                _await(lambda: not socket.exists(), f"the socket of a killed application, {socket}, is removed")
                rows.take(Row("recovery", FREED, "ms", stage.maxsleep, mode), (time.monotonic() - began) * 1000)
    finally:
        for each in ids:
            shim(stage, "DEL", stage.config(mode), each)


def _start_and_kill(stage: Stage, rows: Rows, file: Path) -> float:
    """1 when packets came."""
    with _testpmd(stage, file) as application:
        try:
            application.wait_for_rx(SOON, packets=PACKETS)
        except LabError as error:
            rows.remarks.append(f"recovery: an application that was started after a kill: {error}")
            return 0.0
        finally:
            application.child.kill()
    return 1.0


def _testpmd(stage: Stage, file: Path, to: str = "") -> Testpmd:
    folder = stage.folder / "applications"
    return Testpmd(file, folder, netns=stage.box.name, forward="txonly" if to else "rxonly", eth_peer=to)


def _await(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SOON
    while not holds():
        if time.monotonic() > end:
            raise LabError(f"not within {SOON:g} s: {what}")
        time.sleep(LOOK)  # a file that is not watched tells nobody
