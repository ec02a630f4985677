"""Pods with directories of their own, by real gRPC, real mounts, real OVS-DPDK and real applications.

Law: an application sees its directory where its pod has mounted it, in a mount namespace of its own, and knows nothing else.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError, Status

from podvif import names
from podvif.csi.generated import csi_pb2
from podvif.lab import ovs as lab_ovs
from podvif.lab import testpmd
from podvif.lab.hugepages import hugepages
from podvif.lab.sandbox import Sandbox
from podvif.lab.testpmd import Testpmd, read_env
from podvif.lab.tmpfs import tmpfs
from tests.node.kubelet import NODE, Kubelet, PodVolume
from tests.node.support import (
    MODES,
    SOON,
    Attached,
    MakeNode,
    Node,
    leave_dead_socket,
    port_of,
    refused,
    seeing,
    wait_for,
)

Boxes = Callable[[], Sandbox]
modes = pytest.mark.parametrize("mode", MODES)

MANY = 5000


class World:
    """A node that kubelet asks for volumes."""

    def __init__(self, node: Node, kubelet: Kubelet, folder: Path) -> None:
        self.node, self.kubelet, self.folder = node, kubelet, folder
        self.own = node.folder / "run" / "pods"
        self.records = node.folder / "node" / "state" / "volumes"

    def directory(self, volume: PodVolume) -> Path:
        """The directory behind a pod's volume."""
        return self.own / volume.uid

    def published(self, name: str = "pod", **options: Any) -> PodVolume:
        """A pod whose containers mount their directory where nobody else does."""
        volume = self.kubelet.volume(name)
        self.mount_path(volume).mkdir()
        self.kubelet.publish(volume, mount_path=self.mount_path(volume), **options)
        return volume

    def mount_path(self, volume: PodVolume) -> Path:
        """Where the pod's containers see it."""
        return self.folder / volume.name

    def add(self, mode: str, box: Sandbox, volume: PodVolume, ifname: str = "eth0") -> Attached:
        """ADD of a pod's interface."""
        return self.node.add(self.node.network(mode), box, ifname, args=volume.args)

    def delete(self, attached: Attached, volume: PodVolume) -> None:
        """DEL, which has to succeed."""
        answer = self.node.cni("DEL", attached.config, attached.box, attached.ifname, args=volume.args)
        assert (answer.code, answer.text) == (0, "")

    def start(self, volume: PodVolume, box: Sandbox, stack: ExitStack, *, to: str = "") -> Testpmd:
        """An application of the pod, which receives or sends to a MAC; it has the volume alone."""
        seen = self.mount_path(volume)
        return stack.enter_context(
            Testpmd(
                seen / names.OWN_ENV,
                self.folder / "dpdk",
                netns=box.name,
                forward="txonly" if to else "rxonly",
                eth_peer=to,
                before=seeing(volume.target, seen),
            )
        )

    def again(self) -> None:
        """The daemon crashes, and is started again."""
        self.node.daemon.kill()
        self.node.daemon.start()

    def left(self) -> list[str]:
        """What of the volumes still stands."""
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        return [
            *(line for line in table if str(self.kubelet.folder) in line),
            *(str(path) for folder in (self.own, self.records) for path in folder.glob("*")),
            *(str(path) for path in self.kubelet.folder.glob("pods/*/volumes/*/*/mount")),
        ]


@pytest.fixture
def world(make_node: MakeNode, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A node with the driver; no volume may be left at the end."""
    kubelet = Kubelet(tmp_path_factory.mktemp("k"))
    run_dir = tmp_path_factory.mktemp("r")
    node = make_node(more={"csi": kubelet.options, "node": {"run_dir": str(run_dir)}})
    made = World(node, kubelet, folder)
    made.own = run_dir / "pods"
    with node.running():
        yield made
        left = made.left()
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if str(kubelet.folder) in line:
            subprocess.run(["umount", line.split()[4]], check=True)
    assert left == []


@pytest.fixture(scope="module", autouse=True)
def pages() -> Iterator[None]:
    """Hugepages for two applications, and for what vswitchd takes for their ports."""
    with hugepages(2 * (testpmd.PAGES + lab_ovs.PAGES_PER_PORT)):
        yield


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@modes
def test_packets_between_two_pods(world: World, boxes: Boxes, mode: str) -> None:
    """Two applications that know their pods' directories alone exchange packets, and neither directory tells of the other pod."""
    pods = {volume: boxes() for volume in (world.published("one"), world.published("two"))}
    attached = {volume: world.add(mode, box, volume) for volume, box in pods.items()}
    (one, sender), (two, receiver) = attached.items()

    for mine, theirs in ((one, two), (two, one)):
        names_ = {"interfaces.json", "vhostuser.env", f"{pods[mine].container_id}-eth0"}
        assert listing(mine.target) == names_ | ({port_of(pods[mine])} if mode == "client" else set())
        texts = "".join(path.read_text() for path in mine.target.iterdir() if path.is_file())
        strangers = (pods[theirs].container_id, port_of(pods[theirs]), theirs.uid, str(world.own))
        assert [each for each in strangers if each in texts] == []
    assert list(world.node.mount_point.iterdir()) == []

    with ExitStack() as stack:
        rx = world.start(two, pods[two], stack)
        world.start(one, pods[one], stack, to=receiver.mac)
        arrived = rx.wait_for_rx(packets=MANY).rx_packets
        world.again()
        for volume, each in attached.items():
            assert world.node.cni("CHECK", each.checking, each.box, args=volume.args).code == 0
        rx.wait_for_rx(packets=arrived + MANY)
    for volume, each in ((one, sender), (two, receiver)):
        world.delete(each, volume)
        assert listing(world.directory(volume)) == set()
        world.kubelet.unpublish(volume)
    assert world.node.leftovers() == []


@modes
def test_a_daemon_that_crashes_between_all_calls(world: World, box: Sandbox, mode: str) -> None:
    """Whichever call comes first after a crash finds what the calls before it have said."""
    volume = world.published(group=1234)
    world.again()
    attached = world.add(mode, box, volume)
    env = read_env(volume.target / "vhostuser.env")
    assert env["VHOSTUSER_0_SOCKET"] == str(world.mount_path(volume) / attached.port)
    world.again()
    assert world.node.cni("CHECK", attached.checking, box, args=volume.args).code == 0
    world.again()
    world.kubelet.publish(volume, mount_path=world.mount_path(volume), group=1234)
    assert world.node.cni("CHECK", attached.checking, box, args=volume.args).code == 0
    assert world.directory(volume).stat().st_gid == 1234
    world.delete(attached, volume)
    world.again()
    world.kubelet.unpublish(volume)
    world.again()
    world.kubelet.unpublish(volume)


RIGHTS_STEPS = ["MEND_DIRECTORY", "MEND_SOCKET"]


@pytest.mark.parametrize("step", RIGHTS_STEPS)
def test_killed_while_rights_are_mended(world: World, box: Sandbox, step: str) -> None:
    """A daemon killed after it has mended the rights of directory or socket has failed its ADD: nothing of it is left, and ADD works."""
    node, volume = world.node, world.published(group=1234)
    config, after = node.network("client"), node.daemon
    after.stop()
    with node.crashing_after(step) as daemon:
        world.directory(volume).chmod(0o777)
        refused(node.cni("ADD", config, box, args=volume.args), 11, str(daemon.socket))
        assert daemon.child.wait(SOON) == -signal.SIGKILL
    node.daemon = after
    after.start()
    node.wait_until_recovered()
    assert node.leftovers() == []

    attached = world.add("client", box, volume)

    found = (world.directory(volume) / attached.port).stat()
    assert (world.directory(volume).stat().st_mode & 0o7777, found.st_mode & 0o777, found.st_gid) == (
        0o2770,
        0o660,
        1234,
    )
    world.delete(attached, volume)
    world.kubelet.unpublish(volume)


@modes
def test_daemon_is_away(world: World, box: Sandbox, mode: str) -> None:
    """What happens to a pod's directory while no daemon runs is mended by the next one: files, and a restarted vswitchd's socket."""
    volume = world.published()
    attached = world.add(mode, box, volume)
    before = listing(volume.target)
    world.node.daemon.kill()
    (volume.target / "interfaces.json").unlink()
    (volume.target / "vhostuser.env").unlink()
    (volume.target / "vhostuser.env").symlink_to("/etc/hostname")

    world.node.daemon.start()
    # An env file that is a link is replaced, and what it points to is as it was.
    wait_for(world.directory(volume), lambda: listing(volume.target) == before, "all files are there again")
    wait_for(world.directory(volume), lambda: not (volume.target / "vhostuser.env").is_symlink(), "the link is gone")
    assert world.node.cni("CHECK", attached.checking, box, args=volume.args).code == 0
    assert "VHOSTUSER" not in Path("/etc/hostname").read_text()
    world.delete(attached, volume)
    world.kubelet.unpublish(volume)


@modes
def test_what_a_pod_does_in_its_directory(world: World, box: Sandbox, mode: str) -> None:
    """Files that a pod removes come back by an event, and what it leaves in its directory goes with the volume."""
    volume = world.published()
    attached = world.add(mode, box, volume)
    for name in ("interfaces.json", "vhostuser.env", f"{box.container_id}-eth0"):
        (volume.target / name).unlink()
        wait_for(world.directory(volume), (volume.target / name).exists, f"{name} is there again")
    precious = world.folder / "precious"
    precious.mkdir()
    (precious / "x").touch()
    (volume.target / "deep" / "er").mkdir(parents=True)
    (volume.target / "deep" / "link").symlink_to(precious)
    leave_dead_socket(world.directory(volume) / "app.sock")
    world.delete(attached, volume)
    assert listing(volume.target) == {"deep", "app.sock"}
    world.kubelet.unpublish(volume)
    assert (precious / "x").exists()


@modes
def test_sandbox_is_made_again(world: World, boxes: Boxes, mode: str) -> None:
    """A pod's next sandbox, whose former one was never deleted, finds its directory as if it were the first."""
    volume = world.published()
    former, latter = boxes(), boxes()
    world.add(mode, former, volume)
    if mode == "server":
        leave_dead_socket(world.directory(volume) / port_of(former))
    attached = world.add(mode, latter, volume)
    names_ = {"interfaces.json", "vhostuser.env", f"{latter.container_id}-eth0"}
    assert listing(volume.target) == names_ | ({port_of(latter)} if mode == "client" else set())
    assert json.loads((volume.target / "interfaces.json").read_text())["containerId"] == latter.container_id
    world.delete(attached, volume)
    world.kubelet.unpublish(volume)
    assert world.node.leftovers() == []


def test_vswitchd_is_restarted(world: World, box: Sandbox) -> None:
    """After a restart of vswitchd the new socket of a client-mode port is in the pod's own directory."""
    volume = world.published()
    attached = world.add("client", box, volume)
    inode = (volume.target / attached.port).stat().st_ino
    world.node.ovs.kill_vswitchd()
    world.node.ovs.start_vswitchd()
    socket = volume.target / attached.port
    wait_for(
        world.directory(volume), lambda: socket.exists() and socket.stat().st_ino != inode, "another socket is there"
    )
    world.delete(attached, volume)
    world.kubelet.unpublish(volume)


def test_read_only(world: World, box: Sandbox) -> None:
    """An application with a read-only volume connects in client mode, and in server mode is refused before it starts."""
    volume = world.published(readonly=True)
    answer = world.node.cni("ADD", world.node.network("server"), box, "net1", args=volume.args)
    refused(answer, 7, "read-only", "ns/pod")
    attached = world.add("client", box, volume)
    with ExitStack() as stack:
        world.start(volume, box, stack).wait_for_ports()
        world.node.ovs.wait_for_link(attached.port)
    with pytest.raises(OSError, match="Read-only"):
        (volume.target / "x").touch()
    world.delete(attached, volume)
    world.kubelet.unpublish(volume)


def test_shared_directory_beside(world: World, boxes: Boxes) -> None:
    """A pod without a volume finds its files in the shared directory as ever, and they show nothing of one with a volume."""
    volume, own, shared = world.published(), boxes(), boxes()
    mine = world.add("client", own, volume)
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=other;K8S_POD_UID=11111111-2222-4333-8444-555555555555"
    theirs = world.node.add(world.node.network("client"), shared, args=args)
    assert {name.partition("-")[0].partition(".")[0] for name in listing(world.node.mount_point)} == {
        shared.container_id,
        port_of(shared).partition("-")[0],
    }
    world.node.delete(theirs)
    world.delete(mine, volume)
    world.kubelet.unpublish(volume)


@modes
def test_volume_goes_first(world: World, box: Sandbox, mode: str) -> None:
    """A DEL that comes after its pod's volume is gone leaves nothing."""
    volume = world.published()
    attached = world.add(mode, box, volume)
    world.kubelet.unpublish(volume)
    world.delete(attached, volume)
    assert world.node.leftovers() == []


def test_reboot(world: World, box: Sandbox) -> None:
    """After a reboot, with neither mounts nor directories, a pod that is started again has its volume, and one that is not loses it."""
    stays, goes = world.published("stays"), world.published("goes")
    world.node.daemon.kill()
    for volume in (stays, goes):
        subprocess.run(["umount", volume.target], check=True)
    shutil.rmtree(world.own)
    world.node.daemon.start()
    world.kubelet.publish(stays, mount_path=world.mount_path(stays))
    attached = world.add("client", box, stays)
    assert (stays.target / attached.port).is_socket()
    world.delete(attached, stays)
    for volume in (stays, goes):
        world.kubelet.unpublish(volume)


def test_kubelet_finds_the_driver(world: World) -> None:
    """The driver is in the registry as long as the daemon runs, also after a crash of it; a stop takes it out."""
    assert world.kubelet.plugin().name == "csi.podvif.io"
    world.again()
    assert world.kubelet.plugin().name == "csi.podvif.io"
    world.node.daemon.stop()
    assert list(world.kubelet.registry.iterdir()) == []
    world.node.daemon.start()


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"volume_id": ""}, Status.INVALID_ARGUMENT, ["volume_id"]),
        ({"target_path": ""}, Status.INVALID_ARGUMENT, ["target_path"]),
        ({"volume_capability": None}, Status.INVALID_ARGUMENT, ["volume_capability"]),
        (
            {"volume_capability": csi_pb2.VolumeCapability(block=csi_pb2.VolumeCapability.BlockVolume())},
            Status.INVALID_ARGUMENT,
            ["block", "volumeMounts"],
        ),
        ({"info": {"ephemeral": "false"}}, Status.INVALID_ARGUMENT, ["inline", "volumeLifecycleModes"]),
        ({"info": {"pod.uid": ""}}, Status.INVALID_ARGUMENT, ["which pod", "podInfoOnMount"]),
        ({"info": {"pod.uid": "../../etc"}}, Status.INVALID_ARGUMENT, ["'../../etc'"]),
        ({"info": {"pod.uid": ".."}}, Status.INVALID_ARGUMENT, ["'..'"]),
        ({"group": "wheel"}, Status.INVALID_ARGUMENT, ["wheel", "fsGroup"]),
        ({"mount_path": "x"}, Status.INVALID_ARGUMENT, ["mountPath 'x'"]),
        ({"user": "nobody"}, Status.INVALID_ARGUMENT, ["user 'nobody'", "runAsUser"]),
        ({"user": "9" * 5000}, Status.INVALID_ARGUMENT, ["user '99", "4294967294"]),
        ({"target_path": "/nowhere/podvif/mount"}, Status.FAILED_PRECONDITION, ["/nowhere/podvif/mount"]),
    ],
)
def test_bad_requests(world: World, changes: dict[str, Any], status: Status, words: list[str]) -> None:
    """A request that cannot be served is told why and what to do, and leaves nothing."""
    with pytest.raises(GRPCError) as caught:
        world.kubelet.publish(world.kubelet.volume(), **changes)

    assert caught.value.status is status
    assert [word for word in words if word not in (caught.value.message or "")] == []


@pytest.mark.parametrize("fields", [{"volume_id": "x"}, {"target_path": "/x"}])
def test_bad_unpublishing(world: World, fields: dict[str, str]) -> None:
    """An unpublishing without id or target is INVALID_ARGUMENT; what never was is unpublished already."""
    with pytest.raises(GRPCError) as caught:
        world.kubelet.call(
            f"{NODE}/NodeUnpublishVolume",
            csi_pb2.NodeUnpublishVolumeRequest(**fields),
            csi_pb2.NodeUnpublishVolumeResponse,
        )

    assert caught.value.status is Status.INVALID_ARGUMENT
    world.kubelet.unpublish(world.kubelet.volume())


def test_run_dir_on_another_file_system(
    make_node: MakeNode, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A run_dir to which no socket can be moved is told by STATUS and by the driver's Probe, and shared directories work on."""
    kubelet = Kubelet(tmp_path_factory.mktemp("k"))
    with tmpfs(folder / "run"):
        node = make_node(more={"csi": kubelet.options, "node": {"run_dir": str(folder / "run")}})
        with node.running():
            refused(node.cni("STATUS", node.network()), 50, "EXDEV", str(folder / "run"))
            probe = kubelet.call("/csi.v1.Identity/Probe", csi_pb2.ProbeRequest(), csi_pb2.ProbeResponse)
            assert probe.ready.value is False


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """A tmpfs on which nothing more can be made."""
    found = os.statvfs(folder)
    subprocess.run(["mount", "-o", f"remount,nr_inodes={found.f_files - found.f_ffree}", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", f"remount,nr_inodes={found.f_files}", folder], check=True)


def test_publishing_is_given_up(make_node: MakeNode, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A volume that fails for lack of space and then for good goes by itself, and the one that is mounted beside it stays."""
    kubelet = Kubelet(tmp_path_factory.mktemp("k"))
    run_dir = folder / "run"
    rounds = {"run_dir": str(run_dir), "resync_interval": "0.2", "sweep_grace": "0.5"}
    with tmpfs(run_dir):
        node = make_node(more={"csi": kubelet.options, "node": rounds})
        world = World(node, kubelet, folder)
        world.own = run_dir / "pods"
        with node.running():
            stays, goes = world.published("stays"), kubelet.volume("goes")
            with full(run_dir), pytest.raises(GRPCError) as for_now:
                kubelet.publish(goes)
            goes.target.write_text("somebody else's")
            with pytest.raises(GRPCError) as for_good:
                kubelet.publish(goes)
            wait_for(
                world.records, lambda: listing(world.records) == {names.volume_file(stays.id)}, "its record is gone"
            )
            assert listing(world.own) == {stays.uid}
            assert stays.target.is_mount()
            assert goes.target.read_text() == "somebody else's"
            world.kubelet.unpublish(stays)
            goes.target.unlink()
            assert world.left() == []
    assert (for_now.value.status, for_good.value.status) == (Status.UNAVAILABLE, Status.FAILED_PRECONDITION)


def test_off(make_node: MakeNode) -> None:
    """A daemon whose configuration says nothing of CSI has loaded nothing for it."""
    node = make_node()
    with node.running() as daemon:
        maps = Path(f"/proc/{daemon.pid}/maps").read_text()

    assert "google/_upb" not in maps
