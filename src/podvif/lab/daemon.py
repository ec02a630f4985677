"""`podvif node` with a configuration of its own, as a service manager would run it.

Law: it is ready when it says so (sd_notify(3), READY=1), never after a while; a daemon that dies first is reported with its
own last words.
"""

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from podvif.lab import programs
from podvif.lab.process import Child, LabError, wait_any
from podvif.lab.sandbox import inside

START = 20.0
"""Seconds the daemon may take to say that it is ready."""

Sections = Mapping[str, Mapping[str, str]]


def kuryr_conf(sections: Sections, more: Sections) -> str:
    """The text of a configuration file; what `more` says wins."""
    lines: list[str] = []
    for section in [*sections, *(name for name in more if name not in sections)]:
        options = {**sections.get(section, {}), **more.get(section, {})}
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items()), ""]
    return "\n".join(lines)


class NodeDaemon:
    """`podvif node`; runs inside the `with` block unless a method stopped it.

    Args:
        folder: for its configuration, socket, state and log; belongs to the caller, and stays.
        ovsdb: the database's address, `unix:…`.
        mount_point: where pods find their sockets; made if missing.
        ovs_vhu_path: where OVS makes the sockets of client-mode ports; on the same file system as `mount_point`.
        more: more configuration, option by section; it wins over ours.
        env: more environment variables.
        program: what is run in place of `podvif`; it gets the same arguments.
        netns: name of the network namespace that it runs in, for kernel ports the one of vswitchd; ours by default.
        where: what comes before its command instead, for instance a private machine's `inside`.

    Attributes:
        config: the configuration file.
        mount_point: as given.
        socket: the CNI socket (`daemonSocket` in a network configuration).
        state_dir: its state.
        journal: the folder in it that has a file per attachment.
        log: its stderr.
        started_in: seconds from its last start until it was ready.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ovsdb: str,
        mount_point: Path,
        ovs_vhu_path: Path,
        more: Sections | None = None,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = (),
        netns: str = "",
        where: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.config = folder / "kuryr.conf"
        self.socket = folder / "cni.sock"
        self.state_dir = folder / "state"
        self.journal = self.state_dir / "attachments"
        self.log = folder / "podvif-node.log"
        self.mount_point = mount_point
        self._sections: Sections = {
            "vhostuser": {"mount_point": str(mount_point), "ovs_vhu_path": str(ovs_vhu_path)},
            "vif_plug_ovs": {"ovsdb_connection": ovsdb},
            "node": {
                "cni_socket": str(self.socket),
                "state_dir": str(self.state_dir),
                "source": "standalone",
                "metrics_bind": "",  # a host's own daemon, or another of ours, may have the default port
            },
        }
        self._more = more or {}
        self._env = dict(env or {})
        self._program = list(program)
        self._where = list(where) or (inside(netns) if netns else [])
        self.started_in = 0.0
        self._child: Child | None = None
        self._notices: socket.socket | None = None

    def __enter__(self) -> Self:
        for needed in (self.folder, self.state_dir, self.mount_point):
            needed.mkdir(parents=True, exist_ok=True)
        self.config.write_text(kuryr_conf(self._sections, self._more))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self.stop()

    def start(self, timeout: float = START) -> float:
        """Start it and wait until it is ready; returns the seconds it took.

        Raises:
            LabError: it ended first, or was not ready after `timeout` seconds; the message has its last words.
        """
        if self._child is not None and self._child.alive():
            raise LabError(f"podvif node runs already (pid {self.pid})")
        program = self._program or programs.podvif()
        began = time.monotonic()
        notices = self._listen()
        env = os.environ | {"NOTIFY_SOCKET": notices.getsockname()} | self._env
        command = [*self._where, *program, "node", "--config-file", str(self.config)]
        child = self._child = Child(command, log=self.log, env=env, name="podvif node")
        try:
            self._await_ready(notices, child, began + timeout)
        except BaseException:
            self.stop()
            raise
        self.started_in = time.monotonic() - began
        return self.started_in

    def _listen(self) -> socket.socket:
        """A new socket for sd_notify messages; it stays as long as the daemon may want to say something."""
        self._hang_up()
        notices = self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        notices.bind(str(self.folder / "notify.sock"))
        return notices

    def _hang_up(self) -> None:
        if self._notices is not None:
            self._notices.close()
            self._notices = None
        (self.folder / "notify.sock").unlink(missing_ok=True)

    @staticmethod
    def _await_ready(notices: socket.socket, child: Child, deadline: float) -> None:
        while events := wait_any([notices.fileno(), child.pidfd], deadline - time.monotonic()):
            if notices.fileno() not in events:
                raise child.died()
            if b"READY=1" in notices.recv(4096).splitlines():
                return
        raise LabError(f"podvif node did not say that it is ready; its last words:\n{child.last_words()}")

    @property
    def child(self) -> Child:
        """The process.

        Raises:
            LabError: it was never started.
        """
        if self._child is None:
            raise LabError("podvif node was never started: use it in a with block")
        return self._child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.child.pid

    def stop(self) -> int:
        """End it by SIGTERM, as a service manager does, and return its exit code."""
        try:
            return self.child.stop(signal.SIGTERM)
        finally:
            self._hang_up()

    def kill(self) -> int:
        """End it by SIGKILL, as a crash would."""
        try:
            return self.child.kill()
        finally:
            self._hang_up()

    def rss_kib(self) -> int:
        """Its resident memory in KiB (VmRSS of proc(5))."""
        return self.child.rss_kib()

    def cpu_seconds(self) -> float:
        """The processor time it has used so far, user and system (utime and stime of proc(5))."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
