"""Recovery with real parts: what ends, is restarted or is taken away around an attachment, and what nobody owns any more.

Law: where an event has to bring recovery about there are no rounds (resync_interval is an hour); where the sweep has to, its
rounds are quick.  A VM's port stands by, and is found untouched at the end.
"""

import contextlib
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from podvif import names
from podvif.lab import ovs as lab_ovs
from podvif.lab import programs, testpmd
from podvif.lab.hugepages import hugepages
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import output
from podvif.lab.sandbox import Sandbox
from podvif.lab.testpmd import Testpmd
from podvif.model import Attachment
from tests.node.support import BRIDGE, MODES, SOON, Attached, MakeNode, Node, leave_dead_socket, wait_for

Boxes = Callable[[], Sandbox]
modes = pytest.mark.parametrize("mode", MODES)

EVENTS = {"node": {"resync_interval": "3600"}}
ROUNDS = {"node": {"resync_interval": "0.3", "sweep_grace": "0.3"}}

MANY = 2000
"""Packets, after which nobody can say that only the first ones came through."""


@pytest.fixture(scope="module", autouse=True)
def pages() -> Iterator[None]:
    """Hugepages for two applications, and for what vswitchd takes for ports that come and go."""
    with hugepages(2 * testpmd.PAGES + 6 * lab_ovs.PAGES_PER_PORT):
        yield


@pytest.fixture
def start(folder: Path) -> Iterator["Start"]:
    """Starts applications that end with the test."""
    with ExitStack() as stack:
        yield Start(folder, stack)


class Start:
    """Starts an application of a pod: it gets the pod's shell file, and its network namespace to run in."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack

    def __call__(self, pod: Attached, to: str = "") -> Testpmd:
        """One that receives, or sends to a MAC."""
        env = pod.socket.parent / f"{pod.box.container_id}.env"
        forward = "txonly" if to else "rxonly"
        application = Testpmd(env, self._folder, netns=pod.box.name, forward=forward, eth_peer=to)
        return self._stack.enter_context(application)


@pytest.fixture
def vm(ovs: PrivateOvs, folder: Path) -> Iterator[Path]:
    """A VM that is switched off: its port in OVS, with an iface-id, and its dead socket; neither may be touched."""
    port_id = str(uuid.uuid4())
    port = names.vif_name(port_id)
    path = folder / port
    ids = [f"external_ids:iface-id={port_id}", "external_ids:vm-uuid=vm"]
    ovs.vsctl("--may-exist", "add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev")
    kind = ["type=dpdkvhostuserclient", f"options:vhost-server-path={path}"]
    ovs.vsctl("add-port", BRIDGE, port, "--", "set", "Interface", port, *kind, *ids)
    leave_dead_socket(path)
    before = (path.stat().st_ino, ovs.vsctl("get", "Interface", port, "_uuid", "external_ids", "options"))
    yield path
    after = (path.stat().st_ino, ovs.vsctl("get", "Interface", port, "_uuid", "external_ids", "options"))
    ovs.vsctl("del-port", port)
    assert after == before


def until(holds: Callable[[], bool], what: str) -> None:
    """Ask until it is so; asking takes its time, so nobody sleeps."""
    deadline = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < deadline, f"not within {SOON:g} s: {what}"


def whole(node: Node, *attached: Attached) -> None:
    """Wait until CHECK of each passes."""
    for each in attached:
        deadline = time.monotonic() + SOON
        while (answer := node.cni("CHECK", each.checking, each.box)).code:
            assert time.monotonic() < deadline, answer.text


# -- restarts ------------------------------------------------------------------------------------------------------------


@modes
@pytest.mark.parametrize("end", ["stop_vswitchd", "kill_vswitchd"])
def test_vswitchd_restarts(make_node: MakeNode, boxes: Boxes, start: Start, mode: str, end: str) -> None:
    """After a restart of vswitchd packets arrive again: at the applications that listened, or at those that connect anew."""
    node = make_node(more=EVENTS)
    with node.running():
        sender, receiver = node.add(node.network(mode), boxes()), node.add(node.network(mode), boxes())
        running = [start(receiver), start(sender, receiver.mac)]
        arrived = running[0].wait_for_rx(packets=MANY).rx_packets
        getattr(node.ovs, end)()
        node.ovs.start_vswitchd()
        whole(node, sender, receiver)
        if mode == "server":
            running[0].wait_for_rx(packets=arrived + MANY)
        else:  # virtio-user as a client connects once; a container that restarts connects again
            for application in running:
                application.child.kill()
            receiving = start(receiver)
            start(sender, receiver.mac)
            receiving.wait_for_rx(packets=MANY)
        for each in (sender, receiver):
            node.delete(each)
        node.finish()


@pytest.mark.parametrize("end", ["stop_ovsdb", "kill_ovsdb"])
def test_ovsdb_restarts(make_node: MakeNode, boxes: Boxes, start: Start, end: str) -> None:
    """A restart of ovsdb-server stops no packets, and what is lost afterwards is mended as before."""
    node = make_node(more=EVENTS)
    with node.running():
        sender, receiver = node.add(node.network("server"), boxes()), node.add(node.network("client"), boxes())
        receiving = start(receiver)
        start(sender, receiver.mac)
        arrived = receiving.wait_for_rx(packets=MANY).rx_packets
        getattr(node.ovs, end)()
        node.ovs.start_ovsdb()
        whole(node, sender, receiver)
        receiving.wait_for_rx(packets=arrived + MANY)
        node.ovs.vsctl("del-port", sender.port)
        whole(node, sender)
        arrived = receiving.statistics().rx_packets
        receiving.wait_for_rx(packets=arrived + MANY)
        for each in (sender, receiver):
            node.delete(each)
        node.finish()


@pytest.mark.parametrize("first", ["daemon", "vswitchd"])
def test_a_socket_that_was_never_moved(make_node: MakeNode, box: Sandbox, first: str) -> None:
    """A dead socket that lies where OVS makes it, because no daemon was there to move it, keeps OVS from nothing."""
    node = make_node(more=EVENTS)
    with node.running() as daemon:
        attached = node.add(node.network("client"), box)
        daemon.kill()
        node.ovs.stop_vswitchd()
        node.ovs.start_vswitchd()
        unmoved = node.ovs.rundir / attached.port
        node.ovs.kill_vswitchd()
        assert unmoved.is_socket()
        for part in ("daemon", "vswitchd") if first == "daemon" else ("vswitchd", "daemon"):
            daemon.start() if part == "daemon" else node.ovs.start_vswitchd()
        whole(node, attached)
        assert not unmoved.exists()
        node.delete(attached)
        node.finish()


def test_the_host_restarts(make_node: MakeNode, boxes: Boxes, vm: Path) -> None:
    """After a restart of the host, with the database and the journal kept and nothing else, no attachment is left."""
    node = make_node(more=ROUNDS)
    with node.running() as daemon:
        standing = [(node.add(node.network(mode), box), box) for mode in MODES for box in [boxes()]]
        daemon.kill()
        node.ovs.kill_vswitchd()
        node.ovs.kill_ovsdb()
        for _, box in standing:
            output([programs.ip(), "netns", "delete", box.name])
        for path in node.mount_point.iterdir():
            path.unlink()
        node.mount_point.rmdir()
        for path in node.ovs.rundir.iterdir():
            if path.suffix in {".ctl", ".pid", ".sock"} or path.name.startswith("vhu"):
                path.unlink()
        node.ovs.start_ovsdb()
        node.ovs.start_vswitchd()
        daemon.start()
        node.wait_until_recovered()
        assert node.leftovers() == [f"OVS port {vm.name}"]


# -- what somebody takes away --------------------------------------------------------------------------------------------


def test_a_socket_that_a_listening_application_removes(make_node: MakeNode, box: Sandbox, start: Start) -> None:
    """An application that removes its own socket stays connected, and the next one listens at the same place."""
    node = make_node(more=EVENTS)
    with node.running():
        attached = node.add(node.network("server"), box)
        first = start(attached)
        node.ovs.wait_for_link(attached.port)
        attached.socket.unlink()
        whole(node, attached)
        assert node.column("Interface", attached.port, "link_state") == "up"
        first.child.kill()
        start(attached)
        node.ovs.wait_for_link(attached.port, "down")
        node.ovs.wait_for_link(attached.port)
        node.delete(attached)
        node.finish()


def test_a_socket_that_is_lost_under_an_application(make_node: MakeNode, boxes: Boxes, start: Start) -> None:
    """In client mode a socket that the pod has removed is made anew, and whoever connects to it gets packets."""
    node = make_node(more=EVENTS)
    with node.running():
        sender, receiver = node.add(node.network("server"), boxes()), node.add(node.network("client"), boxes())
        first = start(receiver)
        node.ovs.wait_for_link(receiver.port)
        receiver.socket.unlink()
        wait_for(node.mount_point, receiver.socket.exists, "the socket is there again")
        first.child.kill()
        receiving = start(receiver)
        start(sender, receiver.mac)
        receiving.wait_for_rx(packets=MANY)
        for each in (sender, receiver):
            node.delete(each)
        node.finish()


def test_a_container_restarts(make_node: MakeNode, box: Sandbox, start: Start) -> None:
    """In server mode an application that was killed while it drove its port can listen again: no round is needed."""
    node = make_node(more=EVENTS)
    with node.running():
        attached = node.add(node.network("server"), box)
        for _ in range(3):
            application = start(attached)
            node.ovs.wait_for_link(attached.port)
            application.child.kill()
            wait_for(node.mount_point, lambda: not attached.socket.exists(), "the dead socket is removed")
            node.ovs.wait_for_link(attached.port, "down")
        node.delete(attached)
        node.finish()


def test_a_container_that_dies_unconnected(make_node: MakeNode, box: Sandbox) -> None:
    """The socket of an application that has died before Open vSwitch connected to it goes without a round too."""
    node = make_node(more=EVENTS)
    with node.running():
        attached = node.add(node.network("server"), box)
        node.ovs.pause_vswitchd()
        try:
            with socket.socket(socket.AF_UNIX) as application:
                application.bind(str(attached.socket))
                application.listen()
                whole(node, attached)
            wait_for(node.mount_point, lambda: not attached.socket.exists(), "the dead socket is removed")
        finally:
            node.ovs.resume_vswitchd()
        node.delete(attached)
        node.finish()


# -- what nobody owns any more -------------------------------------------------------------------------------------------


@modes
def test_a_sandbox_that_is_gone(make_node: MakeNode, boxes: Boxes, vm: Path, mode: str) -> None:
    """An attachment whose namespace is gone is removed after the grace with its address; another one stays."""
    node = make_node(more=ROUNDS)
    with node.running():
        gone, stays = node.add(node.network(mode), boxes()), node.add(node.network(mode), boxes())
        output([programs.ip(), "netns", "delete", gone.box.name])
        of_it = f"{gone.box.container_id}*"
        wait_for(
            node.daemon.journal, lambda: not list(node.daemon.journal.glob(of_it)), "the entry without a sandbox goes"
        )
        assert not (node.leases / "net" / gone.address).exists()
        assert [path for path in node.mount_point.iterdir() if gone.box.container_id in path.name] == []
        assert node.ovs.ports() == sorted([stays.port, vm.name])
        whole(node, stays)
        assert node.cni("DEL", gone.config, gone.box, netns="").code == 0  # the runtime may come late
        node.delete(stays)
        assert node.leftovers() == [f"OVS port {vm.name}"]


@modes
def test_leftovers_without_a_journal(make_node: MakeNode, boxes: Boxes, vm: Path, mode: str) -> None:
    """Port, socket and files whose journal entry was lost go by themselves; what carries no mark of ours stays."""
    node = make_node(more=ROUNDS)
    with node.running() as daemon:
        lost, stays = node.add(node.network(mode, ipam=None), boxes()), node.add(node.network(mode), boxes())
        if mode == "server":
            leave_dead_socket(lost.socket)
        notes = node.mount_point / "notes.txt"
        notes.touch()
        daemon.kill()
        (entry,) = daemon.journal.glob(f"{lost.box.container_id}*")
        entry.unlink()
        daemon.start()
        kept = {path.name for path in node.mount_point.iterdir() if stays.box.container_id in path.name}
        kept |= {notes.name} | ({stays.port} if mode == "client" else set())
        until(lambda: {path.name for path in node.mount_point.iterdir()} == kept, "what was of it is gone")
        until(lambda: node.ovs.ports() == sorted([stays.port, vm.name]), "its OVS port is gone")
        whole(node, stays)
        node.delete(stays)
        notes.unlink()
        assert node.leftovers() == [f"OVS port {vm.name}"]


def test_a_foreign_port_in_our_name(make_node: MakeNode, box: Sandbox) -> None:
    """A port with the very name of an attachment's, and without our marks or port id, is refused at ADD and stays."""
    node = make_node(more=ROUNDS)
    attachment = Attachment(box.container_id, "eth0")
    port = names.vif_name(names.port_id(attachment))
    kind = ["type=dpdkvhostuserclient", f"options:vhost-server-path={node.mount_point / port}"]
    with node.running(), contextlib.ExitStack() as foreign:
        node.ovs.vsctl("--may-exist", "add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev")
        node.ovs.vsctl("add-port", BRIDGE, port, "--", "set", "Interface", port, *kind, "external_ids:iface-id=vm")
        foreign.callback(node.ovs.vsctl, "del-port", port)
        row = node.column("Interface", port, "_uuid")
        leave_dead_socket(node.mount_point / port)
        inode = (node.mount_point / port).stat().st_ino
        assert node.cni("ADD", node.network("server"), box).code
        assert not node.cni("DEL", node.network("server"), box).code
        marker = node.mount_point / f"{'0' * 64}.json"
        marker.touch()
        wait_for(node.mount_point, lambda: not marker.exists(), "the sweep has been here")
        assert (node.mount_point / port).stat().st_ino == inode
        assert node.column("Interface", port, "_uuid") == row
        (node.mount_point / port).unlink()
