"""A node's machine inside this one: a network and a mount namespace of its own, with the paths that a node has.

Law: nothing of the host is changed.  What a node keeps in /run, /etc/cni, /opt/cni, /var/lib and /var/log is in one folder,
bound to those places in the machine alone; mounts are shared among themselves there, as kubelet and containerd want it, and
with nobody else; addresses, routes and forwarding are the namespace's.  What reaches over the wall is one pair of devices, by
which the host talks to the API server, and one group of control groups.  Both go with the block.
"""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from podvif.lab import programs
from podvif.lab.process import Child, LabError, output, wait_any
from podvif.lab.sandbox import Sandbox, sandbox

PLACES = {
    "/run": "run",
    "/etc/cni": "etc-cni",
    "/opt/cni": "opt-cni",
    "/var/lib/cni": "cni",
    "/var/lib/containerd": "containerd",
    "/var/lib/kubelet": "kubelet",
    "/var/lib/podvif": "podvif",
    "/var/log/pods": "logs/pods",
    "/var/log/containers": "logs/containers",
}
"""Places of the machine and what they are below its folder; /var/run is /run, as everywhere."""

_LAYERED = ("/etc", "/opt", "/var/lib", "/var/log")
"""Where places are made: these show the host's files, and what is made there stays in the machine."""

_CGROUPS = Path("/sys/fs/cgroup")
_GONE = 20.0
_LOOK_AGAIN = 0.02
"""Seconds between two looks at a control group that is about to be empty; the first hierarchy tells nobody."""


class Machine:
    """The machine; it stands inside the `with` block.

    Args:
        folder: for everything; belongs to the caller, and stays.  Keep its path short: sockets below it have 107 bytes.

    Attributes:
        folder: as given.
        box: its network namespace, which has a name.
        address: its own, reached from the host too.
        cgroup: the name of its control group, below the root of each hierarchy.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = secrets.token_hex(3)
        # 198.18.0.0/15 is for tests between two networks (RFC 2544): no host has a route there.
        network = f"198.18.{secrets.randbelow(256)}.{secrets.randbelow(64) * 4}"
        base, last = network.rsplit(".", 1)
        self.gateway, self.address = f"{base}.{int(last) + 1}", f"{base}.{int(last) + 2}"
        self.device = f"pvlab-{name}"
        self.cgroup = f"podvif-lab-{name}"
        self._holder: Child | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for place in PLACES.values():
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        try:
            self.box: Sandbox = self._stack.enter_context(sandbox())
            self._connect()
            self._stack.callback(self._remove_groups)
            self._make_groups()
            self._hold()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def inside(self) -> list[str]:
        """What to put before a command so that it runs on the machine; it becomes the command, and so keeps its process id."""
        if self._holder is None:
            raise LabError("the machine does not stand: use it in a with block")
        return [programs.nsenter(), f"--target={self._holder.pid}", "--mount", "--net", "--"]

    def path(self, place: str) -> Path:
        """Where something that the machine has at `place` is for us.

        Raises:
            LabError: the place is none of `PLACES`, and so the host's.
        """
        inner = Path(place.replace("/var/run", "/run", 1))
        for at, below in PLACES.items():
            if inner.is_relative_to(at):
                return self.folder / below / inner.relative_to(at)
        raise LabError(f"{place} of the machine is the host's own: write to one of {', '.join(PLACES)}")

    def run(self, *command: str, timeout: float = 60.0, env: Mapping[str, str] | None = None) -> str:
        """Run a short command on the machine and return what it printed.

        Raises:
            LabError: it failed or took longer than `timeout` seconds.
        """
        return output([*self.inside, *command], timeout=timeout, env=env)

    def grouped(self, command: Sequence[str]) -> list[str]:
        """A command that runs on the machine and, with all that it starts, in its control group."""
        join = "".join(f"echo $$ >{shlex.quote(str(group / 'cgroup.procs'))} && " for group in self._daemons())
        return [*self.inside, "/bin/sh", "-c", f'{join}exec "$@"', "sh", *command]

    def lose_power(self) -> None:
        """Be as after a power failure, before anything is started again: disks are as they were, memory is empty.

        What is in its control group is killed, without a chance to say goodbye; who runs outside of it, as Open vSwitch does, has
        been by then.  Gone are the control groups of containers, mounts, network namespaces and devices, and all that was in /run.
        The control plane goes on, and the wire to it: it is another machine's.
        """
        self._end_all()
        self._remove_groups()
        self._make_groups()
        for place in PLACES:
            self.run("umount", "--lazy", place)  # with all that was mounted below
        run = self.folder / PLACES["/run"]
        shutil.rmtree(run)
        (run / "lock").mkdir(parents=True)  # what else a node needs there is made by whoever needs it
        for place, below in PLACES.items():
            self.run("mount", "--bind", str(self.folder / below), place)
            # Else what is mounted there would be mounted in the folder too: a bind mount of a shared one is its peer.
            self.run("mount", "--make-private", place)
            self.run("mount", "--make-shared", place)
        for device in json.loads(self.run("ip", "-json", "link", "show")):
            if device["ifname"] not in {"lo", "eth0"}:
                with contextlib.suppress(LabError):  # it went with another
                    self.run("ip", "link", "delete", device["ifname"])

    # -- how it is made ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        ip, name = programs.ip(), self.box.name
        peer = ["peer", "name", "eth0", "netns", name]
        output([ip, "link", "add", self.device, "type", "veth", *peer])
        # The pair goes with the namespace, but only when the last process in there has ended.
        self._stack.callback(_quietly, [ip, "link", "delete", self.device])
        output([ip, "address", "add", f"{self.gateway}/30", "dev", self.device])
        output([ip, "link", "set", self.device, "up"])
        output([ip, "-n", name, "address", "add", f"{self.address}/30", "dev", "eth0"])
        output([ip, "-n", name, "link", "set", "eth0", "up"])
        output([ip, "-n", name, "route", "add", "default", "via", self.gateway])

    def _hold(self) -> None:
        """Make the mounts, and somebody whose mounts they are."""
        folder = shlex.quote(str(self.folder))
        script = [
            "set -e",
            # /sys has to be the namespace's; what is mounted in it comes along.
            f"mkdir -p {folder}/sys && mount --rbind /sys/fs/cgroup {folder}/sys",
            f"mount -t sysfs sysfs /sys && mount --rbind {folder}/sys /sys/fs/cgroup && umount -R {folder}/sys",
        ]
        for place in _LAYERED:
            layer = f"{folder}/layers{place}"
            options = f"lowerdir={place},upperdir={layer}/upper,workdir={layer}/work"
            script += [f"mkdir -p {layer}/upper {layer}/work", f"mount -t overlay -o {options} overlay {place}"]
        for place, below in PLACES.items():
            script += [f"mkdir -p {place}", f"mount --bind {folder}/{below} {place}"]
        script += [
            "mkdir -p /run/netns /run/lock /run/vhostuser /run/openvswitch /run/podvif",
            "echo 1 >/proc/sys/net/ipv4/ip_forward",
            "mount --make-rshared /",
            f"touch {folder}/stands",
            "exec sleep infinity",
        ]
        command = [programs.nsenter(), f"--net={self.box.netns}", "--", programs.unshare(), "--mount", "--"]
        holder = Child([*command, "/bin/sh", "-c", "\n".join(script)], log=self.folder / "machine.log", name="machine")
        self._stack.callback(holder.kill)
        self._stack.callback(self._end_all)
        self._holder = holder
        deadline = time.monotonic() + _GONE
        while not (self.folder / "stands").exists():
            if wait_any([holder.pidfd], _LOOK_AGAIN):
                raise holder.died()
            if time.monotonic() > deadline:
                raise LabError(f"the machine's mounts were not made within {_GONE:g} s")

    def _hierarchies(self) -> list[Path]:
        """The roots of the control group hierarchies: one each for the controllers, or a single one (version 2)."""
        if (_CGROUPS / "cgroup.controllers").exists():
            return [_CGROUPS]
        return [
            each for each in sorted(_CGROUPS.iterdir()) if (each / "cgroup.procs").exists() and not each.is_symlink()
        ]

    def _daemons(self) -> list[Path]:
        return [root / self.cgroup / "daemons" for root in self._hierarchies()]

    def _make_groups(self) -> None:
        for root in self._hierarchies():
            group = root / self.cgroup
            (group / "daemons").mkdir(parents=True)
            if (root / "cgroup.controllers").exists():
                wanted = " ".join(f"+{name}" for name in (group / "cgroup.controllers").read_text().split())
                (group / "cgroup.subtree_control").write_text(wanted)
            for name in ("cpuset.cpus", "cpuset.mems"):  # a new group of version 1 has none, and takes no process
                if (root / name).exists():
                    for each in (group, group / "daemons"):
                        (each / name).write_text((root / name).read_text())

    # -- how it ends ---------------------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """Kill everything in the control group: what containers and shims are left when nobody cares for them."""
        deadline = time.monotonic() + _GONE
        while pids := self._processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise LabError(f"processes {sorted(pids)} of the control group {self.cgroup} do not end")
            wait_any([], _LOOK_AGAIN)

    def _processes(self) -> set[int]:
        found: set[int] = set()
        for root in self._hierarchies():
            for folder, _, _ in os.walk(root / self.cgroup):
                with contextlib.suppress(OSError):  # the group went while we looked
                    found.update(int(pid) for pid in Path(folder, "cgroup.procs").read_text().split())
        return found - {0}

    def _remove_groups(self) -> None:
        deadline = time.monotonic() + _GONE
        while left := [root / self.cgroup for root in self._hierarchies() if (root / self.cgroup).exists()]:
            for group in left:
                for folder, _, _ in os.walk(group, topdown=False):
                    with contextlib.suppress(OSError):  # busy for a moment yet
                        Path(folder).rmdir()
            if time.monotonic() > deadline:
                raise LabError(f"control groups are still busy: {', '.join(map(str, left))}")
            wait_any([], _LOOK_AGAIN)


def _quietly(command: Sequence[str]) -> None:
    subprocess.run(command, capture_output=True, check=False)
