"""A node as a test sees it: its daemon, its switch, its folders, and the question of what is left in them.

Law: the plugin is driven as a runtime drives it, through the real shim.  What a test made is gone when the test ends, and
that is looked at with the machine's own tools, not believed.  Nothing here sleeps: what has to come is waited for by its
event, and a number of seconds is only the bound after which it counts as failed.
"""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncinotify import Inotify, Mask

from podvif import names
from podvif.lab import leftovers, programs
from podvif.lab.cni import Answer, call
from podvif.lab.daemon import NodeDaemon, Sections
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import LabError, output
from podvif.lab.sandbox import Sandbox
from podvif.model import Attachment

BRIDGE = "br-dpdk"
MODES = ("server", "client")
OVS_TYPE = {"server": "dpdkvhostuserclient", "client": "dpdkvhostuser"}
"""What OVS calls its own end, by the application's mode."""

SOON = 30.0
"""Seconds after which something that should come by itself counts as not coming."""

CRASHING = Path(__file__).with_name("crashing_node.py")

Config = dict[str, Any]


@dataclass(frozen=True)
class Attached:
    """An interface that ADD has made.

    Attributes:
        box: its sandbox.
        ifname: its name in the sandbox.
        config: the network configuration of its ADD.
        result: ADD's answer.
        port: the OVS port's name.
        socket: where the application finds or makes its socket.
    """

    box: Sandbox
    ifname: str
    config: Config
    result: dict[str, Any]
    port: str
    socket: Path

    @property
    def checking(self) -> Config:
        """The configuration that CHECK gets: with the result of ADD."""
        return {**self.config, "prevResult": self.result}

    @property
    def mac(self) -> str:
        """The application's MAC, as the answer has it."""
        return str(self.result["interfaces"][-1]["mac"])

    @property
    def address(self) -> str:
        """The address, without its prefix length."""
        return str(self.result["ips"][-1]["address"]).partition("/")[0]


class Node:
    """A daemon, the switch it serves, and every place where its attachments may leave something.

    Args:
        ovs: the switch.
        folder: for everything of this node; short, since sockets lie in it.
        mount_point: where pods find their files; a folder in `folder` by default.
        ovsdb: where the daemon looks for OVSDB; the switch's own by default.
        more: more of kuryr.conf, option by section.
        netns: name of the network namespace that the daemon runs in; that of the switch by default, if it has one.
    """

    def __init__(
        self,
        ovs: PrivateOvs,
        folder: Path,
        *,
        mount_point: Path | None = None,
        ovsdb: str = "",
        more: Sections | None = None,
        netns: str | None = None,
    ) -> None:
        self.ovs = ovs
        self.folder = folder
        self.mount_point = mount_point or folder / "pods"
        self.leases = folder / "leases"
        self._ovsdb = ovsdb or ovs.ovsdb
        self._more = more or {}
        self._netns = ovs.netns if netns is None else netns
        self.daemon = self._daemon()

    def _daemon(self, program: Sequence[str] = (), env: Mapping[str, str] | None = None) -> NodeDaemon:
        return NodeDaemon(
            self.folder / "node",
            ovsdb=self._ovsdb,
            mount_point=self.mount_point,
            ovs_vhu_path=self.ovs.rundir,
            more=self._more,
            env=env,
            program=program,
            netns=self._netns,
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[NodeDaemon]:
        """The daemon for the length of a block; a test may kill, stop and start it inside."""
        self.daemon = self._daemon()
        with self.daemon:
            yield self.daemon

    @contextlib.contextmanager
    def running_as(self, program: Path, *arguments: str) -> Iterator[NodeDaemon]:
        """A program in the daemon's place for the length of a block, which is the daemon with something changed."""
        self.daemon = self._daemon([sys.executable, str(program), *arguments])
        with self.daemon:
            yield self.daemon

    @contextlib.contextmanager
    def crashing_after(self, step: str) -> Iterator[NodeDaemon]:
        """The daemon that is killed right after the named step, once that is done; it may end before the block does."""
        self.daemon = self._daemon([sys.executable, str(CRASHING)], {"PODVIF_CRASH_AFTER": step})
        with self.daemon:
            yield self.daemon

    # -- the plugin ----------------------------------------------------------------------------------------------------

    def network(self, mode: str = "server", /, **keys: Any) -> Config:
        """A network configuration with host-local; a key that is None is left out."""
        config = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "podvif-cni",
            "bridge": BRIDGE,
            "vhostuserMode": mode,
            "daemonSocket": str(self.daemon.socket),
            "ipam": self.host_local(),
            **keys,
        }
        return {key: value for key, value in config.items() if value is not None}

    def host_local(self, subnet: str = "10.9.0.0/16") -> Config:
        """The `ipam` part for host-local, which keeps its leases in this node's folder."""
        return {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": str(self.leases)}

    def cni(
        self,
        command: str,
        config: Mapping[str, Any] | bytes,
        box: Sandbox | None = None,
        ifname: str = "eth0",
        **given: Any,
    ) -> Answer:
        """One call of the shim for an interface of a sandbox; `given` wins over what that says, "" leaves a variable out."""
        about = {"container_id": box.container_id, "netns": box.netns, "ifname": ifname} if box else {}
        return call(command, config, **{"cni_path": programs.plugin_path(), **about, **given})

    def add(self, config: Config, box: Sandbox, ifname: str = "eth0", **given: Any) -> Attached:
        """ADD, which has to succeed."""
        result = self.cni("ADD", config, box, ifname, **given).checked()
        port = port_of(box, ifname)
        return Attached(box, ifname, config, result, port, self.mount_point / port)

    def delete(self, attached: Attached) -> None:
        """DEL, which has to succeed and to say nothing."""
        answer = self.cni("DEL", attached.config, attached.box, attached.ifname)
        assert (answer.code, answer.text) == (0, "")

    @contextlib.contextmanager
    def attached(self, config: Config, box: Sandbox, ifname: str = "eth0", **given: Any) -> Iterator[Attached]:
        """An attached interface for the length of a block, and detached after it."""
        attached = self.add(config, box, ifname, **given)
        try:
            yield attached
        except BaseException:
            self.cni("DEL", config, box, ifname)  # what failed inside the block is the news
            raise
        self.delete(attached)

    def status(self) -> dict[str, Any]:
        """What `podvif status --output json` says."""
        command = [sys.executable, "-m", "podvif", "status", "--socket", str(self.daemon.socket), "--output", "json"]
        document: dict[str, Any] = json.loads(output(command))
        return document

    # -- what is left --------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until vswitchd has dealt with everything that is in the database: it removes its sockets then."""
        wanted = self.ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg").strip()
        self.ovs.vsctl("wait-until", "Open_vSwitch", ".", f"cur_cfg>={wanted}")

    def leftovers(self) -> list[str]:
        """Ports, sockets, the pods' files, leases and journal entries that still stand, each as a short text."""
        self.settle()
        return leftovers.after_del(self.ovs, self.mount_point, self.leases, self.daemon.journal)

    def finish(self) -> None:
        """Fail if anything is left, and take it away, so that the next test does not stumble over it."""
        left = self.leftovers()
        if left:
            self._sweep()
        assert not left, "left behind: " + "; ".join(left)

    def _sweep(self) -> None:
        # A daemon that has left something may do so again, from what it remembers: the next test gets a new one.
        runs = self._runs()
        if runs:
            self.daemon.stop()
        for port in self.ovs.ports():
            self.ovs.vsctl("--if-exists", "del-port", port)
        self.settle()
        sockets = [path for path in self.ovs.rundir.iterdir() if path.name.startswith("vhu")]
        for path in [*sockets, *self.mount_point.glob("*"), *self.leases.glob("*/*"), *self.daemon.journal.glob("*")]:
            if not path.is_dir():
                path.unlink(missing_ok=True)
        if runs:
            self.daemon.start()

    def _runs(self) -> bool:
        try:
            return self.daemon.child.alive()
        except LabError:  # it was never started
            return False

    def wait_until_recovered(self) -> None:
        """Wait until the journal is empty: an entry is forgotten after everything else is done."""
        wait_for(
            self.daemon.journal,
            lambda: not list(self.daemon.journal.iterdir()),
            f"recovery ends (journal {self.daemon.journal}; log {self.daemon.log})",
        )

    # -- the switch ----------------------------------------------------------------------------------------------------

    def column(self, table: str, record: str, column: str) -> str:
        """One column of one row, as ovs-vsctl prints it."""
        return self.ovs.vsctl("--if-exists", "get", table, record, column).strip()

    def wait_for_row(self, port: str) -> None:
        """Wait until OVSDB has a row for the port: ADD has plugged it then, whatever vswitchd does."""
        self.ovs.vsctl("wait-until", "Interface", port)


MakeNode = Callable[..., Node]
"""The fixture make_node: a `Node` from its keyword arguments, without switch and folder."""


def port_of(box: Sandbox, ifname: str = "eth0") -> str:
    """The name that the OVS port of an interface of a sandbox has."""
    return names.vif_name(names.port_id(Attachment(box.container_id, ifname)))


def wait_for(folder: Path, holds: Callable[[], bool], what: str, seconds: float = SOON) -> None:
    """Wait until `holds` is true; it is asked again whenever something comes to or goes from `folder`."""
    events = Mask.CREATE | Mask.DELETE | Mask.MOVED_TO | Mask.MOVED_FROM
    with Inotify(sync_timeout=seconds) as inotify:
        inotify.add_watch(folder, events)
        if holds():
            return
        for _ in inotify:
            if holds():
                return
    raise AssertionError(f"not within {seconds:g} s: {what}")


def refused(answer: Answer, code: int, *words: str) -> dict[str, Any]:
    """The error document of a call that had to fail: with this code, and a message that has all of the words."""
    assert answer.code != 0, f"it succeeded: {answer.text}"
    assert answer.document is not None, f"no error document on stdout: {answer.text!r}"
    assert answer.document["code"] == code, answer.text
    for word in words:
        assert word in answer.document["msg"], answer.text
    return answer.document


def leave_dead_socket(path: Path) -> None:
    """Leave a socket's file as an application does that was killed: nobody is bound to it."""
    bound = path.with_name(".s")  # bind takes short paths only, a file may have any name
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(bound))
        listener.listen()
    bound.rename(path)


def seeing(directory: Path, place: Path) -> list[str]:
    """What to put before a command so that it sees a directory at another place, as a container does."""
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(directory), str(place)]


@contextlib.contextmanager
def shim_in_background(
    command: str, config: Config, box: Sandbox, ifname: str = "eth0"
) -> Iterator["subprocess.Popen[bytes]"]:
    """A call of the shim that runs beside the test; killed at the end of the block should it still run."""
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": box.container_id,
        "CNI_NETNS": str(box.netns),
        "CNI_IFNAME": ifname,
        "CNI_PATH": programs.plugin_path(),
    }
    with subprocess.Popen(
        [programs.shim()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(config).encode())
            process.stdin.close()
            yield process
        finally:
            process.kill()


def answer_of(process: "subprocess.Popen[bytes]", seconds: float = SOON) -> tuple[int, Any]:
    """Exit code and document of a call in the background, once it ends."""
    assert process.stdout is not None
    code = process.wait(seconds)
    text = process.stdout.read()
    return code, json.loads(text) if text else None
