"""The ways to make a vhost-user port and to take it away, each timed the same way.

Law: every contender makes a port of a new name on the same bridge and is done when it can say so; a process is timed from its
start to its end, by the same function whoever it is.  Names, container ids and port ids are never used twice.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Protocol

from bench.raw import port
from bench.stage import BRIDGE, Stage
from podvif.lab import programs
from podvif.lab.cni import Answer, call
from podvif.lab.process import output

PODVIF = "podvif"
IPAM = "podvif with host-local"
SETTLED = "podvif, until vswitchd has let go"
FLOOR = "floor: noop + os_vif"
NOOP = "noop"
OS_VIF = "os_vif alone"
VSCTL = "ovs-vsctl"
RAW = "raw OVSDB"

Timings = Mapping[str, float]
"""Seconds by name; one act may be told in parts."""


class Contender(Protocol):
    """One way.  `add` and `remove` take turns, each as the only one that runs."""

    def processes(self) -> list[int]:
        """Those of daemon and floor that it needs."""

    def add(self) -> Timings:
        """Make a port; it is in effect when this returns."""

    def remove(self) -> Timings:
        """Take it away."""


def shim(stage: Stage, verb: str, config: Mapping[str, object], container_id: str) -> Answer:
    """One call of the real shim, as a runtime makes it.

    Raises:
        LabError: it failed; the message has its words.
    """
    answer = call(
        verb,
        config,
        container_id=container_id,
        netns=stage.box.netns,
        ifname="eth0",
        cni_path=programs.plugin_path(),
        executable=programs.shim(),
    )
    answer.checked()
    return answer


def noop(stage: Stage, verb: str, config: Mapping[str, object]) -> float:
    """Seconds of the do-nothing program, called with all that the shim gets."""
    answer = call(
        verb,
        config,
        container_id=secrets.token_hex(32),
        netns=stage.box.netns,
        ifname="eth0",
        cni_path=programs.plugin_path(),
        executable=stage.noop,
    )
    answer.checked()
    return answer.seconds


class Podvif:
    """The real shim and the real daemon."""

    def __init__(self, stage: Stage, mode: str, *, ipam: bool = False) -> None:
        self._stage = stage
        self._name = IPAM if ipam else PODVIF
        self._config = stage.config(mode, **({"ipam": stage.ipam()} if ipam else {}))
        self._container_id = ""

    def processes(self) -> list[int]:
        """The daemon."""
        return [self._stage.daemon.pid]

    def add(self) -> Timings:
        """ADD of a new container."""
        self._container_id = secrets.token_hex(32)
        return {self._name: shim(self._stage, "ADD", self._config, self._container_id).seconds}

    def remove(self) -> Timings:
        """DEL; it answers when the port is out of OVSDB, so the time until vswitchd has let go of it is told as well."""
        began = time.monotonic()
        seconds = shim(self._stage, "DEL", self._config, self._container_id).seconds
        self._stage.raw.settle()
        settled = time.monotonic() - began
        return {self._name: seconds} | ({} if self._name == IPAM else {SETTLED: settled})


class Least:
    """The floor: a process that does nothing, and os-vif in another that has everything open."""

    def __init__(self, stage: Stage, mode: str) -> None:
        self._stage = stage
        self._mode = mode
        self._config = stage.config(mode)
        self._port = stage.floor.port(mode)

    def processes(self) -> list[int]:
        """The worker."""
        return [self._stage.floor.pid]

    def add(self) -> Timings:
        """`os_vif.plug`."""
        process = noop(self._stage, "ADD", self._config)
        self._port = self._stage.floor.port(self._mode)
        return _sum(process, self._stage.floor.plug(self._port)[0])

    def remove(self) -> Timings:
        """`os_vif.unplug`; os-vif waits until vswitchd has let go."""
        process = noop(self._stage, "DEL", self._config)
        return _sum(process, self._stage.floor.unplug(self._port)[0])


def _sum(process: float, os_vif: float) -> Timings:
    return {FLOOR: process + os_vif, NOOP: process, OS_VIF: os_vif}


class Vsctl:
    """A person, or a program that runs ovs-vsctl; it waits for vswitchd."""

    def __init__(self, stage: Stage, mode: str) -> None:
        self._stage = stage
        self._mode = mode
        self._name = ""

    def processes(self) -> list[int]:
        """None."""
        return []

    def add(self) -> Timings:
        """`ovs-vsctl add-port`."""
        made = port(f"vhu{secrets.token_hex(5)}", self._mode, self._stage.folder)
        self._name = made.name
        options = [f"options:{key}={value}" for key, value in made.options.items()]
        return self._timed(
            "add-port", BRIDGE, made.name, "--", "set", "Interface", made.name, f"type={made.type}", *options
        )

    def remove(self) -> Timings:
        """`ovs-vsctl del-port`."""
        return self._timed("del-port", BRIDGE, self._name)

    def _timed(self, *arguments: str) -> Timings:
        command = [programs.ovs_vsctl(), f"--db={self._stage.ovs.ovsdb}", "--timeout=30", *arguments]
        began = time.monotonic()
        output(command)
        return {VSCTL: time.monotonic() - began}


class Raw:
    """The physical limit."""

    def __init__(self, stage: Stage, mode: str) -> None:
        self._stage = stage
        self._mode = mode
        self._name = ""

    def processes(self) -> list[int]:
        """None."""
        return []

    def add(self) -> Timings:
        """Commit the rows and wait for cur_cfg."""
        made = port(f"vhu{secrets.token_hex(5)}", self._mode, self._stage.folder)
        self._name = made.name
        began = time.monotonic()
        self._stage.raw.add(made)
        return {RAW: time.monotonic() - began}

    def remove(self) -> Timings:
        """Commit the removal and wait for cur_cfg."""
        began = time.monotonic()
        self._stage.raw.remove(self._name)
        return {RAW: time.monotonic() - began}
