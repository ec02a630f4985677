"""The guard: rights of real directories and sockets, through the driver and the table."""

import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.core import rights as core
from podvif.core.attach import Step, Want, next_step
from podvif.errors import Refused
from podvif.host import rights
from podvif.host.machine import PidFile
from podvif.model import Access, Account, Goal, Listener, Rights, Vif
from podvif.node.converge import WAITS, World
from podvif.node.guard import Guard
from podvif.node.vhostuser import VIFVHostUserDriver
from tests.fakes.node import Node
from tests.fakes.settings import settings
from tests.fakes.values import ATTACHMENT, BOTH, entry

OVS = Account(60600, 60601)
POD = Access(61000, 62000)
USER = {"vswitchd_user": "60600:60601"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def driver(node: Node, **changes: Any) -> VIFVHostUserDriver:
    """A driver of the node's parts, with other settings."""
    changed = msgspec.structs.replace(node.settings, **changes)
    return VIFVHostUserDriver(node.switch, node.journal, node.ipam, changed)


def begin(node: Node, listener: Listener, access: Access | None) -> Want:
    """Want an attachment of the node."""
    made = entry(listener, vif=node.vif(listener), access=access)
    node.journal.put(made)
    return Want(ATTACHMENT, Goal.ATTACHED, made.vif)


async def walk(by: World, want: Want) -> list[Step]:
    """Do what the table decides, each step twice; returns the steps."""
    taken: list[Step] = []
    while step := next_step(want, seen := by.observe(want)):
        assert isinstance(step, Step), step
        taken.append(step)
        if step in WAITS:
            await by.wait(want, step, seen)
            continue
        await by.do(want, step, seen)
        if step in {Step.MEND_DIRECTORY, Step.MEND_SOCKET}:
            await by.do(want, step, seen)
    return taken


@pytest.mark.parametrize("listener", BOTH)
async def test_as_it_was(node: Node, listener: Listener) -> None:
    """Where nothing is set, the pod has no directory of its own and vswitchd may everything, nobody's rights are touched."""
    (node.pods).chmod(0o751)
    taken = await walk(node.driver, begin(node, listener, None))

    assert not {Step.MEND_DIRECTORY, Step.MEND_SOCKET} & set(taken)
    assert node.pods.stat().st_mode & 0o7777 == 0o751


@needs_root
@pytest.mark.parametrize("listener", BOTH)
async def test_own_directory(node: Node, listener: Listener) -> None:
    """A pod's own directory is the pod's before its port is made, and again after somebody has opened it to all."""
    want, by = begin(node, listener, POD), driver(node, **USER)

    taken = await walk(by, want)

    assert taken[0] is Step.MEND_DIRECTORY
    assert rights.look_at(str(node.pods)) == core.pod_directory(POD, OVS)
    node.pods.chmod(0o777)
    assert await walk(by, want) == [Step.MEND_DIRECTORY]
    assert rights.look_at(str(node.pods)) == core.pod_directory(POD, OVS)


@needs_root
async def test_socket_of_ovs(node: Node) -> None:
    """OVS's socket is the pod's before it is moved to the pod, and again after somebody has closed it."""
    want, by = begin(node, Listener.OVS, POD), driver(node, **USER)

    taken = await walk(by, want)

    assert taken.index(Step.MEND_SOCKET) < taken.index(Step.TAKE_SOCKET)
    assert rights.look_at(want.vif.socket) == Rights(61000, 62000, 0o660)
    Path(want.vif.socket).chmod(0)  # noqa: ASYNC240  it is quick
    assert await walk(by, want) == [Step.MEND_SOCKET]
    assert rights.look_at(want.vif.socket) == Rights(61000, 62000, 0o660)


@needs_root
async def test_shared_socket_of_ovs(node: Node) -> None:
    """In the shared directory OVS's socket gets the settings' group and mode."""
    want = begin(node, Listener.OVS, None)
    await walk(driver(node, socket_group="62000"), want)
    assert rights.look_at(want.vif.socket) == Rights(0, 62000, 0o660)
    await walk(driver(node, socket_mode="0606"), want)
    assert rights.look_at(want.vif.socket) == Rights(0, 62000, 0o606)


@needs_root
@pytest.mark.parametrize("access", [None, POD])
async def test_socket_of_application(node: Node, access: Access | None) -> None:
    """A socket that comes later, and one that takes its place, is opened to vswitchd, and to nobody else."""
    want, by = begin(node, Listener.APPLICATION, access), driver(node, **USER)
    await walk(by, want)
    for mode in (0o755, 0o700):
        with socket.socket(socket.AF_UNIX) as application:
            Path(want.vif.socket).unlink(missing_ok=True)  # noqa: ASYNC240  it is quick
            application.bind(want.vif.socket)
            os.chown(want.vif.socket, 61000, -1)
            Path(want.vif.socket).chmod(mode)  # noqa: ASYNC240  it is quick
            before = rights.look_at(want.vif.socket)
            assert before is not None
            assert not core.may(before, OVS, core.WRITE)
            assert await walk(by, want) == [Step.MEND_SOCKET]
            assert rights.look_at(want.vif.socket) == core.granted(before, OVS, core.READ | core.WRITE)


@needs_root
async def test_socket_that_was_swapped(node: Node) -> None:
    """What has taken the place of a socket between look and act is left alone, and so is what it leads to."""
    want, by = begin(node, Listener.APPLICATION, None), driver(node, **USER)
    await walk(by, want)
    path, victim = Path(want.vif.socket), node.folder / "victim"
    with socket.socket(socket.AF_UNIX) as application, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(victim))
        application.bind(str(path))
        seen = by.observe(want)
        assert next_step(want, seen) is Step.MEND_SOCKET
        path.unlink()  # noqa: ASYNC240  it is quick
        path.symlink_to(victim)  # noqa: ASYNC240  it is quick
        before = rights.look_at(str(victim))
        await by.do(want, Step.MEND_SOCKET, seen)
        assert rights.look_at(str(victim)) == before
        assert path.is_symlink()  # noqa: ASYNC240  it is quick


@needs_root
def test_directories(tmp_path: Path) -> None:
    """The way to the pods' directories is vswitchd's alone; the shared one gets its group and is nobody's to empty."""
    guard = Guard(settings(tmp_path, **USER, socket_group="62000"), lambda: None)
    way, own, shared = tmp_path / "run", tmp_path / "run" / "uid", tmp_path / "pods"
    guard.make_parent(str(way))
    guard.make_directory(str(own), POD)
    guard.make_mount_point(str(shared))

    assert rights.look_at(str(way)) == core.parent_directory(OVS)
    assert rights.look_at(str(own)) == core.pod_directory(POD, OVS)
    assert guard.is_directory_mended(str(own), POD)
    assert not guard.is_directory_mended(str(own), Access(61001))
    assert guard.is_directory_mended(str(shared), None)
    assert rights.look_at(str(shared)) == Rights(0, 62000, 0o3775)


def test_who_vswitchd_is(tmp_path: Path) -> None:
    """The user is the configured one, else the process's, which is remembered after its end; nobody knows of one never seen."""
    found: list[PidFile | None] = [None]
    guard = Guard(settings(tmp_path), lambda: found[0])
    assert guard.account() is None
    found[0] = PidFile("", alive=True, pid=os.getpid())
    this = guard.account()
    assert this is not None
    assert (this.uid, this.gid) == (os.geteuid(), os.getegid())
    found[0] = None
    guard.forget_process()
    assert guard.account() == this
    assert Guard(settings(tmp_path, **USER), lambda: found[0]).account() == OVS


def test_unknown_names(tmp_path: Path) -> None:
    """A user or group that the node has not is refused at the daemon's start."""
    for option in ("vswitchd_user", "socket_group"):
        with pytest.raises(Refused, match="none-of-that-name"):
            Guard(settings(tmp_path, **{option: "none-of-that-name"}), lambda: None)


def test_nothing_is_looked_at_in_vain(tmp_path: Path) -> None:
    """Where vswitchd may everything, the application's socket is not looked at, whatever lies there."""
    guard = Guard(settings(tmp_path, vswitchd_user="root"), lambda: None)
    port: Vif = entry().vif

    assert guard.is_socket_mended(port.socket, port, POD)
