"""What the measurements stand on: one Open vSwitch at one pmd-maxsleep, the daemon, the floor, and one standing port.

Law: a port stands all the time, so that the forwarding thread lives: without any, each ADD would start it and each DEL end it,
which no node with pods sees.  Between two timed calls vswitchd is given time to finish, outside of the clock, so that nobody
pays for what the one before left undone.  Whoever is not timed is paused: both the daemon and the floor read every change of
the database, in Python, and would otherwise take the processor from each other, which no node sees either.  And a forwarding
thread that never sleeps has its CPU for itself, as on a node (isolcpus): whoever is woken up there waits for milliseconds.
Sockets and pods' files are in memory, as /run is, and the journal is not.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.floor import Floor
from bench.raw import RawOvsdb, port
from podvif.lab.daemon import NodeDaemon
from podvif.lab.ovs import PrivateOvs
from podvif.lab.sandbox import Sandbox, sandbox
from podvif.lab.signals import Signals
from podvif.lab.tmpfs import tmpfs

BRIDGE = "br-bench"
STANDING = "vhustanding"

LOOK = 0.03
"""Seconds between two looks at the processor time of those who have been paused: longer than recovery's pause after a verb."""

BUSY = 0.0004
"""Seconds of processor time between two looks that count as being busy."""

DIGESTION = 5.0
"""Seconds that they get."""


@dataclass(frozen=True, slots=True)
class Stage:
    """All that a measurement needs.

    Attributes:
        maxsleep: microseconds.
        folder: for what it makes.
        noop: the do-nothing program.
        ovs, daemon, raw, floor: on one database.
        box: the sandbox whose network namespace every ADD names; container ids are new each time.
        signals: asked between two rounds whether to end.
    """

    maxsleep: int
    folder: Path
    noop: Path
    ovs: PrivateOvs
    daemon: NodeDaemon
    raw: RawOvsdb
    floor: Floor
    box: Sandbox
    signals: Signals

    @property
    def pods(self) -> Path:
        """The daemon's mount_point."""
        return self.folder / "run" / "pods"

    @contextlib.contextmanager
    def turn(self, *timed: int) -> Iterator[None]:
        """Have only the processes `timed`, of daemon and floor, run in the block; then let the others catch up."""
        self.raw.settle()
        paused = [pid for pid in (self.daemon.pid, self.floor.pid) if pid not in timed]
        try:
            for pid in paused:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in paused:
                os.kill(pid, signal.SIGCONT)
        self.raw.settle()
        self.catch_up()

    def catch_up(self) -> None:
        """Return when nobody has anything to do any more; nobody announces that, so it is looked at."""
        pids = (self.daemon.pid, self.floor.pid, self.ovs.ovsdb_pid)
        used, end = _processor_time(pids), time.monotonic() + DIGESTION
        while time.monotonic() < end:
            time.sleep(LOOK)
            before, used = used, _processor_time(pids)
            if used - before < BUSY:
                return

    def config(self, mode: str, **more: object) -> Mapping[str, Any]:
        """A network configuration for the shim."""
        return {
            "cniVersion": "1.1.0",
            "name": "podvif-bench",
            "type": "podvif-cni",
            "bridge": BRIDGE,
            "vhostuserMode": mode,
            "daemonSocket": str(self.daemon.socket),
            **more,
        }

    def ipam(self) -> Mapping[str, Any]:
        """host-local, the plainest IPAM plugin."""
        return {
            "type": "host-local",
            "dataDir": str(self.folder / "leases"),
            "ranges": [[{"subnet": "10.78.0.0/16"}]],
        }


@contextlib.contextmanager
def stage(folder: Path, maxsleep: int, noop: Path, signals: Signals) -> Iterator[Stage]:
    """Set it up below `folder`; all of it ends with the block but the folder.

    Raises:
        LabError: a part is missing or did not come up.
    """
    with contextlib.ExitStack() as parts:
        run = parts.enter_context(tmpfs(folder / "run", "1g"))
        ovs = parts.enter_context(PrivateOvs(run / "ovs", pmd_maxsleep=maxsleep))
        if maxsleep == 0:
            parts.enter_context(_alone(ovs))
        ovs.vsctl("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev")
        box = parts.enter_context(sandbox())
        daemon = parts.enter_context(
            NodeDaemon(folder / "node", ovsdb=ovs.ovsdb, mount_point=run / "pods", ovs_vhu_path=ovs.rundir)
        )
        floor = parts.enter_context(Floor(ovs.ovsdb, BRIDGE, run))
        raw = parts.enter_context(RawOvsdb(ovs.rundir / "db.sock", BRIDGE))
        raw.add(port(STANDING, "server", run))
        yield Stage(maxsleep, folder, noop, ovs, daemon, raw, floor, box, signals)


@contextlib.contextmanager
def _alone(ovs: PrivateOvs) -> Iterator[None]:
    """Keep this process, what it starts in the block, and ovsdb-server off the CPUs of the forwarding threads.

    vswitchd has been started before: it takes no CPU for them that it may not use itself.  Where there is no other CPU nothing
    is done.
    """
    mask = int(ovs.vsctl("get", "Open_vSwitch", ".", "other_config:pmd-cpu-mask").strip().strip('"'), 16)
    mine = os.sched_getaffinity(0)
    others = {cpu for cpu in mine if not mask >> cpu & 1} or mine
    try:
        for task in (0, ovs.ovsdb_pid):
            os.sched_setaffinity(task, others)
        yield
    finally:
        os.sched_setaffinity(0, mine)


def _processor_time(pids: Iterable[int]) -> float:
    """Seconds that all threads of these processes have run."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    nanoseconds = 0
    for task in tasks:
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9
