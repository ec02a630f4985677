"""The world that the walk walks in: a real switch, the real daemon, pods, light applications, a VM's ports, and small disks.

Law: it does what it is told and says what there is; which of that is wrong is for `tests.chaos.quiet` to say.  Whatever was
made is gone when the block ends: processes by their pid, namespaces, mounts, files.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podvif import names
from podvif.lab import programs
from podvif.lab.daemon import NodeDaemon
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import output
from podvif.lab.sandbox import NETNS_DIR, PREFIX, Sandbox
from podvif.lab.tmpfs import tmpfs
from podvif.model import Attachment
from tests.chaos.applications import Applications
from tests.chaos.model import IFNAMES, Call, FaultError, Foreign, Interface, Pod, State
from tests.chaos.watch import Watch

BRIDGE = "br-dpdk"
PODS = 7
PATIENCE = 25.0
ANSWER = 60.0
"""Seconds after which a call of the plugin counts as hanging; add_timeout is far below."""


@dataclass(frozen=True)
class Profile:
    """How the daemon is set up, and what may then be asked of it.

    Attributes:
        name: of it.
        resync_interval, sweep_grace: as in kuryr.conf, seconds.
        sweeps: rounds come so often that what has no owner has to go by itself.
    """

    name: str
    resync_interval: float
    sweep_grace: float
    sweeps: bool


ROUNDS = Profile("rounds", 0.5, 0.5, sweeps=True)
"""Quick rounds: the sweep is at work all the time, beside everything else."""

EVENTS = Profile("events", 3600, 3600, sweeps=False)
"""No rounds at all: what events do not bring about does not come about."""


class World:
    """Everything there is; use `world()`."""

    def __init__(self, folder: Path, profile: Profile, patience: float = PATIENCE) -> None:
        """Nothing runs yet; `patience` is how many seconds of quiet everything has in order to come right."""
        self.folder = folder
        self.patience = patience
        self.profile = profile
        self.ovs = PrivateOvs(folder / "ovs", other_config={"vhost-sock-dir": "run/ovs"})
        self.disks = {"run": folder / "ovs" / "run", "state": folder / "node" / "state"}
        self.sockets = self.disks["run"] / "ovs"
        self.pods_folder = self.disks["run"] / "pods"
        self.leases = folder / "leases"
        self.daemon = NodeDaemon(
            folder / "node",
            ovsdb=self.ovs.ovsdb,
            mount_point=self.pods_folder,
            ovs_vhu_path=self.sockets,
            more={
                "node": {
                    "add_timeout": "5",
                    "resync_interval": f"{profile.resync_interval:g}",
                    "sweep_grace": f"{profile.sweep_grace:g}",
                }
            },
        )
        self.applications = Applications(folder)
        self.up: set[str] = set()
        self.full: set[str] = set()
        self.pods = [
            Pod([Interface(pod * len(IFNAMES) + index, name) for index, name in enumerate(IFNAMES)])
            for pod in range(PODS)
        ]
        self.foreign: list[Foreign] = []
        self.ghosts: list[tuple[Sandbox, Interface]] = []
        self.alien: set[str] = set()
        self.boxes: set[str] = set()
        self.watch: Watch | None = None
        self.proofs = 0
        self.events = 0

    # -- beginning and end ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator["World"]:
        """All of it, for the length of a block."""
        with contextlib.ExitStack() as parts:
            for name, size in (("run", "1m"), ("state", "512k")):
                parts.enter_context(tmpfs(self.disks[name], size))
            for each in (self.sockets, self.pods_folder, self.daemon.journal):
                each.mkdir(parents=True)
            parts.callback(self._remove_boxes)
            parts.enter_context(self.applications.serving())
            parts.enter_context(self.ovs)
            self._make_foreign()
            self.start_watch()
            parts.callback(self.stop_watch)
            parts.enter_context(self.daemon)
            parts.callback(self.kill_calls)
            self.up = {"daemon", "vswitchd", "ovsdb"}
            yield self

    def start_watch(self) -> None:
        """Have the watcher watch the directories as they are now."""
        self.watch = Watch(self.folder / "watcher.log", [self.pods_folder, self.sockets, self.daemon.journal])

    def stop_watch(self) -> None:
        """End the watcher."""
        if self.watch is not None:
            self.events += self.watch.events
            self.watch.stop()
            self.watch = None

    def _make_foreign(self) -> None:
        self.ovs.vsctl("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev")
        number = PODS * len(IFNAMES)
        for directory, living in ((self.pods_folder, True), (self.pods_folder, False), (self.sockets, True)):
            port_id = str(uuid.uuid4())
            port = names.vif_name(port_id)
            path = directory / port
            self.foreign.append(Foreign(port, str(path), number if living else None))
            self.ovs.vsctl(
                "add-port", BRIDGE, port, "--", "set", "Interface", port, "type=dpdkvhostuserclient",
                f"options:vhost-server-path={path}", f"external_ids:iface-id={port_id}", "external_ids:vm-uuid=v",
            )  # fmt: skip
            number += 1
        self.boot_foreign()

    def boot_foreign(self) -> None:
        """Start the VMs that run, and lay down the socket of the one that does not."""
        for vm in self.foreign:
            if vm.number is not None:
                self.applications.start(vm.number, "server", Path("/proc/self/ns/net"), Path(vm.path))
            else:
                leave_dead_socket(Path(vm.path))

    def _remove_boxes(self) -> None:
        for name in sorted(self.boxes):
            if (NETNS_DIR / name).exists():
                output([programs.ip(), "netns", "delete", name])

    # -- sandboxes -----------------------------------------------------------------------------------------------------

    def make_box(self) -> Sandbox:
        """A sandbox."""
        box = Sandbox(PREFIX + secrets.token_hex(8), secrets.token_hex(32))
        self.boxes.add(box.name)
        output([programs.ip(), "netns", "add", box.name])
        return box

    def remove_box(self, box: Sandbox) -> None:
        """The sandbox's namespace goes, its applications with it."""
        output([programs.ip(), "netns", "delete", box.name])
        self.boxes.discard(box.name)

    # -- the plugin ----------------------------------------------------------------------------------------------------

    def network(self, mode: str, *, ipam: bool) -> dict[str, Any]:
        """A network configuration."""
        config: dict[str, Any] = {
            "cniVersion": "1.1.0",
            "name": "chaos",
            "type": "podvif-cni",
            "bridge": BRIDGE,
            "vhostuserMode": mode,
            "daemonSocket": str(self.daemon.socket),
        }
        if ipam:
            config["ipam"] = {
                "type": "host-local",
                "ranges": [[{"subnet": "10.66.0.0/16"}]],
                "dataDir": str(self.leases),
            }
        return config

    def shim(self, verb: str, config: dict[str, Any], pod: Pod | None, ifname: str) -> "subprocess.Popen[bytes]":
        """The plugin, running."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND": verb, "CNI_PATH": programs.plugin_path()}
        if pod is not None:
            assert pod.box is not None
            env |= {"CNI_CONTAINERID": pod.box.container_id, "CNI_NETNS": str(pod.box.netns), "CNI_IFNAME": ifname}
        process = subprocess.Popen(
            [programs.shim()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        return process

    def begin(self, verb: str, pod: Pod, interface: Interface) -> Call:
        """Begin ADD or DEL of an interface."""
        process = self.shim(verb, interface.config, pod, interface.ifname)
        call = Call(verb, process, first=interface.state is State.ABSENT, crossed=bool(interface.calls))
        for other in interface.calls:
            other.crossed = True
        interface.calls.append(call)
        return call

    def conclude(self, interface: Interface, call: Call) -> None:
        """Wait for a call's end, and learn from its answer.

        Raises:
            FaultError: it hangs, or its answer is one that no weather excuses.
        """
        code, document, text = self.answer(call.process, f"{call.verb} of {interface.ifname}")
        interface.calls.remove(call)
        lost = bool(code) and "podvif daemon at" in text
        if call.crossed or lost:
            if call.first or call.verb == "DEL" or call.crossed:
                interface.state = State.UNSURE
        elif call.verb == "DEL":
            interface.state = State.UNSURE if code else State.ABSENT
        elif call.first:
            interface.state = State.ABSENT if code else State.PRESENT
            interface.result = document
        elif not code and document != interface.result:
            raise FaultError(f"a repeated ADD gave {text}, not {json.dumps(interface.result)}")

    @staticmethod
    def answer(process: "subprocess.Popen[bytes]", what: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, document and text of a call, once it has ended.

        Raises:
            FaultError: it hangs, or says that podvif itself is wrong.
        """
        assert process.stdout is not None
        try:
            code = process.wait(ANSWER)
        except subprocess.TimeoutExpired:
            _end(process)
            raise FaultError(f"{what}: no answer within {ANSWER:g} s") from None
        text = process.stdout.read().decode()
        process.stdout.close()
        document = json.loads(text) if text else {}
        if code and document.get("code") not in {4, 5, 7, 11, 50, 3}:
            raise FaultError(f"{what} failed in a way that nothing excuses: {code} {text}")
        return code, document, text

    def join(self) -> None:
        """Wait for every call."""
        for pod in self.pods:
            for interface in pod.interfaces:
                for call in list(interface.calls):
                    self.conclude(interface, call)

    def kill_calls(self) -> None:
        """Kill every call that runs: whoever asked is gone."""
        for pod in self.pods:
            for interface in pod.interfaces:
                for call in interface.calls:
                    _end(call.process)
                interface.calls.clear()

    def valid(self) -> list[tuple[Pod, Interface]]:
        """What a runtime would list at GC."""
        return [
            (pod, interface)
            for pod in self.pods
            if pod.box is not None
            for interface in pod.interfaces
            if interface.state is not State.ABSENT or interface.calls
        ]

    # -- what happens --------------------------------------------------------------------------------------------------

    def start(self, part: str) -> None:
        """Start daemon, vswitchd or ovsdb."""
        if part == "daemon":
            self.daemon.start()
        elif part == "vswitchd":
            self.ovs.start_vswitchd()
        else:
            self.ovs.start_ovsdb()
        self.up.add(part)

    def end(self, part: str, *, nicely: bool) -> None:
        """End daemon, vswitchd or ovsdb, by its own way or by SIGKILL."""
        ends = {
            "daemon": (self.daemon.stop, self.daemon.kill),
            "vswitchd": (self.ovs.stop_vswitchd, self.ovs.kill_vswitchd),
            "ovsdb": (self.ovs.stop_ovsdb, self.ovs.kill_ovsdb),
        }
        ends[part][0 if nicely else 1]()
        self.up.discard(part)

    def fill(self, disk: str) -> None:
        """Leave no byte on a disk."""
        found = os.statvfs(self.disks[disk])
        with (self.disks[disk] / "fill").open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize)
        self.full.add(disk)

    def free(self, disk: str) -> None:
        """Make room again."""
        (self.disks[disk] / "fill").unlink(missing_ok=True)
        self.full.discard(disk)

    def reboot(self) -> None:
        """Every process is killed and /run is empty; the database and the daemon's state stand; nothing is started."""
        self.kill_calls()
        if "daemon" in self.up:
            self.daemon.kill()
        self.stop_watch()
        self.applications.kill_all()
        if "vswitchd" in self.up:
            self.ovs.kill_vswitchd()
        if "ovsdb" in self.up:
            self.ovs.kill_ovsdb()
        self.up.clear()
        self.free("run")
        for path in sorted(self.disks["run"].rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for path in self.folder.glob("ovs/*"):
            if path.suffix in {".ctl", ".pid", ".sock"}:
                path.unlink()
        self.alien.clear()
        for pod in self.pods:
            if pod.box is not None:
                self.ghosts += [(pod.box, each) for each in pod.interfaces if each.state is not State.ABSENT]
                self.remove_box(pod.box)
            self.empty(pod)
        # What the host's own units do before anybody serves: directories, and VMs.
        for each in (self.sockets, self.pods_folder):
            each.mkdir()
        self.start_watch()
        self.boot_foreign()

    def empty(self, pod: Pod) -> None:
        """The pod has no sandbox any more."""
        pod.box = None
        pod.interfaces = [Interface(each.number, each.ifname) for each in pod.interfaces]

    def vanish(self, pod: Pod) -> None:
        """The sandbox goes with everything in it, and nobody says DEL."""
        assert pod.box is not None
        for interface in pod.interfaces:
            self.applications.kill(interface.number)
            if interface.state is not State.ABSENT:
                self.ghosts.append((pod.box, interface))
        self.remove_box(pod.box)
        self.empty(pod)

    def orphan_port(self) -> None:
        """An OVS port with our marks that is in no journal."""
        attachment = Attachment(secrets.token_hex(32), "eth0")
        port_id = names.port_id(attachment)
        port = names.vif_name(port_id)
        marks = [f"external_ids:{key}={value}" for key, value in names.marks(attachment, "").items()]
        self.ovs.vsctl(
            "--no-wait", "add-port", BRIDGE, port, "--", "set", "Interface", port, "type=dpdkvhostuserclient",
            f"options:vhost-server-path={self.pods_folder / port}", f"external_ids:iface-id={port_id}", *marks,
        )  # fmt: skip

    def garbage(self, kind: str) -> None:
        """Something in the pods' directory that looks as ours and is nobody's, or that is the pods' own (alien)."""
        container = secrets.token_hex(32)
        name = {
            "json": f"{container}.json",
            "env": f"{container}.env",
            "interface": f"{container}-eth0",
            "temporary": f".{container}.json.new",
            "socket": names.vif_name(str(uuid.uuid4())),
            "alien": f"notes-{container[:8]}.txt",
        }[kind]
        path = self.pods_folder / name
        if kind == "socket":
            leave_dead_socket(path)
            return
        temporary = path.with_name(".chaos")
        temporary.write_text("#chaos\n" if "run" not in self.full else "")
        if "run" in self.full:
            temporary.unlink()
            return
        temporary.rename(path)
        if kind == "alien":
            self.alien.add(name)

    def spoil(self, path: Path) -> None:
        """A pod writes over one of its files, in place."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        except OSError:
            return
        try:
            os.write(descriptor, b"#chaos\n")
        except OSError:
            pass  # the disk is full: the file is empty now, which is as bad
        finally:
            os.close(descriptor)

    # -- what there is -------------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Fail if somebody has ended whom nobody has ended.

        Raises:
            FaultError: with its last words.
        """
        if "daemon" in self.up and not self.daemon.child.alive():
            raise FaultError(f"the daemon has ended by itself:\n{self.daemon.child.last_words()}")
        for part in self.up & {"vswitchd", "ovsdb"}:
            child = self.ovs._vswitchd if part == "vswitchd" else self.ovs._ovsdb
            if child is not None and not child.alive():
                raise FaultError(f"{part} has ended by itself:\n{self.ovs.log_tail()}")

    def way_is_clear(self) -> bool:
        """Whether vswitchd may be started: a daemon has to be there where sockets of the last one lie in its way.

        Else DPDK 22.11 closes descriptors twice when it fails to bind, and other ports of that vswitchd are damaged until it
        is restarted, which nobody outside of it can mend.
        """
        foreign = {Path(vm.path) for vm in self.foreign}
        return "daemon" in self.up or set(self.sockets.glob("vhu*")) <= foreign

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the daemon's log."""
        return "\n".join(self.daemon.log.read_text(errors="replace").splitlines()[-lines:])


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a call of the plugin."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def leave_dead_socket(path: Path) -> None:
    """Leave a socket's file as an application does that was killed: nobody is bound to it."""
    bound = path.with_name(".chaos")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bound))
        bound.rename(path)
