"""A real DPDK application that knows nothing but its pod's files: dpdk-testpmd.

Law: the application's whole knowledge of its port is `<containerid>.env`, read by a shell as an application's start script
would; nothing here builds a `--vdev`.  Its statistics are read from its own screen as it prints them.
"""

import os
import re
import secrets
import shlex
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from podvif.lab import programs
from podvif.lab.process import Child, LabError, cpus, output
from podvif.lab.user import User

PAGES = 64
"""Hugepages of 2 MiB that one testpmd takes (`-m 128`)."""

_FIGURE = re.compile(r"\b(RX-packets|TX-packets|Rx-pps|Tx-pps):\s+(\d+)")
_PORT = re.compile(r"NIC statistics for port (\d+)")


@dataclass(frozen=True, slots=True)
class Statistics:
    """What testpmd last said of one of its ports.

    Attributes:
        rx_packets, tx_packets: packets since its start.
        rx_pps, tx_pps: packets per second since it last said so.
    """

    rx_packets: int = 0
    tx_packets: int = 0
    rx_pps: int = 0
    tx_pps: int = 0


_NAMES = {"RX-packets": "rx_packets", "TX-packets": "tx_packets", "Rx-pps": "rx_pps", "Tx-pps": "tx_pps"}


@dataclass(slots=True)
class Screen:
    """testpmd's screen, line by line, turned into statistics per port.

    Attributes:
        ports: the statistics by testpmd's port number.
        rounds: how many times all figures of port 0 were read.  testpmd looks at its clock once a second and prints when
            a second has passed, which in practice is every one or two seconds.
    """

    ports: dict[int, Statistics] = field(default_factory=dict)
    rounds: int = 0
    _port: int = 0

    def feed(self, line: str) -> bool:
        """Take one line; whether a port's figures are complete with it."""
        if found := _PORT.search(line):
            self._port = int(found[1])
        figures = {_NAMES[name]: int(value) for name, value in _FIGURE.findall(line)}
        # The summary that testpmd prints at its end has the same words, but no "NIC statistics" above it.
        if not figures or "RX-dropped" in line or "TX-dropped" in line:
            return False
        self.ports[self._port] = replace(self.ports.get(self._port, Statistics()), **figures)
        complete = "tx_pps" in figures
        self.rounds += complete and self._port == 0
        return complete


def read_env(file: Path) -> dict[str, str]:
    """The variables of a pod's `.env` file as a shell sees them that sourced it with an empty environment.

    Raises:
        LabError: the shell refused the file.
    """
    text = output(["env", "-i", "/bin/sh", "-c", 'set -a; . "$1" && exec /usr/bin/env -0', "sh", str(file)])
    pairs = (entry.partition("=") for entry in text.split("\0") if entry)
    return {name: value for name, _, value in pairs if name.startswith("VHOSTUSER_")}


class Testpmd:
    """dpdk-testpmd in a sandbox, on all interfaces of its pod or on one; runs inside the `with` block.

    Args:
        env_file: the pod's `<containerid>.env`.
        folder: where its log and DPDK's run-time folder go; belongs to the caller.
        netns: name of the network namespace to run in; empty for ours.
        forward: testpmd's forward mode: txonly, rxonly, macswap, io, …
        eth_peer: the destination MAC of what txonly sends on port 0.
        interface: number of the only interface to use; None uses all of the pod.
        core: the CPU of its forwarding thread; the first one, which OVS's does not use, by default.
        extra: more arguments of the application, for instance `--rxq=2`.
        user: as whom it runs, without any capability; root by default.
        before: what to put before its command, for instance to give it mounts of its own; it has to become the command.
        mounts: directories that it sees at other places, as a container does: where they are, by where it sees them.
    """

    __test__ = False  # pytest: the name is the program's

    def __init__(
        self,
        env_file: Path,
        folder: Path,
        *,
        netns: str = "",
        forward: str = "rxonly",
        eth_peer: str = "",
        interface: int | None = None,
        core: int | None = None,
        extra: Sequence[str] = (),
        user: User | None = None,
        before: Sequence[str] = (),
        mounts: Mapping[Path, Path] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        prefix = f"podvif-testpmd-{secrets.token_hex(4)}"
        first = cpus()[0]
        eal = [
            f"--lcores=0@{first},1@{first if core is None else core}",
            "--no-pci",
            "--in-memory",
            "--single-file-segments",
            "-m",
            "128",
        ]
        application = ["--total-num-mbufs=8192", "--stats-period=1", f"--forward-mode={forward}", *extra]
        if eth_peer:
            application.append(f"--eth-peer=0,{eth_peer}")
        vdevs = "$VHOSTUSER_VDEVS" if interface is None else f'--vdev="$VHOSTUSER_{interface}_VDEV"'
        script = (
            f". {shlex.quote(str(env_file))} && exec stdbuf -oL {shlex.quote(programs.testpmd())} {shlex.join(eal)} "
            f"--file-prefix={prefix} {vdevs} -- {shlex.join(application)}"
        )
        inside = [programs.ip(), "netns", "exec", netns] if netns else []
        if mounts:
            inside += ["unshare", "--mount", "--propagation", "private"]
            binds = [shlex.join(["mount", "--bind", str(there), str(seen)]) + " && " for seen, there in mounts.items()]
            script = "".join(binds) + script
        inside += before
        runtime = folder
        if user:
            inside += user.become()
            runtime = folder / prefix
            runtime.mkdir(mode=0o700)
            os.chown(runtime, user.uid, user.gid)
        # Into a pipe testpmd prints 4 KiB at a time, four rounds of figures, hence stdbuf.
        # DPDK makes a folder per process below RUNTIME_DIRECTORY, else in /var/run/dpdk, where it would stay.
        self._command = ["env", f"RUNTIME_DIRECTORY={runtime}", *inside, "/bin/sh", "-c", script]
        self._log = folder / f"{prefix}.log"
        self._child: Child | None = None
        self._screen = Screen()
        self._changed = threading.Condition()
        self._lines: deque[str] = deque(maxlen=200)
        self._ended = False
        self._reader = threading.Thread(target=self._read, name=prefix, daemon=True)

    def __enter__(self) -> Self:
        self._child = Child(self._command, log=self._log, pipe=True, name="dpdk-testpmd")
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def child(self) -> Child:
        """The process.

        Raises:
            LabError: it was not started.
        """
        if self._child is None:
            raise LabError("dpdk-testpmd was not started: use it in a with block")
        return self._child

    def stop(self) -> int:
        """End it by SIGINT, the way a person does, and return its exit code; does nothing when it has ended."""
        code = self.child.stop(signal.SIGINT)
        if self._reader.ident is not None:
            self._reader.join()
        return code

    def statistics(self, port: int = 0) -> Statistics:
        """What it last said of a port; zeros before the first second."""
        with self._changed:
            return self._screen.ports.get(port, Statistics())

    def wait_for(self, holds: Callable[[Screen], bool], timeout: float, what: str) -> Screen:
        """Wait until `holds` is true of its screen.

        Raises:
            LabError: it was not after `timeout` seconds, or testpmd ended; the message says `what` and has its last lines.
        """
        with self._changed:
            self._changed.wait_for(lambda: holds(self._screen) or self._ended, timeout)
            if holds(self._screen):
                return self._screen
            came = "testpmd ended" if self._ended else f"not within {timeout:g} s"
            raise LabError(f"{what}: {came}; its last lines:\n{self.last_words()}")

    def wait_for_ports(self, timeout: float = 20.0) -> None:
        """Wait until it forwards, that is until it has printed figures for the first time."""
        self.wait_for(lambda screen: screen.rounds > 0, timeout, "testpmd forwards")

    def wait_for_rx(self, timeout: float = 20.0, *, port: int = 0, packets: int = 1) -> Statistics:
        """Wait until a port has received at least `packets` packets; returns its statistics then."""
        screen = self.wait_for(
            lambda screen: port in screen.ports and screen.ports[port].rx_packets >= packets,
            timeout,
            f"port {port} receives {packets} packets",
        )
        return screen.ports[port]

    def last_words(self) -> str:
        """The last lines of its log (DPDK's messages) and of its screen."""
        return "\n".join([self.child.last_words(), *list(self._lines)[-15:]])

    def _read(self) -> None:
        """The reader thread: every line of the screen until testpmd ends."""
        with self.child.stdout as stdout:
            for raw in stdout:
                line = raw.decode(errors="replace").rstrip()
                with self._changed:
                    self._lines.append(line)
                    if self._screen.feed(line):
                        self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
