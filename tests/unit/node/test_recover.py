"""Recovery: after a start, and when OVSDB can be asked again."""

import asyncio
import base64
import contextlib
import json
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif import names
from podvif.core.attach import Link, Step
from podvif.errors import Retry
from podvif.host import files
from podvif.model import Attachment, Goal, IpamCall, Listener, SocketFile
from podvif.node.recover import _PAUSE, Recovery
from podvif.node.server import Server
from tests.fakes.ipam import FakeIpam
from tests.fakes.node import MODE, MakeNode, Node, recovering, until, volume
from tests.fakes.values import ATTACHMENT, BOTH, config, entry, environment

OTHER = Attachment("beef", "net1")


def network(listener: Listener = Listener.APPLICATION, **changes: Any) -> dict[str, Any]:
    return config(**{"vhostuserMode": MODE[listener], "ipam": {"type": "fake"}} | changes)


def goal(node: Node, attachment: Attachment = ATTACHMENT) -> Goal | None:
    found = node.journal.get(attachment)
    return found.goal if found else None


async def test_half_an_add(node: Node) -> None:
    """An ADD that had not answered is leaving before anybody is served, and gone after recovery."""
    node.journal.put(entry(goal=Goal.ATTACHING, vif=node.vif()))
    daemon = node.again()

    assert goal(daemon) is Goal.LEAVING
    await daemon.recover()
    assert daemon.left() == []


@pytest.mark.parametrize("listener", BOTH)
async def test_nothing_to_do(node: Node, listener: Listener) -> None:
    """What stands as it should is left alone."""
    await node.call("ADD", network(listener))
    before = node.switch.facts().next_cfg

    await node.again().recover()

    assert node.switch.facts().next_cfg == before


@pytest.mark.parametrize("listener", BOTH)
async def test_vswitchd_is_restarted(node: Node, listener: Listener) -> None:
    """After a restart of vswitchd the new socket of a client-mode port is in the pod's place again."""
    await node.call("ADD", network(listener))
    node.switch.kill_vswitchd()
    recovering = asyncio.ensure_future(node.recover())
    await asyncio.sleep(0)
    node.switch.start_vswitchd()

    await asyncio.wait_for(recovering, 5)

    found = files.look_at_socket(node.vif(listener).socket, [None])
    assert found is (SocketFile.BOUND if listener is Listener.OVS else SocketFile.ABSENT)
    assert not Path(node.vif(listener).ovs_socket).exists()  # noqa: ASYNC240


async def test_everything_was_lost_meanwhile(node: Node) -> None:
    """Port and files that somebody has removed are made again, the address stays."""
    answer = await node.call("ADD", network(Listener.OVS))
    node.switch.remove_port(node.vif().name)
    for path in node.pods.iterdir():
        path.unlink()
    daemon = node.again()

    await daemon.recover()

    assert await daemon.call("CHECK", network(Listener.OVS, prevResult=answer)) == {}
    assert node.ipam.calls == ["ADD", "CHECK"]


async def test_one_fails(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be recovered is said and tried again; the others are recovered."""
    for attachment in (ATTACHMENT, OTHER):
        await node.call("ADD", network(), attachment)
        node.switch.lose_ovsdb()
        await node.call("DEL", network(), attachment)
        node.switch.regain_ovsdb()
    node.life.failures["before", Step.UNPLUG] = Retry("this one fails")

    with caplog.at_level(logging.WARNING):
        await node.recover()

    assert "net1 is not as it should be: this one fails" in caplog.text
    await node.recover()
    assert node.left() == []


async def test_ovsdb_is_still_away(node: Node) -> None:
    """While OVSDB is away everything stays in the journal as it was."""
    await node.call("ADD", network())
    await node.call("ADD", network(), OTHER)
    node.switch.lose_ovsdb()
    await node.call("DEL", network(), OTHER)

    await node.recover()

    assert (goal(node), goal(node, OTHER)) == (Goal.ATTACHED, Goal.LEAVING)


_VSWITCHD = """
import fcntl, os, sys
with open(sys.argv[1], "w") as file:
    print(os.getpid(), file=file, flush=True)
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("up", flush=True)
    input()
"""


@contextlib.asynccontextmanager
async def process_of_vswitchd(node: Node) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that holds vswitchd's pid file as vswitchd does, and ends when it is written to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _VSWITCHD, str(node.rundir / "ovs-vswitchd.pid"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    await process.stdout.readline()
    try:
        yield process
    finally:
        await process.communicate(b"\n")


async def test_application_dies_before_it_is_connected(node: Node) -> None:
    """The socket of an application that ends before Open vSwitch has connected goes, though nothing tells of it."""
    await node.call("ADD", network())
    path = Path(node.vif().socket)
    async with recovering(node):
        with socket.socket(socket.AF_UNIX) as application:
            application.bind(str(path))
            await until(lambda: ATTACHMENT in node.recovery._again and os.path.lexists(path))

        await until(lambda: not os.path.lexists(path))


async def test_application_dies_while_no_vswitchd_runs(node: Node) -> None:
    """The socket of an application that ends while vswitchd is away goes, though OVSDB still calls it connected."""
    await node.call("ADD", network())
    path = node.vif().socket
    async with process_of_vswitchd(node) as vswitchd, recovering(node):
        (port,) = node.switch.ports().values()
        with socket.socket(socket.AF_UNIX) as application:
            application.bind(path)
            node.switch.add_port(msgspec.structs.replace(port, status={"status": "connected"}, link_up=True))
        await until(lambda: [each.link for each in node.recovery.links().values()] == [Link.CONNECTED])

        await vswitchd.communicate(b"\n")

        await until(lambda: not os.path.lexists(path))


async def test_dead_socket_while_a_verb_is_busy(node: Node) -> None:
    """What an ended vswitchd has left in the next one's way goes also while an ADD waits for it."""
    node.switch.pause_vswitchd()
    async with process_of_vswitchd(node) as vswitchd, recovering(node):
        adding = asyncio.ensure_future(node.call("ADD", network(Listener.OVS)))
        await node.switch.waited.wait()
        path = node.vif(Listener.OVS).ovs_socket
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)

        await vswitchd.communicate(b"\n")

        await until(lambda: not os.path.lexists(path))
        node.switch.start_vswitchd()
        await asyncio.wait_for(adding, 10)


async def test_vswitchd_has_lost_its_listener(node: Node) -> None:
    """Where vswitchd runs, has the port, and for long has made no socket, the port is made again."""
    await node.call("ADD", network(Listener.OVS))
    vif = node.vif(Listener.OVS)
    async with process_of_vswitchd(node), recovering(node):
        listening = node.switch._devices[vif.name].listening
        assert listening
        listening.close()
        node.recovery.touch(ATTACHMENT, "test")
        await until(lambda: ATTACHMENT in node.recovery._again)
        assert files.look_at_socket(vif.socket, [None]) is SocketFile.DEAD

        node.recovery._ring(ATTACHMENT)

        await until(lambda: files.look_at_socket(vif.socket, [None]) is SocketFile.BOUND)


async def test_failed_verb_is_followed_up(make_node: MakeNode) -> None:
    """A DEL that fails is finished by recovery, whether the runtime comes again or not."""
    node = make_node(ipam=(ipam := FakeIpam()))
    await node.call("ADD", network())

    def fail(verb: str) -> None:
        if ipam.calls.count(verb) == 0:
            ipam.calls.append(verb)
            raise Retry("the plugin fails once")

    ipam.before_act = fail
    async with recovering(node):
        with pytest.raises(Retry, match="the plugin fails once"):
            await node.call("DEL", network())
        assert goal(node) is Goal.LEAVING

        await until(lambda: goal(node) is None)


async def test_pause_after_a_verb(node: Node) -> None:
    """What an ADD itself has done is looked into, and not before a pause after its end: whoever called it goes first."""
    async with recovering(node):
        await node.call("ADD", network(Listener.OVS))
        ended, looks = node.recovery._looked[ATTACHMENT], node.life.looks
        await until(lambda: node.life.looks > looks)

        assert time.monotonic() - ended >= _PAUSE


@pytest.mark.parametrize("endpoint", ["", "/csi.sock"])
async def test_volumes_in_rounds(node: Node, endpoint: str) -> None:
    """A round removes a volume that is mounted nowhere where podvif is a CSI driver; else kubelet's mounts need not be in sight, and it stays."""
    await node.call("ADD", network())
    await node.volumes.publish(volume(node))
    node.mounts.table.clear()
    settings = msgspec.structs.replace(node.settings, resync_interval=0.01, sweep_grace=0.0, csi_endpoint=endpoint)
    node.recovery = Recovery(node.journal, node.verbs, node.driver, node.switch, settings, volumes=node.volumes)
    async with recovering(node):
        looks = node.life.looks
        await until(lambda: node.life.looks > looks + 3 if endpoint == "" else not node.volumes.all())

    assert len(node.volumes.all()) == (endpoint == "")


async def test_directory_is_made_again(node: Node) -> None:
    """A pods' directory that was away is watched again as soon as it is back."""
    await node.call("ADD", network())
    path = node.pods / names.attachment_file(ATTACHMENT)
    async with recovering(node):
        for found in node.pods.iterdir():
            found.unlink()
        node.pods.rmdir()
        await until(lambda: ATTACHMENT in node.recovery._again)
        node.pods.mkdir()
        await until(path.is_file)

        path.unlink()

        await until(path.is_file)


class SlowIpam(FakeIpam):
    """Gives back the addresses of all sandboxes but one only when it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.asked = 0

    async def remove(self, attachment: Attachment, call: IpamCall) -> None:
        if attachment != ATTACHMENT:
            self.asked += 1
            await self.go_on.wait()
        await super().remove(attachment, call)


async def test_added_anew_before_its_turn(make_node: MakeNode) -> None:
    """What was leaving when recovery began, and was added anew before its turn came, stays."""
    ipam = SlowIpam()
    node = make_node(ipam=ipam)
    many = [Attachment(f"pod{number}", "net1") for number in range(20)]
    for attachment in [*many, ATTACHMENT]:
        await node.call("ADD", network(), attachment)
    node.switch.lose_ovsdb()
    for attachment in [*many, ATTACHMENT]:
        await node.call("DEL", network(), attachment)
    node.switch.regain_ovsdb()
    recovering = asyncio.ensure_future(node.recover())
    while not ipam.asked:  # noqa: ASYNC110  the loop's own next round is the event
        await asyncio.sleep(0)

    await node.call("ADD", network())
    ipam.go_on.set()
    await asyncio.wait_for(recovering, 5)

    assert goal(node) is Goal.ATTACHED
    assert [each.attachment for each in node.journal.all()] == [ATTACHMENT]
    assert len(node.switch.ports()) == 1


async def test_calls_between_looks(make_node: MakeNode, tmp_path: Path) -> None:
    """A verb that comes while very many attachments are to be looked at is answered long before all of them are."""
    node = make_node()
    many = [Attachment(f"pod{number}", "net1") for number in range(100)]
    answer = {attachment: await node.call("ADD", network(), attachment) for attachment in many}[many[0]]
    path = str(tmp_path / "s" / "cni.sock")
    server = Server(path, node.verbs, {})
    await server.start()
    async with recovering(node):
        looks = node.life.looks
        node.recovery.touch_all("test")
        assert await ask(path, "CHECK", network(prevResult=answer), many[0]) == 0
        meanwhile = node.life.looks - looks
        await until(lambda: not node.recovery._workers)
        assert node.life.looks - looks > len(many)
    await server.stop()

    assert meanwhile < len(many) / 2


async def ask(path: str, command: str, network: dict[str, Any], attachment: Attachment) -> int:
    """Call a verb as the plugin does; its exit code."""
    stdin = base64.b64encode(json.dumps(network).encode()).decode()
    frame = json.dumps({"shim": "0.1.0", "env": environment(command, attachment), "stdin": stdin}).encode()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(struct.pack(">I", len(frame)) + frame)
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(json.loads(reply[4:])["code"])
