"""A private Open vSwitch with DPDK: its own database, sockets and logs in one folder, beside a host's own OVS or without one.

Law: it never touches what it did not make.  vswitchd runs in a network namespace of its own, because two userspace
datapaths in one namespace collide on their tap devices; unix sockets and vhost-user work across.  Kernel ports do not: for
them the namespace has a name, and the daemon runs in it too.  DPDK gets no network card
(`--no-pci`), leaves no hugepage file (`--in-memory`) and keeps its run-time folder in ours.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from podvif.lab import programs
from podvif.lab.ovs_client import OvsClient
from podvif.lab.process import Child, LabError, cpus, output, wait_any, wait_for_path
from podvif.lab.sandbox import inside

PAGES = 64
"""Hugepages of 2 MiB that vswitchd takes at its start."""

PAGES_PER_PORT = 16
"""Hugepages that vswitchd takes for a port once an application is connected."""

START = 30.0
"""Seconds that vswitchd may take to initialise DPDK."""


class PrivateOvs(OvsClient):
    """ovsdb-server and vswitchd; both run inside the `with` block unless a method stopped them.

    Args:
        folder: an empty or new folder for everything; it stays (logs!) and belongs to the caller.  Keep its path short:
            sockets in it have at most 107 bytes.
        pmd_maxsleep: microseconds that an idle forwarding thread may sleep; 0 never sleeps, OVS's own default.
        other_config: more keys for the Open_vSwitch row; they win over ours.
        netns: name of the network namespace that vswitchd runs in; without it a nameless one, which ends with vswitchd.
        where: what comes before vswitchd's command instead, for instance a private machine's `inside`.
        user: USER:GROUP, by name, that both daemons become (--user, as distributions' units have it); root by default.
        dbdir: where the database is; `folder` by default.

    Attributes:
        rundir: `folder`; OVS makes the sockets of client-mode ports there.
        ovsdb: the database's address as `ovs-vsctl --db` and kuryr.conf want it.
        netns: as given.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pmd_maxsleep: int = 500,
        other_config: Mapping[str, str] | None = None,
        netns: str = "",
        where: Sequence[str] = (),
        user: str = "",
        dbdir: Path | None = None,
    ) -> None:
        super().__init__(folder)
        self.netns = netns
        nameless = [programs.unshare(), "--net", "--"]
        self._where = list(where) or (inside(netns) if netns else nameless)
        self._user = user
        self._dbdir = dbdir or folder
        self._env = os.environ | {
            "OVS_RUNDIR": str(folder),
            "OVS_LOGDIR": str(folder),
            "OVS_DBDIR": str(self._dbdir),
            # DPDK makes a folder per process here, else in /var/run/dpdk, where it would stay.
            "RUNTIME_DIRECTORY": str(folder),
        }
        first, *others = cpus()
        self._other_config = {
            "dpdk-init": "true",
            "dpdk-extra": f"--no-pci --in-memory --file-prefix=podvif-ovs-{secrets.token_hex(4)}",
            "dpdk-socket-mem": "64",
            "dpdk-lcore-mask": hex(1 << first),
            "pmd-cpu-mask": hex(1 << (others[0] if others else first)),
            "pmd-maxsleep": str(pmd_maxsleep),
            # Else the first port that connects wants one pool for all possible MTUs: hundreds of pages.
            "per-port-memory": "true",
            "stats-update-interval": "1000",
            **(other_config or {}),
        }
        self._ovsdb: Child | None = None
        self._vswitchd: Child | None = None

    def __enter__(self) -> Self:
        try:
            self.start_ovsdb()
            self.vsctl("--no-wait", "init")
            settings = [f"other_config:{key}={json.dumps(value)}" for key, value in self._other_config.items()]
            # vswitchd does not write its version; ovs-ctl does at a host's start, and `podvif status` shows it.
            version = output([programs.vswitchd(), "--version"]).split("\n")[0].split()[-1]
            self.vsctl("--no-wait", "set", "Open_vSwitch", ".", f"ovs_version={version}", *settings)
            self.start_vswitchd()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as both:
            both.callback(self.stop_ovsdb)
            both.callback(self.stop_vswitchd)

    @property
    def ovsdb_pid(self) -> int:
        """Process id of ovsdb-server, from its pid file."""
        return int((self.rundir / "ovsdb-server.pid").read_text())

    @property
    def vswitchd_pid(self) -> int:
        """Process id of vswitchd, from its pid file."""
        return int((self.rundir / "ovs-vswitchd.pid").read_text())

    def start_ovsdb(self) -> None:
        """Start ovsdb-server, on the database that is there if there is one, and wait until it answers."""
        for folder in (self.rundir, self._dbdir):
            folder.mkdir(parents=True, exist_ok=True)
            self._give_away(folder)
        database, control = self._dbdir / "conf.db", self.rundir / "ovsdb-server.ctl"
        if not database.exists():
            output([programs.ovsdb_tool(), "create", str(database), programs.schema()])
            for made in self._dbdir.glob(".conf.db.*"):
                self._give_away(made)
            self._give_away(database)
        control.unlink(missing_ok=True)
        files = ["--pidfile", "--log-file", f"--unixctl={control}", *self._as_user()]
        command = [programs.ovsdb_server(), str(database), f"--remote=p{self.ovsdb}", *files, "-vconsole:off"]
        self._ended(self._ovsdb)
        self._ovsdb = Child(command, log=self.rundir / "ovsdb-server.out", env=self._env)
        # It opens its control socket after the one for clients, so that when this is there the other listens.
        wait_for_path(control, START, self._ovsdb)

    def start_vswitchd(self) -> None:
        """Start vswitchd and wait until DPDK is initialised and the database's configuration is in effect."""
        self._ended(self._vswitchd)
        # Both columns still say what the last vswitchd wrote; cleared, they say what this one does.
        self.vsctl("--no-wait", "set", "Open_vSwitch", ".", "dpdk_initialized=false", "cur_cfg=-1")
        wanted = self.vsctl("get", "Open_vSwitch", ".", "next_cfg").strip()
        log = self.rundir / "ovs-vswitchd.out"
        # Debian's DPDK build calls itself and its files ovs-vswitchd-dpdk unless told otherwise.
        files = [
            f"--{key}={self.rundir}/ovs-vswitchd.{end}"
            for key, end in (("pidfile", "pid"), ("log-file", "log"), ("unixctl", "ctl"))
        ]
        command = [*self._where, programs.vswitchd(), self.ovsdb, *files, *self._as_user(), "-vconsole:off"]
        self._vswitchd = Child(command, log=log, env=self._env, name="ovs-vswitchd")
        facts = ["wait-until", "Open_vSwitch", ".", "dpdk_initialized=true", f"cur_cfg>={wanted}"]
        waiter = Child(
            [self._vsctl, f"--db={self.ovsdb}", f"--timeout={START:g}", *facts], log=log, name="ovs-vsctl wait-until"
        )
        try:
            ended = wait_any([waiter.pidfd, self._vswitchd.pidfd], START + 1)
            if self._vswitchd.pidfd in ended:
                raise LabError(f"{self._vswitchd.died()}\n{self.log_tail()}")
            if not ended or waiter.wait(1):
                raise LabError(
                    f"ovs-vswitchd did not initialise DPDK within {START:g} s; its log ends:\n{self.log_tail()}"
                )
        finally:
            waiter.stop()

    def _as_user(self) -> list[str]:
        return [f"--user={self._user}"] if self._user else []

    def _give_away(self, path: Path) -> None:
        if self._user:
            user, _, group = self._user.partition(":")
            shutil.chown(path, user, group)

    def stop_ovsdb(self) -> None:
        """End ovsdb-server; does nothing when it has ended."""
        if self._ovsdb is not None:
            self._ovsdb.stop()

    def stop_vswitchd(self) -> None:
        """End vswitchd nicely, so that it removes its sockets; does nothing when it has ended."""
        if self._vswitchd is None:
            return
        try:
            if self._vswitchd.alive():
                self.resume_vswitchd()
                with contextlib.suppress(LabError):
                    self.appctl("exit")
                    self._vswitchd.wait(5)
        finally:
            self._vswitchd.stop()

    def kill_ovsdb(self) -> None:
        """Kill ovsdb-server by SIGKILL."""
        self._running(self._ovsdb).kill()

    def kill_vswitchd(self) -> None:
        """Kill vswitchd by SIGKILL: its sockets' files stay, dead."""
        self._running(self._vswitchd).kill()

    def pause_ovsdb(self) -> None:
        """Pause ovsdb-server: it accepts connections and never answers."""
        self._running(self._ovsdb).send(signal.SIGSTOP)

    def resume_ovsdb(self) -> None:
        """Let a paused ovsdb-server go on."""
        self._running(self._ovsdb).send(signal.SIGCONT)

    def pause_vswitchd(self) -> None:
        """Pause vswitchd: rows are written, and nothing happens."""
        self._running(self._vswitchd).send(signal.SIGSTOP)

    def resume_vswitchd(self) -> None:
        """Let a paused vswitchd go on."""
        self._running(self._vswitchd).send(signal.SIGCONT)

    @staticmethod
    def _ended(child: Child | None) -> None:
        if child is not None and child.alive():
            raise LabError(f"{child.name} runs already (pid {child.pid})")

    @staticmethod
    def _running(child: Child | None) -> Child:
        if child is None:
            raise LabError("this part of the private OVS was never started")
        return child

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of vswitchd's log."""
        log = self.rundir / "ovs-vswitchd.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
