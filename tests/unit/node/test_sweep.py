"""The sweep: what has no owner any more goes, and nothing else."""

import asyncio
import os
import socket
from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest

from podvif import names
from podvif.errors import Retry
from podvif.model import Attachment, Listener, Volume
from podvif.node.sweep import Sweep
from tests.fakes.mounts import FakeMounts
from tests.fakes.node import POD_UID, MakeNode, Node, volume
from tests.fakes.values import ATTACHMENT, config

CONTAINER = "0123456789abcdef" * 4


async def sweep(node: Node, grace: float = 0.0) -> None:
    """One pass with its own idea of grace, as recovery makes it."""
    settings = msgspec.structs.replace(node.settings, sweep_grace=grace)
    one = Sweep(node.journal, node.switch, node.driver, settings, node.volumes)
    for found in one.without_owner():
        await node.verbs.absent(found)
    await one.remove_files()
    await one.remove_volumes()


async def test_sandbox_is_gone(node: Node) -> None:
    """An attachment whose namespace is another one, or none, goes after the grace and leaves nothing."""
    await node.call("ADD", config(ipam={"type": "fake"}))
    made = node.journal.get(ATTACHMENT)
    assert made is not None
    node.journal.put(msgspec.structs.replace(made, netns_inode=1))

    await sweep(node, grace=1000.0)
    assert node.journal.get(ATTACHMENT) is not None
    await sweep(node)

    assert node.left() == []


async def test_living_sandbox(node: Node) -> None:
    """An attachment whose namespace is the one of its ADD stays as it is."""
    await node.call("ADD", config())
    before = node.left()

    await sweep(node)

    assert node.left() == before


async def test_journal_is_lost(node: Node) -> None:
    """An OVS port with our marks and no journal entry goes."""
    await node.call("ADD", config())
    node.journal.remove(ATTACHMENT)

    await sweep(node)

    assert node.switch.ports() == {}


async def test_journal_of_a_kernel_port_is_lost(node: Node) -> None:
    """So does a kernel port, as soon as its pod is gone with its devices; while they are there somebody uses them."""
    await node.call("ADD", config(portType="veth"))
    node.journal.remove(ATTACHMENT)
    (name,) = node.switch.ports()
    await sweep(node)
    assert list(node.switch.ports()) == [name]

    node.devices.delete(name)
    node.switch.kill_vswitchd()
    node.switch.start_vswitchd()
    await sweep(node)

    assert node.switch.ports() == {}


async def test_journal_is_lost_and_the_application_lives(node: Node) -> None:
    """Such a port stays as long as an application drives it."""
    await node.call("ADD", config())
    node.journal.remove(ATTACHMENT)
    (port,) = node.switch.ports().values()
    node.switch.add_port(msgspec.structs.replace(port, link_up=True))

    await sweep(node)

    assert list(node.switch.ports()) == [port.name]


@pytest.mark.parametrize(
    "ids",
    [
        {},
        {"iface-id": "9c9cc8f5-8888-4444-8888-000000000001"},
        {names.MARK_CONTAINER: "c0ffee", names.MARK_IFNAME: "net1", "iface-id": "9c9cc8f5-8888-4444-8888-000000000001"},
    ],
)
async def test_foreign_port(node: Node, ids: dict[str, str]) -> None:
    """A port that is not ours by marks and port id stays, whatever its name."""
    await node.call("ADD", config())
    (port,) = node.switch.ports().values()
    await node.call("DEL", config())
    node.switch.add_port(msgspec.structs.replace(port, external_ids=ids))

    await sweep(node)

    assert list(node.switch.ports()) == [port.name]


async def test_files_without_an_owner(node: Node) -> None:
    """Files of a container id that the journal does not know go, when they are older than the grace."""
    listed = [f"{CONTAINER}.json", f"{CONTAINER}.env", f"{CONTAINER}-net1", f".{CONTAINER}.env.new"]
    for name in listed:
        (node.pods / name).touch()

    await sweep(node, grace=1000.0)
    assert len(os.listdir(node.pods)) == len(listed)  # noqa: PTH208
    await sweep(node)

    assert os.listdir(node.pods) == []  # noqa: PTH208


async def test_files_of_the_pods(node: Node) -> None:
    """What is not named like a file of ours is the pods' own and stays."""
    for name in ("notes.txt", "c0ffee.json", "vhu-mine", f"{CONTAINER}", f"{CONTAINER[:-1]}.json"):
        (node.pods / name).touch()
    before = sorted(os.listdir(node.pods))  # noqa: PTH208

    await sweep(node)

    assert sorted(os.listdir(node.pods)) == before  # noqa: PTH208


async def test_files_of_an_attachment(node: Node) -> None:
    """The files of what the journal knows stay."""
    attachment = Attachment(CONTAINER, "net1")
    await node.call("ADD", config(), attachment)
    before = sorted(os.listdir(node.pods))  # noqa: PTH208

    await sweep(node)

    assert sorted(os.listdir(node.pods)) == before  # noqa: PTH208


def _socket(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made


async def test_dead_socket_without_an_owner(node: Node) -> None:
    """A dead socket that no OVS port uses and no entry names goes; a living one, and one that a port uses, stays."""
    dead, living, used = "vhu00000000-01", "vhu00000000-02", "vhu00000000-03"
    for name in (dead, used):
        _socket(node.pods / name).close()
    vif = node.vif(Listener.APPLICATION)
    await node.call("ADD", config())
    (port,) = node.switch.ports().values()
    node.switch.add_port(
        msgspec.structs.replace(port, name="vm", external_ids={}, vhost_server_path=str(node.pods / used))
    )

    with _socket(node.pods / living):
        await sweep(node)

    assert {name for name in os.listdir(node.pods) if name.startswith("vhu")} == {living, used}  # noqa: PTH208
    assert vif.name in node.switch.ports()


async def test_dead_socket_where_ovs_binds(node: Node) -> None:
    """A dead socket that a killed vswitchd has left and no OVS port and no entry names goes; that of a port stays."""
    dead, used = "vhu00000000-01", "vhu00000000-02"
    await node.call("ADD", config())
    (port,) = node.switch.ports().values()
    node.switch.add_port(msgspec.structs.replace(port, name=used, external_ids={}))
    for name in (dead, used):
        _socket(node.rundir / name).close()

    await sweep(node)

    assert {path.name for path in node.rundir.glob("vhu*")} == {used}


async def unmounted(node: Node) -> Volume:
    """A volume whose mount is gone, or never came."""
    made = volume(node)
    await node.volumes.publish(made)
    node.mounts.table.clear()
    return made


async def test_volume_is_mounted_nowhere(node: Node) -> None:
    """A volume that is mounted nowhere goes after the grace with its directory and its record, and one that is mounted stays."""
    other = volume(node, "11111111-6d0a-4a57-9d7e-2b1f6f3c7a41")
    await unmounted(node)
    await node.volumes.publish(other)

    await sweep(node, grace=1000.0)
    assert len(node.volumes.all()) == 2
    await sweep(node)

    assert [each.id for each in node.volumes.all()] == [other.id]
    assert [path.name for path in node.own.iterdir()] == [other.pod.uid]
    records = names.volume_directory(node.settings.state_dir)
    assert os.listdir(records) == [names.volume_file(other.id)]  # noqa: PTH208


class UnreadableTable(FakeMounts):
    """A mount table that cannot be read just now."""

    def mount_points(self, among: Collection[str]) -> set[str]:
        raise Retry("the mount table cannot be read: Too many open files")


async def test_mount_table_cannot_be_read(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    """While nobody can tell what is mounted every volume stays, and that is said."""
    node = make_node(mounts=UnreadableTable())
    await unmounted(node)

    await sweep(node)

    assert len(node.volumes.all()) == 1
    assert "Too many open files" in caplog.text


async def test_volume_is_mounted_again(node: Node) -> None:
    """The grace begins anew for a volume that was mounted between."""
    made = await unmounted(node)
    one = Sweep(
        node.journal, node.switch, node.driver, msgspec.structs.replace(node.settings, sweep_grace=0.05), node.volumes
    )

    await one.remove_volumes()
    await asyncio.sleep(0.1)
    await node.volumes.publish(made)
    await one.remove_volumes()
    node.mounts.table.clear()
    await one.remove_volumes()

    assert [each.id for each in node.volumes.all()] == [made.id]


async def test_volume_of_an_attachment(node: Node) -> None:
    """A volume that is mounted nowhere stays as long as its pod has an attachment with it."""
    await unmounted(node)
    args = f"K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID={POD_UID}"
    await node.call("ADD", config(), CNI_ARGS=args)

    await sweep(node)
    assert len(node.volumes.all()) == 1
    await node.call("DEL", config(), CNI_ARGS=args)
    await sweep(node)

    assert (node.volumes.all(), list(node.own.iterdir()), node.left()) == ([], [], [])


async def test_volume_that_cannot_be_removed(node: Node) -> None:
    """A volume whose directory cannot go keeps its record, and the next round has it."""
    await unmounted(node)
    (node.own / POD_UID).rmdir()
    (node.own / POD_UID).write_text("")
    await sweep(node)
    assert len(node.volumes.all()) == 1

    (node.own / POD_UID).unlink()
    await sweep(node)

    assert node.volumes.all() == []


async def test_ovsdb_is_away(node: Node) -> None:
    """Without OVSDB nobody knows whose a file is: all stay."""
    (node.pods / f"{CONTAINER}.json").touch()
    node.switch.lose_ovsdb()

    await sweep(node)

    assert os.listdir(node.pods) == [f"{CONTAINER}.json"]  # noqa: PTH208
