"""The driver: what it observes, and what it does, on real files and sockets."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif import names
from podvif.core import podfiles
from podvif.core.attach import Step, Want, next_step
from podvif.errors import Bug, Refused, Retry
from podvif.model import Attachment, Goal, IpamCall, Listener, Seen, SocketFile
from podvif.node.converge import WAITS
from tests.fakes.node import Node
from tests.fakes.values import ATTACHMENT, BOTH, config, entry, port_of

APPLICATION, OVS = Listener.APPLICATION, Listener.OVS


def begin(node: Node, listener: Listener, goal: Goal = Goal.ATTACHED, **changes: Any) -> Want:
    """Write an entry into the journal, and want it to be attached or absent."""
    made = entry(listener, goal=goal, vif=node.vif(listener), **changes)
    node.journal.put(made)
    return Want(ATTACHMENT, goal, made.vif, reserve=made.ipam is not None)


async def walk(node: Node, want: Want, until: Step | None = None) -> Seen:
    """Do what the table decides, up to a step; returns what was seen then."""
    while True:
        seen = node.driver.observe(want)
        step = next_step(want, seen)
        if step is None or step is until:
            return seen
        assert isinstance(step, Step), step
        await (node.driver.wait if step in WAITS else node.driver.do)(want, step, seen)


@pytest.mark.parametrize("listener", BOTH)
async def test_facts(node: Node, listener: Listener) -> None:
    """The facts before and after: nothing there, then everything as wanted."""
    want = begin(node, listener)
    assert node.driver.observe(want) == Seen(
        switch_trouble=None,
        directory=True,
        bridge_datapath=None,
        port=None,
        settled=True,
        pod_socket=SocketFile.ABSENT,
        ovs_socket=SocketFile.ABSENT,
        addresses=None,
        addresses_held=False,
        files_current=False,
        files_present=False,
        journalled=True,
    )

    found = await walk(node, want)

    assert (found.bridge_datapath, found.port) == ("netdev", node.switch.port(want.vif.name))
    assert found.pod_socket is (SocketFile.BOUND if listener is OVS else SocketFile.ABSENT)
    assert found.files_current


@pytest.mark.parametrize("listener", BOTH)
async def test_every_step_twice(node: Node, listener: Listener) -> None:
    """Each step on the way there and back may be done twice, and is then not decided again."""
    taken = []
    for goal in (Goal.ATTACHED, Goal.LEAVING):
        want = begin(node, listener, goal)
        while step := next_step(want, seen := node.driver.observe(want)):
            assert isinstance(step, Step), step
            taken.append(step)
            if step in WAITS:
                await node.driver.wait(want, step, seen)
                continue
            await node.driver.do(want, step, seen)
            if step is not Step.TAKE_SOCKET:  # the source of a move is gone once it was moved
                await node.driver.do(want, step, seen)
            assert next_step(want, node.driver.observe(want)) is not step

    assert set(taken) >= {Step.PLUG, Step.WRITE_FILES, Step.REMOVE_FILES, Step.UNPLUG, Step.FORGET}
    assert node.left() == []


@pytest.mark.parametrize("text", ["no number", "", "999999999", pytest.param(str(os.getpid()), id="ours")])
async def test_pid_file_of_vswitchd(node: Node, text: str) -> None:
    """Vswitchd's sockets are looked for in its namespace; where nobody holds the pid file, in ours, whatever it says."""
    (node.rundir / "ovs-vswitchd.pid").write_text(f"{text}\n")

    assert (await walk(node, begin(node, OVS))).pod_socket is SocketFile.BOUND


# -- acts ------------------------------------------------------------------------------------------------------------


async def test_living_socket_is_not_stale(node: Node) -> None:
    """A socket that somebody has begun to listen on since it was seen is not removed."""
    want = begin(node, APPLICATION)
    seen = msgspec.structs.replace(node.driver.observe(want), pod_socket=SocketFile.DEAD)
    with socket.socket(socket.AF_UNIX) as application:
        application.bind(want.vif.socket)
        await node.driver.do(want, Step.REMOVE_STALE_SOCKET, seen)

    assert Path(want.vif.socket).is_socket()  # noqa: ASYNC240


async def test_socket_that_was_taken_meanwhile(node: Node) -> None:
    """A socket that is gone when it is to be moved is worth a repeat."""
    want = begin(node, OVS)
    with pytest.raises(Retry, match="cannot be moved to"):
        await node.driver.do(want, Step.TAKE_SOCKET, node.driver.observe(want))


@pytest.mark.parametrize("step", [*sorted(WAITS, key=lambda step: step.name), Step.UNPLUG, Step.RESERVE_ADDRESSES])
async def test_impossible_acts(node: Node, step: Step) -> None:
    """A wait is no act, and without port or IPAM there is nothing to unplug or to ask: asking for it is a bug."""
    want = begin(node, APPLICATION)
    with pytest.raises(Bug):
        await node.driver.do(want, step, node.driver.observe(want))


async def test_unplug_from_the_bridge_it_is_in(node: Node) -> None:
    """A port of ours in another bridge than wanted is removed from that one, and made in the right one."""
    want = begin(node, APPLICATION)
    ours = port_of(want.vif, bridge="br-former")
    node.switch.add_port(ours)

    found = await walk(node, want)

    assert found.port is not None
    assert found.port.bridge == "br-dpdk"


async def test_lost_marks_are_written(node: Node) -> None:
    """Owner marks that somebody has removed are written again."""
    want = begin(node, APPLICATION)
    await walk(node, want)
    node.switch.add_port(port_of(want.vif))

    found = await walk(node, want)

    assert found.port is not None
    assert names.marks(ATTACHMENT, "").items() <= found.port.external_ids.items()


# -- the pod's files -------------------------------------------------------------------------------------------------

FILES = ["c0ffee-net1", "c0ffee.json", "c0ffee.env"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["gone", "other text", "link", "FIFO"])
async def test_files_are_mended(node: Node, name: str, how: str) -> None:
    """A file of the pod's that is gone, different, or something else is seen and written again, nothing being followed."""
    want = begin(node, APPLICATION)
    await walk(node, want)
    written, path = (node.pods / name).read_text(), node.pods / name
    path.unlink()
    if how == "other text":
        path.write_text("the pod's own")
    elif how == "link":
        (node.folder / "secret").write_text("secret")
        path.symlink_to(node.folder / "secret")
    elif how == "FIFO":
        os.mkfifo(path)

    assert next_step(want, node.driver.observe(want)) is Step.WRITE_FILES
    await walk(node, want)

    assert path.read_text() == written
    assert how != "link" or (node.folder / "secret").read_text() == "secret"


@pytest.mark.parametrize("name", [*FILES, ".c0ffee-net1.new", ".c0ffee.json.new", ".c0ffee.env.new"])
async def test_every_file_is_removed(node: Node, name: str) -> None:
    """Of an absent attachment every single file is found and removed, what a killed daemon began to write included."""
    want = begin(node, APPLICATION, Goal.LEAVING)
    (node.pods / name).touch()
    (node.pods / "somebody-elses").touch()

    await walk(node, want)

    assert [path.name for path in node.pods.iterdir()] == ["somebody-elses"]


@pytest.mark.parametrize("name", FILES)
async def test_directory_for_a_file(node: Node, name: str) -> None:
    """A directory that a pod laid under the name of one of its files does not keep its port from being removed."""
    want = begin(node, APPLICATION)
    await walk(node, want)
    (node.pods / name).unlink()
    (node.pods / name).mkdir()
    leaving = begin(node, APPLICATION, Goal.LEAVING)

    await walk(node, leaving)

    assert node.switch.ports() == {}


async def test_interface_without_addresses_yet(node: Node) -> None:
    """An interface whose addresses are not known yet is not told to the application, the others of the sandbox are."""
    call = IpamCall(config(ipam={"type": "fake"}), (), "", "")
    node.journal.put(entry(attachment=Attachment("c0ffee", "net0"), created=0.5, ipam=call, goal=Goal.ATTACHING))
    want = begin(node, APPLICATION)

    await walk(node, want)

    made = node.journal.get(ATTACHMENT)
    assert made is not None
    assert (node.pods / "c0ffee.json").read_text() == podfiles.render([made])["c0ffee.json"]


# -- waiting ---------------------------------------------------------------------------------------------------------


async def waiting(node: Node, want: Want, step: Step, seen: Seen) -> asyncio.Task[None]:
    """A wait that has begun and is still on."""
    node.switch.waited.clear()
    task = asyncio.ensure_future(node.driver.wait(want, step, seen))
    await asyncio.wait_for(node.switch.waited.wait(), 5)
    assert not task.done()
    return task


@pytest.mark.parametrize("step", [Step.AWAIT_PORT, Step.AWAIT_REMOVAL])
async def test_wait_for_vswitchd(node: Node, step: Step) -> None:
    """Waiting for vswitchd ends when something about the port has changed."""
    node.switch.automatic = False
    want = begin(node, APPLICATION)
    seen = await walk(node, want, Step.AWAIT_PORT)
    task = await waiting(node, want, step, seen)

    node.switch.round()

    await asyncio.wait_for(task, 5)


@pytest.mark.parametrize("step", [Step.AWAIT_PORT, Step.AWAIT_REMOVAL])
async def test_change_before_the_wait(node: Node, step: Step) -> None:
    """What changed between the look and the wait is not waited for."""
    node.switch.automatic = False
    want = begin(node, APPLICATION)
    seen = await walk(node, want, Step.AWAIT_PORT)
    node.switch.round()

    await asyncio.wait_for(node.driver.wait(want, step, seen), 5)


async def _without_socket(node: Node) -> tuple[Want, Seen]:
    """A client-mode port whose socket was lost with vswitchd."""
    want = begin(node, OVS)
    await walk(node, want)
    node.switch.kill_vswitchd()
    seen = node.driver.observe(want)
    assert next_step(want, seen) is Step.AWAIT_SOCKET
    return want, seen


async def test_wait_for_a_socket(node: Node) -> None:
    """Waiting for a socket ends when vswitchd makes it."""
    want, seen = await _without_socket(node)
    task = await waiting(node, want, Step.AWAIT_SOCKET, seen)

    node.switch.start_vswitchd()

    await asyncio.wait_for(task, 5)


async def test_port_changed_before_the_wait_for_a_socket(node: Node) -> None:
    """What changed about the port between the look and the wait for its socket is not waited for either."""
    want, seen = await _without_socket(node)
    node.switch.remove_port(want.vif.name)

    await asyncio.wait_for(node.driver.wait(want, Step.AWAIT_SOCKET, seen), 2)


async def test_port_changes_instead(node: Node) -> None:
    """Waiting for a socket ends when the port changes, and leaves no task behind."""
    want, seen = await _without_socket(node)
    task = await waiting(node, want, Step.AWAIT_SOCKET, seen)

    node.switch.remove_port(want.vif.name)

    await asyncio.wait_for(task, 5)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_dead_socket_is_not_what_is_waited_for(node: Node) -> None:
    """While a dead socket lies where vswitchd will make its own, waiting for it really waits and does not spin."""
    want, seen = await _without_socket(node)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(want.vif.ovs_socket)
    seen = node.driver.observe(want)
    assert (next_step(want, seen), seen.ovs_socket) == (Step.AWAIT_SOCKET, SocketFile.DEAD)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(node.driver.wait(want, Step.AWAIT_SOCKET, seen), 0.1)


async def test_no_directory_to_wait_in(node: Node) -> None:
    """Without OVS's directory waiting for its socket is refused with the path."""
    want, seen = await _without_socket(node)
    for path in node.rundir.iterdir():
        path.unlink()
    node.rundir.rmdir()

    with pytest.raises(Refused, match=f"directory {node.rundir} cannot be watched"):
        await node.driver.wait(want, Step.AWAIT_SOCKET, seen)
