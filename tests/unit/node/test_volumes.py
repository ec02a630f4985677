"""Volumes: directories of pods, from kubelet's first call to its last, and whatever comes between."""

import asyncio
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif import errors, names
from podvif.errors import Refused, Retry
from podvif.model import Access, Attachment, Listener, Pod, SocketDir, Volume
from podvif.node.sweep import Sweep
from podvif.node.volumes import Volumes
from podvif.settings import Settings
from tests.fakes.mounts import FakeMounts, FakePodDirectories
from tests.fakes.node import MODE, Death, Life, MakeNode, Node
from tests.fakes.node import volume as node_volume
from tests.fakes.settings import settings
from tests.fakes.values import ATTACHMENT, BOTH, config

UID, OTHER = "0d5bd2f5-6d0a-4a57-9d7e-2b1f6f3c7a41", "11111111-6d0a-4a57-9d7e-2b1f6f3c7a41"


class World:
    """A node's disk and mount table, and daemons on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: Settings = settings(folder, run_dir=str(folder / "run"), csi_endpoint=str(folder / "csi.sock"))
        self.mounts = FakeMounts()
        self.directories = FakePodDirectories()
        self.own = folder / "run" / "pods"
        self.kubelet = folder / "kubelet"
        self.kubelet.mkdir()

    def daemon(self) -> Volumes:
        """Another daemon on what the last one has left."""
        return Volumes(self.settings, self.mounts, self.directories)

    def volume(self, uid: str = UID, name: str = "v", **changes: Any) -> Volume:
        """What kubelet asks for."""
        values: dict[str, Any] = {
            "id": f"csi-{uid}-{name}",
            "target": str(self.kubelet / f"{uid}-{name}"),
            "pod": Pod("ns", f"p{uid[:4]}", uid),
            "mounted_at": SocketDir("/sockets"),
        }
        return Volume(**values | changes)

    def target(self, volume: Volume) -> Path:
        """Where kubelet wants it."""
        return Path(volume.target)

    @property
    def records(self) -> Path:
        """Where the records are."""
        return Path(names.volume_directory(self.settings.state_dir))

    def left(self) -> list[str]:
        """All that stands for some volume."""
        return [
            *(f"mount {target}" for target in self.mounts.table),
            *(
                f"path {path.name}"
                for folder in (self.own, self.kubelet, self.records)
                for path in sorted(folder.glob("*"))
            ),
        ]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A node without volumes."""
    return World(tmp_path)


async def test_published(world: World) -> None:
    """A pod gets a directory with its group at kubelet's target, again and again the same one."""
    volumes, volume = world.daemon(), world.volume(fs_group=1234)

    for _ in range(3):
        await volumes.publish(volume)

    directory = str(world.own / UID)
    assert list(world.mounts.table) == [volume.target]
    assert world.directories.owners == {directory: Access(gid=1234)}
    found = volumes.of_pod(volume.pod)
    assert found is not None
    assert msgspec.structs.replace(found, created=0.0) == volume
    assert (volumes.directory_of(found), volumes.directories()) == (directory, [directory])


async def test_unpublished(world: World) -> None:
    """After the last call nothing is left, whatever the pod has put there, and one call more is fine."""
    volumes, volume = world.daemon(), world.volume()
    await volumes.publish(volume)
    (world.own / UID / "d").mkdir()
    (world.own / UID / "d" / "x").symlink_to("/etc")

    for _ in range(2):
        await volumes.unpublish(volume.id, volume.target)

    assert world.left() == []
    assert volumes.of_pod(volume.pod) is None


async def test_never_published(world: World) -> None:
    """A volume that nobody has published is unpublished already, with or without its target."""
    volume = world.volume()
    world.target(volume).mkdir()

    await world.daemon().unpublish(volume.id, volume.target)
    await world.daemon().unpublish(volume.id, volume.target)

    assert world.left() == []


async def test_known_to_the_next_daemon(world: World) -> None:
    """What kubelet has said outlives the daemon, and nobody but root can read it."""
    volume = world.volume(fs_group=5, read_only=True)
    await world.daemon().publish(volume)

    volumes = world.daemon()

    found = volumes.of_pod(Pod("ns", "p", UID))
    assert found is not None
    assert msgspec.structs.replace(found, created=0.0) == volume
    assert [path.stat().st_mode & 0o077 for path in (world.records, *world.records.iterdir())] == [0, 0]
    await volumes.unpublish(volume.id, volume.target)
    assert world.left() == []


class Killed(BaseException):
    """The daemon has ended here."""


class Dying(FakeMounts):
    """A mount table whose caller dies at a moment of the next act."""

    def __init__(self, before: bool) -> None:  # noqa: FBT001  a test's parameter
        super().__init__()
        self._before = before
        self.armed = True

    def _die(self, before: bool) -> None:  # noqa: FBT001  as above
        if self.armed and before is self._before:
            self.armed = False
            raise Killed

    def ensure_bound(self, directory: str, target: str, *, read_only: bool) -> None:
        self._die(before=True)
        super().ensure_bound(directory, target, read_only=read_only)
        self._die(before=False)

    def ensure_unbound(self, directory: str, target: str) -> None:
        self._die(before=True)
        super().ensure_unbound(directory, target)
        self._die(before=False)


@pytest.mark.parametrize("before", [True, False])
async def test_killed_while_publishing(world: World, before: bool) -> None:  # noqa: FBT001  pytest names it
    """A daemon that dies before or after the mount leaves what the next call of kubelet, whichever it is, makes good."""
    volume = world.volume()
    for last_call in ("publish", "unpublish"):
        world.mounts = Dying(before)
        with pytest.raises(Killed):
            await world.daemon()._publish(volume)

        volumes = world.daemon()
        if last_call == "publish":
            await volumes.publish(volume)
            assert list(world.mounts.table) == [volume.target]
        await volumes.unpublish(volume.id, volume.target)
        assert world.left() == []


@pytest.mark.parametrize("before", [True, False])
async def test_killed_while_unpublishing(world: World, before: bool) -> None:  # noqa: FBT001  pytest names it
    """A daemon that dies before or after the unmount leaves what kubelet's next call takes away."""
    world.mounts = Dying(before)
    world.mounts.armed = False
    volume = world.volume()
    await world.daemon().publish(volume)
    world.mounts.armed = True
    with pytest.raises(Killed):
        await world.daemon()._unpublish(volume.id, volume.target, UID)

    await world.daemon().unpublish(volume.id, volume.target)

    assert world.left() == []


async def test_after_a_reboot(world: World) -> None:
    """After a reboot, with neither mounts nor directories, a volume is published anew, or goes."""
    volume = world.volume()
    await world.daemon().publish(volume)
    world.mounts.table.clear()
    (world.own / UID).rmdir()

    await world.daemon().publish(volume)
    assert (world.own / UID).is_dir()
    world.mounts.table.clear()
    (world.own / UID).rmdir()
    world.target(volume).rmdir()
    await world.daemon().unpublish(volume.id, volume.target)

    assert world.left() == []


async def test_records_are_lost(world: World) -> None:
    """Without records the mount table says whose directory is to go."""
    volume = world.volume()
    await world.daemon().publish(volume)
    for path in world.records.iterdir():
        path.unlink()

    await world.daemon().unpublish(volume.id, volume.target)

    assert world.left() == []


async def test_somebody_else_is_mounted(world: World) -> None:
    """A target at which something else is mounted is refused, both ways, and nothing is left of what was begun."""
    volume, foreign = world.volume(), world.folder / "foreign"
    foreign.mkdir()
    world.mounts.ensure_bound(str(foreign), volume.target, read_only=False)
    before = world.left()

    with pytest.raises(Refused, match="something else") as caught:
        await world.daemon().publish(volume)
    with pytest.raises(Refused, match="something else"):
        await world.daemon().unpublish(volume.id, volume.target)

    assert caught.value.code == errors.IO_FAILURE
    assert world.left() == before


async def test_two_volumes_of_one_pod(world: World) -> None:
    """Two volumes of a pod show one directory, which goes with the last of them."""
    volumes, first, second = world.daemon(), world.volume(name="a"), world.volume(name="b", read_only=True)
    await volumes.publish(first)
    await volumes.publish(second)
    assert len(list(world.own.iterdir())) == 1
    assert [read_only for _, read_only in world.mounts.table.values()] == [False, True]
    assert volumes.of_pod(first.pod) == volumes.all()[0]

    await volumes.unpublish(first.id, first.target)
    assert (world.own / UID).is_dir()
    await volumes.unpublish(second.id, second.target)

    assert world.left() == []


async def test_two_mount_paths_of_one_pod(world: World) -> None:
    """Files that can name one path only cannot serve a pod that mounts its directory at two."""
    volumes = world.daemon()
    await volumes.publish(world.volume(name="a"))

    with pytest.raises(Refused, match="mountPath /sockets and one with /other") as caught:
        await volumes.publish(world.volume(name="b", mounted_at=SocketDir("/other")))

    assert "one volume" in caught.value.remedy


async def test_user(world: World) -> None:
    """A directory belongs to the user that the pod says, beside its group."""
    await world.daemon().publish(world.volume(user=1000, fs_group=1234))

    assert list(world.directories.owners.values()) == [Access(1000, 1234)]


async def test_two_users_of_one_pod(world: World) -> None:
    """One directory has one owner: the pod's other volume that says another user is refused, and told of fsGroup."""
    volumes = world.daemon()
    await volumes.publish(world.volume(name="a", user=1000))
    before = world.left()

    with pytest.raises(Refused, match="user 1000 and one with 0") as caught:
        await volumes.publish(world.volume(name="b"))

    assert "fsGroup" in caught.value.remedy
    assert world.left() == before


async def test_volume_of_another_pod(world: World) -> None:
    """A volume's id is one pod's."""
    volumes, volume = world.daemon(), world.volume()
    await volumes.publish(volume)

    with pytest.raises(Refused, match="published for another pod"):
        await volumes.publish(msgspec.structs.replace(volume, pod=Pod("ns", "q", OTHER)))

    assert volumes.directories() == [str(world.own / UID)]


async def test_another_target(world: World) -> None:
    """A volume that kubelet wants at another place is there, and no more at the former one."""
    volumes, volume = world.daemon(), world.volume()
    moved = msgspec.structs.replace(volume, target=f"{volume.target}-2")
    await volumes.publish(volume)
    await volumes.publish(moved)

    assert list(world.mounts.table) == [moved.target]
    await volumes.unpublish(volume.id, volume.target)
    assert world.left() == []


async def test_a_pod_without_uid(world: World) -> None:
    """A runtime that says no UID is understood by the pod's name, as long as one pod has it."""
    volumes, pod = world.daemon(), Pod("ns", "p")
    named = {uid: world.volume(uid, pod=Pod("ns", "p", uid)) for uid in (UID, OTHER)}
    assert volumes.of_pod(pod) is None

    await volumes.publish(named[UID])
    found = volumes.of_pod(pod)
    assert found is not None
    assert found.pod.uid == UID
    await volumes.publish(named[OTHER])
    with pytest.raises(Refused, match="two pods called ns/p"):
        volumes.of_pod(pod)
    assert volumes.of_pod(Pod()) is None


async def test_disk_is_full(world: World) -> None:
    """A record that cannot be written fails before anything is made."""
    volumes = world.daemon()
    world.records.parent.mkdir()
    world.records.write_text("")

    with pytest.raises((Refused, Retry), match="state_dir"):
        await volumes.publish(world.volume())

    assert not world.own.exists()


async def test_unreadable_record(world: World) -> None:
    """A record that is none is set aside, and kubelet's next call makes another."""
    volume = world.volume()
    await world.daemon().publish(volume)
    (path,) = world.records.iterdir()
    path.write_text("{")
    (path.parent / f".{path.name}.new").write_text("half")

    volumes = world.daemon()

    assert volumes.all() == []
    assert [each.name for each in path.parent.iterdir()] == [f"{path.name}.unreadable"]
    await volumes.publish(volume)
    assert len(world.daemon().all()) == 1


@pytest.mark.parametrize("uid", ["../../etc", ""])
async def test_record_of_a_strange_uid(world: World, uid: str) -> None:
    """A record whose UID could name another directory is none."""
    volume = world.volume(pod=Pod("ns", "p", uid))
    world.records.mkdir(parents=True)
    (world.records / names.volume_file(volume.id)).write_bytes(msgspec.json.encode(volume))

    assert world.daemon().all() == []


async def test_told(world: World) -> None:
    """Whoever wants to know is told of a directory that has come, and of one before it goes."""
    volumes, volume = world.daemon(), world.volume()
    told: list[tuple[str, bool, bool]] = []
    volumes.on_directory(lambda directory, there: told.append((directory, there, Path(directory).exists())))

    await volumes.publish(volume)
    await volumes.unpublish(volume.id, volume.target)

    directory = str(world.own / UID)
    assert told == [(directory, True, True), (directory, False, True)]


class Full(FakePodDirectories):
    """Directories for which there is no space."""

    def ensure_pod_directory(self, path: str, access: Access) -> None:
        super().ensure_pod_directory(path, access)
        raise Retry("no space")


async def given_up(world: World) -> tuple[Volumes, Volume]:
    """A volume that failed for a while and then for good, since something else lies at its target."""
    volume, directories = world.volume(), world.directories
    world.directories = Full()
    volumes = world.daemon()
    with pytest.raises(Retry):
        await volumes.publish(volume)
    world.directories = directories
    volumes = world.daemon()
    world.target(volume).write_text("")
    with pytest.raises(Refused, match="no directory"):
        await volumes.publish(volume)
    return volumes, volume


async def test_given_up(world: World) -> None:
    """A volume that kubelet has given up is known as mounted nowhere, and forgotten with all but what is another's."""
    volumes, _ = await given_up(world)
    assert (len(list(world.own.iterdir())), len(list(world.records.iterdir()))) == (1, 1)
    (found,) = await volumes.unmounted()

    assert await volumes.forget_unmounted(found, lambda: False)

    assert world.left() == [f"path {Path(found.target).name}"]
    assert await volumes.unmounted() == volumes.all() == []


async def test_not_given_up(world: World) -> None:
    """What is used, mounted, unpublished or another volume by the time that it would be forgotten is left alone."""
    volumes, volume = await given_up(world)
    (found,) = await volumes.unmounted()

    assert not await volumes.forget_unmounted(found, lambda: True)
    world.target(volume).unlink()
    await volumes.publish(volume)
    assert await volumes.unmounted() == []
    assert not await volumes.forget_unmounted(found, lambda: False)
    assert list(world.mounts.table) == [volume.target]
    await volumes.unpublish(volume.id, volume.target)
    assert not await volumes.forget_unmounted(found, lambda: False)
    await volumes.publish(world.volume(mounted_at=SocketDir("/other")))
    world.mounts.table.clear()
    assert not await volumes.forget_unmounted(found, lambda: False)
    assert (world.own / UID).is_dir()


@pytest.mark.parametrize("first", ["publish", "forget"])
async def test_published_meanwhile(world: World, first: str) -> None:
    """Whichever comes first, a volume that is published while it is to be forgotten is published in the end."""
    volumes, volume = await given_up(world)
    (found,) = await volumes.unmounted()
    world.target(volume).unlink()

    acts = {"publish": volumes.publish(volume), "forget": volumes.forget_unmounted(found, lambda: False)}
    done = await asyncio.gather(*(acts[each] for each in sorted(acts, key=lambda each: each != first)))

    assert (first == "forget") in done
    assert (list(world.mounts.table), (world.own / UID).is_dir()) == ([volume.target], True)
    assert [each.id for each in world.daemon().all()] == [volume.id]


class Slow(FakePodDirectories):
    """Directories whose removal takes until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.go = threading.Event()

    def remove_pod_directory(self, path: str) -> None:
        self.began.set()
        self.go.wait(20)
        super().remove_pod_directory(path)


async def test_caller_gives_up(world: World) -> None:
    """A call that kubelet gives up on goes on to its end: the next one waits for it, and other pods do not."""
    slow = world.directories = Slow()
    volumes, volume = world.daemon(), world.volume()
    await volumes.publish(volume)
    first = asyncio.ensure_future(volumes.unpublish(volume.id, volume.target))
    await asyncio.to_thread(slow.began.wait, 20)
    first.cancel()
    again = asyncio.ensure_future(volumes.publish(volume))

    await volumes.publish(world.volume(OTHER))
    assert not again.done()
    slow.go.set()
    await again

    assert (world.own / UID).is_dir()
    assert len(volumes.all()) == 2
    await volumes.stop()


def test_why_not(world: World) -> None:
    """A node whose run_dir can be had serves volumes, and one whose cannot says which option it is."""
    assert world.daemon().why_not() is None
    assert world.own.stat().st_mode & 0o777 == 0o700

    world.own.rmdir()
    world.own.write_text("")
    assert "[node] run_dir" in (world.daemon().why_not() or "")


# -- over the whole daemon ---------------------------------------------------------------------------------------------


def of(uid: str) -> dict[str, Any]:
    """What a runtime says of a pod."""
    return {"CNI_ARGS": f"K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID={uid}"}


def network(listener: Listener) -> dict[str, Any]:
    return config(vhostuserMode=MODE[listener])


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("listener", BOTH)
async def test_add_with_a_volume(node: Node, listener: Listener) -> None:
    """A pod that has a volume finds everything in its own directory, under its own path, and nothing is in the shared one."""
    await node.volumes.publish(node_volume(node))

    answer = await node.call("ADD", network(listener), **of(UID))

    port = node.vif(listener).name
    own = node.own / UID
    expected = {"interfaces.json", "vhostuser.env", f"{ATTACHMENT.container_id}-{ATTACHMENT.ifname}"}
    assert listing(own) == expected | ({port} if listener is Listener.OVS else set())
    assert listing(node.pods) == set()
    assert f"path=/sockets/{port}," in (own / "vhostuser.env").read_text()
    assert answer["interfaces"][-1]["socketPath"] == f"{own}/{port}"
    if listener is Listener.APPLICATION:
        assert node.switch.ports()[port].vhost_server_path == f"{own}/{port}"
    assert await node.call("CHECK", {**network(listener), "prevResult": answer}, **of(UID)) == {}

    await node.call("DEL", network(listener), **of(UID))
    assert (node.left(), listing(own)) == ([], set())


@pytest.mark.parametrize("listener", BOTH)
async def test_pods_do_not_meet(node: Node, listener: Listener) -> None:
    """Of three pods, two with volumes and one without, each finds its own files alone."""
    sandboxes = {uid: Attachment(digit * 64, "net1") for uid, digit in ((UID, "a"), (OTHER, "b"), ("none", "c"))}
    for uid in (UID, OTHER):
        await node.volumes.publish(node_volume(node, uid))

    for uid, attachment in sandboxes.items():
        await node.call("ADD", network(listener), attachment, **of(uid))

    for uid, folder in ((UID, node.own / UID), (OTHER, node.own / OTHER), ("none", node.pods)):
        others = [each for each in sandboxes if each != uid]
        strangers = [sandboxes[each].container_id for each in others] + [
            node.vif(listener, sandboxes[each]).name for each in others
        ]
        texts = " ".join([*listing(folder), *(path.read_text() for path in folder.iterdir() if path.is_file())])
        assert sandboxes[uid].container_id in texts
        assert [each for each in strangers if each in texts] == []


async def test_two_interfaces(node: Node) -> None:
    """Both interfaces of a pod are described in one file, and the one that stays when the other goes."""
    second = Attachment(ATTACHMENT.container_id, "net2")
    await node.volumes.publish(node_volume(node))
    for attachment in (ATTACHMENT, second):
        await node.call("ADD", config(), attachment, **of(UID))
    both = (node.own / UID / "interfaces.json").read_text()

    await node.call("DEL", config(), ATTACHMENT, **of(UID))

    one = (node.own / UID / "interfaces.json").read_text()
    assert (both.count('"ifname"'), one.count('"ifname"')) == (2, 1)
    assert '"net2"' in one
    await node.call("DEL", config(), second, **of(UID))
    assert listing(node.own / UID) == set()


async def test_read_only_volume(node: Node) -> None:
    """A pod that may not write to its directory has a port on which OVS listens, and is refused one on which it would."""
    await node.volumes.publish(node_volume(node, read_only=True))

    with pytest.raises(Refused, match="read-only"):
        await node.call("ADD", network(Listener.APPLICATION), **of(UID))
    assert node.left() == []
    await node.call("ADD", network(Listener.OVS), **of(UID))


@pytest.mark.parametrize("listener", BOTH)
async def test_another_sandbox_of_the_pod(node: Node, listener: Listener) -> None:
    """A sandbox that takes another's place finds the pod's directory without what was of the former, whose DEL never came."""
    former, latter = Attachment("a" * 64, "net1"), Attachment("b" * 64, "net1")
    await node.volumes.publish(node_volume(node))
    await node.call("ADD", network(listener), former, **of(UID))
    leave_socket(node.folder, node.own / UID / node.vif(listener, former).name)
    (node.own / UID / "the application's").touch()

    await node.call("ADD", network(listener), latter, **of(UID))

    found = listing(node.own / UID)
    assert {"interfaces.json", "vhostuser.env", "the application's", f"{latter.container_id}-net1"} <= found
    assert [name for name in found if former.container_id in name or name == node.vif(listener, former).name] == []
    assert latter.container_id in (node.own / UID / "interfaces.json").read_text()
    await node.call("DEL", network(listener), former, **of(UID))
    assert latter.container_id in (node.own / UID / "interfaces.json").read_text()


def leave_socket(node_folder: Path, path: Path) -> None:
    """A socket that nobody is bound to, where none is."""
    if not path.exists():
        bound = node_folder / ".s"  # bind takes short paths only, a file may have any name
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(bound))
        bound.rename(path)


@pytest.mark.parametrize("listener", BOTH)
async def test_journal_is_lost(node: Node, listener: Listener) -> None:
    """A DEL that finds no entry looks in the pod's own directory."""
    await node.volumes.publish(node_volume(node))
    await node.call("ADD", network(listener), **of(UID))
    node.journal.remove(ATTACHMENT)

    await node.call("DEL", network(listener), **of(UID))

    assert (node.left(), listing(node.own / UID)) == ([], set())


@pytest.mark.parametrize("listener", BOTH)
async def test_unpublished_first(node: Node, listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """A DEL that comes after the volume is gone removes the rest; until then recovery says what is missing, and makes nothing."""
    wanted = node_volume(node)
    await node.volumes.publish(wanted)
    await node.call("ADD", network(listener), **of(UID))
    await node.volumes.unpublish(wanted.id, wanted.target)

    await node.recover()
    assert "the pod's own directory" in caplog.text
    assert not (node.own / UID).exists()
    await node.call("DEL", network(listener), **of(UID))

    assert node.left() == []


@pytest.mark.parametrize("listener", BOTH)
async def test_daemon_dies_at_every_moment(make_node: MakeNode, listener: Listener) -> None:
    """Whenever a daemon dies in an ADD with a volume, the next one, DEL and the unpublishing leave nothing."""
    moment, died = 0, True
    while died:
        moment += 1
        node = make_node(life=Life(last=moment))
        wanted = node_volume(node)
        await node.volumes.publish(wanted)
        died = False
        try:
            await node.call("ADD", network(listener), **of(UID))
        except Death:
            died = True
        daemon = node.again()
        await daemon.recover()
        await daemon.call("DEL", network(listener), **of(UID))

        assert (daemon.left(), listing(daemon.own / UID)) == ([], set())
        await daemon.volumes.unpublish(wanted.id, wanted.target)
        assert listing(daemon.own) == set()
    assert moment > 5


@pytest.mark.parametrize("listener", BOTH)
async def test_recovery_in_an_own_directory(node: Node, listener: Listener) -> None:
    """What a pod does to its files is mended by the next look of recovery, in the directory of a volume of a former daemon too."""
    await node.volumes.publish(node_volume(node))
    await node.call("ADD", network(listener), **of(UID))
    before = listing(node.own / UID)
    (node.own / UID / "interfaces.json").unlink()
    (node.own / UID / "vhostuser.env").write_text("spoilt")

    daemon = node.again()
    await daemon.recover()

    assert listing(daemon.own / UID) == before
    assert "VHOSTUSER_0_VDEV" in (daemon.own / UID / "vhostuser.env").read_text()


async def test_events_of_an_own_directory(node: Node) -> None:
    """Recovery hears of what happens in a directory that has come while it ran, until the volume goes."""
    running = asyncio.ensure_future(node.recovery.run())
    await asyncio.sleep(0)
    wanted = node_volume(node)
    await node.volumes.publish(wanted)
    await node.call("ADD", config(), **of(UID))
    path = node.own / UID / "interfaces.json"
    before = path.read_text()
    mended = asyncio.Event()
    node.recovery.on_recovery(lambda _cause, _steps: mended.set())

    path.unlink()
    await asyncio.wait_for(mended.wait(), 10)
    assert path.read_text() == before

    await node.call("DEL", config(), **of(UID))
    await node.volumes.unpublish(wanted.id, wanted.target)
    running.cancel()
    await asyncio.wait({running})


async def test_sweep_of_an_own_directory(node: Node) -> None:
    """What of ours has no owner in a pod's own directory goes; the pod's own files stay, and so does what has an owner."""
    await node.volumes.publish(node_volume(node))
    own, stale = node.own / UID, "0123456789abcdef" * 4
    for name in (
        "interfaces.json",
        "vhostuser.env",
        f"{stale}-eth0",
        f".{stale}-eth0.new",
        "notes.txt",
        ".interfaces.json.new",
    ):
        (own / name).touch()
    leave_socket(node.folder, own / "vhu00000000-01")
    settings = msgspec.structs.replace(node.settings, sweep_grace=0.0)

    await Sweep(node.journal, node.switch, node.driver, settings, node.volumes).remove_files()
    assert listing(own) == {"notes.txt"}
    await node.call("ADD", config(), **of(UID))
    before = listing(own)
    await Sweep(node.journal, node.switch, node.driver, settings, node.volumes).remove_files()
    assert listing(own) == before


async def test_sweep_of_more_than_a_round_removes(node: Node) -> None:
    """Of dead sockets that a pod makes by the thousand each round removes some, and others get their turn between."""
    await node.volumes.publish(node_volume(node))
    own = node.own / UID
    for number in range(1200):
        os.mknod(own / f"vhu{number:08x}-01", stat.S_IFSOCK | 0o600)
    sweep = Sweep(
        node.journal, node.switch, node.driver, msgspec.structs.replace(node.settings, sweep_grace=0.0), node.volumes
    )
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(len(listing(own)))
            await asyncio.sleep(0)

    looking = asyncio.ensure_future(look())
    await sweep.remove_files()
    looking.cancel()

    assert len(listing(own)) == 200
    assert any(200 < left < 1200 for left in seen)
    await sweep.remove_files()
    assert listing(own) == set()


async def test_sweep_of_a_port(node: Node) -> None:
    """A port with our marks that is in no journal goes with what lies in its pod's own directory."""
    await node.volumes.publish(node_volume(node))
    await node.call("ADD", config(), **of(UID))
    leave_socket(node.folder, node.own / UID / node.vif().name)
    node.journal.remove(ATTACHMENT)
    settings = msgspec.structs.replace(node.settings, sweep_grace=0.0)

    for found in Sweep(node.journal, node.switch, node.driver, settings, node.volumes).without_owner():
        await node.verbs.absent(found)

    assert (node.left(), listing(node.own / UID)) == ([], set())
