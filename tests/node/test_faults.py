"""What breaks around an attachment: OVSDB, vswitchd, the daemon itself at any step, and two verbs at once.

Law: a fault is made at a moment that is known by an event.  Afterwards the world converges by itself, or by the next verb, and
nothing is left or lost.
"""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podvif.core.attach import Step
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import LabError
from podvif.lab.sandbox import Sandbox
from podvif.node.converge import WAITS
from tests.node import test_csi, test_veth
from tests.node.support import (
    MODES,
    SOON,
    Attached,
    MakeNode,
    Node,
    answer_of,
    leave_dead_socket,
    port_of,
    refused,
    shim_in_background,
    wait_for,
)

Boxes = Callable[[], Sandbox]
modes = pytest.mark.parametrize("mode", MODES)

SHORT = {"node": {"add_timeout": "3"}}


@contextlib.contextmanager
def ovsdb_down(ovs: PrivateOvs) -> Iterator[None]:
    """No ovsdb-server for the length of a block; vswitchd lives on, and is back at work when the block has ended."""
    ovs.stop_ovsdb()
    try:
        yield
    finally:
        ovs.start_ovsdb()


@contextlib.contextmanager
def vswitchd_paused(ovs: PrivateOvs) -> Iterator[None]:
    """A vswitchd that does nothing for the length of a block."""
    ovs.pause_vswitchd()
    try:
        yield
    finally:
        ovs.resume_vswitchd()


@contextlib.contextmanager
def vswitchd_down(ovs: PrivateOvs) -> Iterator[None]:
    """No vswitchd for the length of a block."""
    ovs.stop_vswitchd()
    try:
        yield
    finally:
        ovs.start_vswitchd()


# -- OVSDB ---------------------------------------------------------------------------------------------------------------


@modes
def test_add_without_ovsdb(make_node: MakeNode, box: Sandbox, mode: str) -> None:
    """ADD while OVSDB is down is code 11 and names it; nothing is left once it is back, and then ADD works."""
    node = make_node()
    with node.running():
        with ovsdb_down(node.ovs):
            refused(node.cni("ADD", node.network(mode), box), 11, node.ovs.ovsdb)
            assert list(node.mount_point.iterdir()) == []
            assert node.cni("DEL", node.network(mode), box).code == 0
        node.wait_until_recovered()
        assert node.leftovers() == []
        with node.attached(node.network(mode), box) as attached:
            assert node.cni("CHECK", attached.checking, box).code == 0
        node.finish()


@modes
def test_del_without_ovsdb(make_node: MakeNode, boxes: Boxes, mode: str) -> None:
    """DEL while OVSDB is down succeeds and takes the pod's files; the rest goes by itself once OVSDB is back."""
    node = make_node()
    with node.running():
        attached, stays = node.add(node.network(mode), boxes()), node.add(node.network(mode), boxes())
        with ovsdb_down(node.ovs):
            node.delete(attached)
            node.delete(attached)
            of_it = [path for path in node.mount_point.iterdir() if attached.box.container_id in path.name]
            assert of_it == []
            (entry,) = node.daemon.journal.glob(f"{attached.box.container_id}*")
            assert entry.name.endswith(".leaving.json")
        wait_for(node.daemon.journal, lambda: not entry.exists(), "the entry that is leaving goes")
        node.settle()
        assert node.ovs.ports() == [stays.port]
        assert node.cni("CHECK", stays.checking, stays.box).code == 0
        node.delete(stays)
        node.finish()


def test_del_without_ovsdb_then_a_new_daemon(make_node: MakeNode, box: Sandbox) -> None:
    """A DEL that OVSDB has kept from ending is ended by the next daemon too."""
    node = make_node()
    with node.running() as daemon:
        attached = node.add(node.network("client"), box)
        with ovsdb_down(node.ovs):
            node.delete(attached)
            daemon.kill()
        daemon.start()
        node.wait_until_recovered()
        node.finish()


def test_a_start_without_ovsdb(make_node: MakeNode, box: Sandbox) -> None:
    """A daemon that starts while OVSDB is down answers with what is missing, and serves as soon as it is there."""
    node = make_node()
    with node.running() as daemon:
        attached = node.add(node.network("client"), box)
        daemon.stop()
        with ovsdb_down(node.ovs):
            daemon.start()
            refused(node.cni("STATUS", node.network()), 50, node.ovs.ovsdb)
            refused(node.cni("CHECK", attached.checking, box), 11, node.ovs.ovsdb)
            refused(node.cni("ADD", node.network(), box, "net1"), 11, node.ovs.ovsdb)
            assert [item["goal"] for item in node.status()["attachments"] if item["ifname"] == "eth0"] == ["attached"]
        # An ADD does not wait for the next time that the daemon looks for OVSDB by itself.
        assert node.add(node.network("client"), box).result == attached.result
        assert node.cni("STATUS", node.network()).code == 0
        node.delete(attached)
        node.wait_until_recovered()
        node.finish()


def test_status_before_vswitchd_has_run(make_node: MakeNode, folder: Path) -> None:
    """STATUS of a node whose vswitchd has never initialised DPDK is 50 and says DPDK."""
    folder.joinpath("ovs").mkdir()
    database = PrivateOvs(folder / "ovs")
    database.start_ovsdb()
    try:
        database.vsctl("--no-wait", "init")
        node = make_node(ovsdb=database.ovsdb)
        with node.running():
            refused(node.cni("STATUS", node.network()), 50, "DPDK")
    finally:
        database.stop_ovsdb()


def test_an_ovsdb_that_hangs(make_node: MakeNode, box: Sandbox) -> None:
    """An ADD that OVSDB does not answer fails, and what it has asked for does not stand once OVSDB goes on."""
    node = make_node(more=SHORT)
    with node.running():
        node.ovs.pause_ovsdb()
        try:
            answer = node.cni("ADD", node.network("client"), box)
        finally:
            node.ovs.resume_ovsdb()
        refused(answer, 11)
        assert node.cni("DEL", node.network("client"), box).code == 0
        node.wait_until_recovered()
        node.finish()


# -- vswitchd ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "mode"), [(vswitchd_paused, "server"), (vswitchd_paused, "client"), (vswitchd_down, "client")]
)
def test_add_without_vswitchd(
    make_node: MakeNode, box: Sandbox, mode: str, fault: Callable[[PrivateOvs], contextlib.AbstractContextManager[None]]
) -> None:
    """ADD while vswitchd hangs or is down fails when add_timeout is over (code 11), names the port and leaves nothing."""
    node = make_node(more=SHORT)
    with node.running():
        with fault(node.ovs):
            # The shim's own deadline is later: had the daemon not kept its own, it would be the shim that answers.
            answer = node.cni("ADD", node.network(mode, daemonTimeout=30), box)
            refused(answer, 11, "ovs-vswitchd", port_of(box), "3 s")
            assert node.ovs.ports() == []
            assert list(node.mount_point.iterdir()) == list(node.daemon.journal.iterdir()) == []
            assert node.cni("DEL", node.network(mode), box).code == 0
        node.finish()
        with node.attached(node.network(mode), box) as attached:
            assert node.cni("CHECK", attached.checking, box).code == 0
        node.finish()


@modes
def test_del_without_vswitchd(node: Node, box: Sandbox, mode: str) -> None:
    """DEL while vswitchd hangs succeeds and leaves nothing."""
    attached = node.add(node.network(mode), box)
    with vswitchd_paused(node.ovs):
        node.delete(attached)
        assert node.ovs.ports() == []
        assert list(node.mount_point.iterdir()) == list(node.daemon.journal.iterdir()) == []


@modes
def test_del_and_add_while_vswitchd_hangs(node: Node, box: Sandbox, mode: str) -> None:
    """An attachment that is removed and added again while vswitchd hangs is whole when vswitchd goes on."""
    config = node.network(mode)
    node.add(config, box)
    with shim_in_paused(node, config, box) as adding:
        node.ovs.resume_vswitchd()
        code, result = answer_of(adding)
        assert code == 0, result
    assert node.cni("CHECK", {**config, "prevResult": result}, box).code == 0
    assert node.cni("DEL", config, box).code == 0


@contextlib.contextmanager
def shim_in_paused(node: Node, config: dict[str, object], box: Sandbox) -> Iterator["subprocess.Popen[bytes]"]:
    """An ADD that waits for a paused vswitchd, after a DEL that did not."""
    with vswitchd_paused(node.ovs):
        assert node.cni("DEL", config, box).code == 0
        with shim_in_background("ADD", config, box) as adding:
            wait_for(node.daemon.journal, lambda: bool(list(node.daemon.journal.iterdir())), "ADD has begun")
            yield adding


def _end_nicely(ovs: PrivateOvs) -> None:
    ovs.stop_vswitchd()


def _kill(ovs: PrivateOvs) -> None:
    ovs.kill_vswitchd()


@pytest.mark.parametrize("end", [_end_nicely, _kill])
def test_vswitchd_and_daemon_restarted(make_node: MakeNode, boxes: Boxes, end: Callable[[PrivateOvs], None]) -> None:
    """After a restart of vswitchd and of the daemon every attachment stands: client mode's socket is moved again."""
    node = make_node()
    with node.running() as daemon:
        client, server = node.add(node.network("client"), boxes()), node.add(node.network("server"), boxes())
        before = client.socket.stat().st_ino
        daemon.stop()
        end(node.ovs)
        node.ovs.start_vswitchd()
        daemon.start()
        await_check(node, client)
        assert client.socket.stat().st_ino != before
        for each in (client, server):
            assert node.cni("CHECK", each.checking, each.box).code == 0
            node.delete(each)
        node.finish()


def await_check(node: Node, attached: Attached) -> None:
    """Wait until CHECK passes: what it is waiting for comes to or goes from the pods' directory."""
    wait_for(
        node.mount_point,
        lambda: node.cni("CHECK", attached.checking, attached.box, attached.ifname).code == 0,
        f"{attached.port} is whole",
    )


# -- two verbs at once ---------------------------------------------------------------------------------------------------


@modes
def test_two_adds_at_once(node: Node, box: Sandbox, mode: str) -> None:
    """Two ADDs of one attachment at once succeed both, with one answer."""
    config = node.network(mode)
    with ThreadPoolExecutor(2) as both:
        for _ in range(5):
            answers = [task.result() for task in [both.submit(node.cni, "ADD", config, box) for _ in range(2)]]
            assert [answer.code for answer in answers] == [0, 0], [answer.text for answer in answers]
            assert answers[0].document == answers[1].document
            assert len(list((node.leases / "net").glob("10.*"))) == 1
            assert node.cni("CHECK", {**config, "prevResult": answers[0].document}, box).code == 0
            assert node.cni("DEL", config, box).code == 0


@modes
def test_add_and_del_at_once(node: Node, box: Sandbox, mode: str) -> None:
    """ADD and DEL of one attachment at once: DEL succeeds, and a DEL after both leaves nothing whoever was first."""
    config = node.network(mode)
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            adding = [pool.submit(node.cni, "ADD", config, box) for _ in range(2)]
            deleting = pool.submit(node.cni, "DEL", config, box)
            assert deleting.result().code == 0, deleting.result().text
            for task in adding:
                assert task.result().code == 0 or refused(task.result(), 11)
            assert node.cni("DEL", config, box).code == 0
            assert node.leftovers() == []


@modes
def test_del_during_add(node: Node, box: Sandbox, mode: str) -> None:
    """DEL of an attachment whose ADD hangs succeeds at once; that ADD then fails (code 11) and nothing is left."""
    config = node.network(mode)
    with vswitchd_paused(node.ovs), shim_in_background("ADD", config, box) as adding:
        node.wait_for_row(port_of(box))
        assert node.cni("DEL", config, box).code == 0
        code, document = answer_of(adding)
        assert code != 0
        assert document["code"] == 11
        assert box.container_id in document["msg"]


@modes
def test_the_runtime_gives_up(node: Node, box: Sandbox, mode: str) -> None:
    """When the runtime kills the shim during ADD, the DEL that follows takes everything away."""
    config = node.network(mode)
    with vswitchd_paused(node.ovs), shim_in_background("ADD", config, box) as adding:
        node.wait_for_row(port_of(box))
        adding.kill()
        adding.wait()
        assert node.cni("DEL", config, box).code == 0


def test_sigterm_lets_a_verb_end(make_node: MakeNode, box: Sandbox) -> None:
    """SIGTERM lets the running ADD finish and answer; a new call is not served; the exit code is 0."""
    node = make_node()
    config = node.network("client")
    with node.running() as daemon:
        with shim_in_background("ADD", config, box) as adding:
            with vswitchd_paused(node.ovs):
                node.wait_for_row(port_of(box))
                daemon.child.send(signal.SIGTERM)
                wait_for(daemon.folder, lambda: not daemon.socket.exists(), "the daemon takes no more calls")
                refused(node.cni("STATUS", config), 50, str(daemon.socket))
            code, result = answer_of(adding)
        assert code == 0, result
        assert daemon.child.wait(SOON) == 0
        daemon.start()
        assert node.cni("CHECK", {**config, "prevResult": result}, box).code == 0
        assert node.cni("DEL", config, box).code == 0
        node.finish()


# -- the daemon is killed ------------------------------------------------------------------------------------------------


def test_a_new_daemon_finds_what_stands(make_node: MakeNode, boxes: Boxes) -> None:
    """Attachments outlive a daemon that is killed: the next one finds them whole, makes nothing anew, and removes them."""
    node = make_node()
    with node.running() as daemon:
        standing = [node.add(node.network(mode), boxes()) for mode in MODES]
        standing.append(node.add(node.network("client", name="second"), standing[0].box, "net1"))
        rows = {each.port: node.column("Interface", each.port, "_uuid") for each in standing}
        files = {path: path.stat().st_ino for path in node.mount_point.iterdir()}
        daemon.kill()
        daemon.start()
        for each in standing:
            assert node.cni("CHECK", each.checking, each.box, each.ifname).code == 0
            assert node.add(each.config, each.box, each.ifname).result == each.result
        assert {each.port: node.column("Interface", each.port, "_uuid") for each in standing} == rows
        assert {path: path.stat().st_ino for path in node.mount_point.iterdir()} == files
        for each in standing:
            node.delete(each)
        node.finish()


def test_a_new_daemon_mends_what_was_lost_meanwhile(make_node: MakeNode, boxes: Boxes) -> None:
    """What is taken away while no daemon runs is made again by the next one."""
    node = make_node()
    with node.running() as daemon:
        portless, fileless, stale = (
            node.add(node.network("client"), boxes()),
            node.add(node.network("client"), boxes()),
            node.add(node.network("server"), boxes()),
        )
        daemon.kill()
        node.ovs.vsctl("del-port", portless.port)
        (node.mount_point / f"{fileless.box.container_id}.env").unlink()
        leave_dead_socket(stale.socket)
        daemon.start()
        for each in (portless, fileless, stale):
            await_check(node, each)
            node.delete(each)
        node.finish()


def test_a_lost_journal(make_node: MakeNode, box: Sandbox) -> None:
    """When the journal is lost, DEL still finds everything by its names."""
    node = make_node()
    with node.running() as daemon:
        attached = node.add(node.network("client"), box)
        daemon.kill()
        for entry in daemon.journal.iterdir():
            entry.unlink()
        daemon.start()
        node.delete(attached)
        node.finish()


def test_a_damaged_journal(make_node: MakeNode, boxes: Boxes) -> None:
    """An entry that is damaged does not keep the others from being served; DEL still removes what it was about."""
    node = make_node()
    with node.running() as daemon:
        whole, damaged = node.add(node.network("client"), boxes()), node.add(node.network("client"), boxes())
        daemon.kill()
        (entry,) = daemon.journal.glob(f"{damaged.box.container_id}*")
        entry.write_text(entry.read_text()[:100])
        daemon.start()
        assert node.cni("CHECK", whole.checking, whole.box).code == 0
        node.delete(whole)
        node.delete(damaged)
        (kept,) = daemon.journal.iterdir()  # for a person to look at
        assert kept.name.startswith(entry.name)
        kept.unlink()
        node.finish()


# In the order in which they are taken.  A stale socket is laid in the way, so that each step is.
ADD_STEPS = {
    "server": ["JOURNAL", "RESERVE_ADDRESSES", "REMOVE_STALE_SOCKET", "PLUG", "WRITE_FILES"],
    "client": ["JOURNAL", "RESERVE_ADDRESSES", "REMOVE_STALE_SOCKET", "PLUG", "TAKE_SOCKET", "WRITE_FILES"],
}
DEL_STEPS = ["REMOVE_FILES", "UNPLUG", "REMOVE_SOCKETS", "RELEASE_ADDRESSES", "FORGET"]


def test_no_step_is_forgotten() -> None:
    """The crash tests below, those of kernel ports and those of pods' own directories take every step that there is."""
    taken = {name for steps in ADD_STEPS.values() for name in steps} | set(DEL_STEPS) | {"WRITE_MARKS"}
    taken |= {*test_veth.ADD_STEPS, *test_veth.DEL_STEPS, test_veth.HYBRID_STEP, *test_csi.RIGHTS_STEPS}
    assert taken - {"JOURNAL"} == {step.name for step in Step if step not in WAITS}


def lay_stale_socket(node: Node, box: Sandbox, mode: str) -> None:
    """Leave a dead socket where the application, or OVS, is going to listen."""
    leave_dead_socket((node.mount_point if mode == "server" else node.ovs.rundir) / port_of(box))


@pytest.mark.parametrize(("mode", "step"), [(mode, step) for mode in MODES for step in ADD_STEPS[mode]])
def test_killed_during_add(make_node: MakeNode, box: Sandbox, mode: str, step: str) -> None:
    """A daemon that is killed after any step of ADD has failed it: the next daemon leaves nothing of it, and ADD works."""
    node = make_node()
    with node.crashing_after(step) as daemon:
        lay_stale_socket(node, box, mode)
        refused(node.cni("ADD", node.network(mode), box), 11, str(daemon.socket))
        assert daemon.child.wait(SOON) == -signal.SIGKILL
    with node.running():
        node.wait_until_recovered()
        assert node.leftovers() == []
        with node.attached(node.network(mode), box) as attached:
            assert node.cni("CHECK", attached.checking, box).code == 0
        node.finish()


@pytest.mark.parametrize(("mode", "step"), [(mode, step) for mode in MODES for step in DEL_STEPS])
def test_killed_during_del(make_node: MakeNode, box: Sandbox, mode: str, step: str) -> None:
    """A daemon that is killed after any step of DEL is followed by one that leaves nothing; DEL repeated and ADD work."""
    node = make_node()
    config = node.network(mode)
    with node.crashing_after(step) as daemon, socket.socket(socket.AF_UNIX) as application:
        attached = node.add(config, box)
        if mode == "server":
            application.bind(str(attached.socket))  # a dead one would be gone before DEL comes to it
        refused(node.cni("DEL", config, box), 11, str(daemon.socket))
        assert daemon.child.wait(SOON) == -signal.SIGKILL
    with node.running():
        node.wait_until_recovered()
        assert node.leftovers() == []
        node.delete(attached)
        with node.attached(config, box) as again:
            assert again.result["interfaces"] == attached.result["interfaces"]
        node.finish()


def test_killed_while_mending(make_node: MakeNode, box: Sandbox) -> None:
    """A daemon that is killed while a repeated ADD writes lost marks again leaves the attachment standing."""
    node = make_node()
    with node.crashing_after("WRITE_MARKS") as daemon:
        attached = node.add(node.network("client"), box)
        node.ovs.vsctl("remove", "Interface", attached.port, "external_ids", "podvif-ifname")
        refused(node.cni("ADD", attached.config, box), 11)
        assert daemon.child.wait(SOON) == -signal.SIGKILL
    with node.running():
        assert node.cni("CHECK", attached.checking, box).code == 0
        node.delete(attached)
        node.finish()


def test_killed_again_while_recovering(make_node: MakeNode, box: Sandbox) -> None:
    """A daemon that is killed during ADD, and the next one while it cleans up, leave nothing to the third."""
    node = make_node()
    with node.crashing_after("TAKE_SOCKET") as daemon:
        refused(node.cni("ADD", node.network("client"), box), 11)
        assert daemon.child.wait(SOON) == -signal.SIGKILL
    # Whether it says that it is ready before it is killed is a matter of chance.
    with contextlib.suppress(LabError), node.crashing_after("UNPLUG") as daemon:
        assert daemon.child.wait(SOON) == -signal.SIGKILL
    with node.running():
        node.wait_until_recovered()
        node.finish()
