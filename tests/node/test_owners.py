"""Whose directories and sockets are: vswitchd and applications of several users, with real packets and real refusals.

Law: what a user may do is asked of the kernel, by a process of that user; each thing that is refused to one is at the same
moment allowed to the one whose it is.
"""

import contextlib
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from podvif.lab import ovs as lab_ovs
from podvif.lab import testpmd
from podvif.lab.hugepages import hugepages
from podvif.lab.ovs import PrivateOvs
from podvif.lab.sandbox import Sandbox
from podvif.lab.testpmd import Testpmd
from podvif.lab.user import User
from podvif.names import OWN_ENV
from tests.node.kubelet import Kubelet, PodVolume
from tests.node.support import MODES, Attached, Node, seeing

Boxes = Callable[[], Sandbox]
modes = pytest.mark.parametrize("mode", MODES)

OWNING = Path(__file__).with_name("owning_node.py")
MANY = 1000
GROUP = 62000

WEAK = "daemon:daemon"
"""A user that Debian has, and nobody runs as."""


@dataclass(frozen=True)
class Kind:
    """A pod's securityContext: the user, what of him is known beforehand, and his process."""

    access: dict[str, int]
    user: User | None


KINDS = {
    "root": Kind({}, None),
    "root without capabilities": Kind({}, User(0, 0)),
    "runAsUser and fsGroup": Kind({"gid": 62001}, User(61001, 61001, [62001])),
    "runAsUser alone": Kind({"uid": 61002}, User(61002, 61002)),
}


@pytest.fixture(scope="module", params=["root", WEAK])
def ovs(request: pytest.FixtureRequest) -> Iterator[PrivateOvs]:
    """A switch of root's, and one of a user's, in a folder that everybody may go through."""
    folder = Path(tempfile.mkdtemp(prefix="podvif-", dir="/tmp"))
    folder.chmod(0o755)
    user = "" if request.param == "root" else request.param
    try:
        with (
            hugepages(lab_ovs.PAGES + 2 * (testpmd.PAGES + lab_ovs.PAGES_PER_PORT)),
            PrivateOvs(folder / "v", user=user) as switch,
        ):
            yield switch
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def place(ovs: PrivateOvs) -> Iterator[Path]:
    """A folder of the test's own beside the switch's."""
    folder = Path(tempfile.mkdtemp(dir=ovs.rundir.parent))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def owning(ovs: PrivateOvs, place: Path) -> Iterator[Node]:
    """A node whose pods have directories of their own; nothing is left of the pods."""
    # A round is what finds the sockets of applications: nobody watches these directories yet.
    node = Node(ovs, place / "n", more={"node": {"resync_interval": "0.2"}})
    with node.running_as(OWNING, str(place / "own")):
        yield node
        node.finish()
    assert not list((place / "own").glob("*/*"))


def env_of(node: Node, pod: Attached) -> Path:
    """A pod's shell file, beside its socket."""
    own = node.folder.parent / "own" / pod.box.container_id[:12]
    return (own if own.exists() else node.mount_point) / f"{pod.box.container_id}.env"


def socket_of(node: Node, pod: Attached) -> Path:
    """Where a pod's socket is, as its files say."""
    return Path(testpmd.read_env(env_of(node, pod))["VHOSTUSER_0_SOCKET"])


# containerd's default capabilities (pkg/oci/spec.go, defaultUnixCaps).
CONTAINERS = "chown,dac_override,fsetid,fowner,mknod,net_raw,setgid,setuid,setfcap,setpcap,net_bind_service,sys_chroot,kill,audit_write"

APART = """
set -e
mount --make-rprivate /
mkdir -p "$1/mine"
mount --bind "$1/own/$2" "$1/mine"
mount -t tmpfs -o mode=755 tmpfs "$1/own"
mkdir "$1/own/$2"
mount --move "$1/mine" "$1/own/$2"
"""
CAGE = """
mount -t tmpfs tmpfs "$3"
mount -t proc proc /proc
"""
EXEC = """
shift 3
exec "$@"
"""


def apart(place: Path, own: Path, ovs: PrivateOvs) -> list[str]:
    """What to put before a command so that it has the pod's directory mounted, and no other pod's."""
    return ["unshare", "--mount", "/bin/sh", "-c", APART + EXEC, "sh", str(place), own.name, str(ovs.rundir)]


def caged(place: Path, own: Path, ovs: PrivateOvs) -> list[str]:
    """What to put before a command so that it runs as root in a container: likewise, and without the node's processes."""
    script = ["/bin/sh", "-c", APART + CAGE + EXEC, "sh", str(place), own.name, str(ovs.rundir)]
    listed = ",".join(["-all", *(f"+{name}" for name in CONTAINERS.split(","))])
    return [
        *("unshare", "--mount", "--pid", "--fork", "--ipc"),
        *script,
        *("setpriv", f"--bounding-set={listed}", f"--inh-caps={listed}", "--"),
    ]


def start(node: Node, place: Path, pod: Attached, user: User | None, to: str = "") -> Testpmd:
    """An application of a pod's: it receives, or sends to a MAC; its own directory is mounted for it where it has one."""
    own = socket_of(node, pod).parent
    before = apart(place, own, node.ovs) if own != node.mount_point else []
    env = env_of(node, pod)
    forward = "txonly" if to else "rxonly"
    return Testpmd(env, place, netns=pod.box.name, forward=forward, eth_peer=to, user=user, before=before)


@modes
@pytest.mark.parametrize(
    "kinds", ["runAsUser and fsGroup → runAsUser alone", "root without capabilities → runAsUser and fsGroup"]
)
def test_packets_arrive(ovs: PrivateOvs, place: Path, boxes: Boxes, mode: str, kinds: str) -> None:
    """Applications of whatever user exchange packets through a vswitchd of whatever user, and no directory is open to all."""
    sender, receiver = (KINDS[kind] for kind in kinds.split(" → "))
    with (
        owning(ovs, place) as node,
        node.attached(node.network(mode, testAccess=sender.access), boxes()) as first,
        node.attached(node.network(mode, testAccess=receiver.access), boxes()) as second,
        start(node, place, second, receiver.user) as rx,
        start(node, place, first, sender.user, to=second.mac),
    ):
        rx.wait_for_rx(packets=MANY)
        for folder in (place / "own", *(place / "own").iterdir()):
            assert stat.S_IMODE(folder.stat().st_mode) & 0o007 == 0, folder
        for pod in (first, second):
            assert node.cni("CHECK", pod.checking, pod.box).code == 0


@contextlib.contextmanager
def with_volumes(ovs: PrivateOvs, place: Path) -> Iterator[tuple[Node, Kubelet]]:
    """A node that kubelet asks for volumes, and what it asks with; nothing is left of the pods."""
    kubelet = Kubelet(place / "k")
    node = Node(ovs, place / "n", more={"csi": kubelet.options, "node": {"run_dir": str(place / "r")}})
    with node.running():
        yield node, kubelet
        node.finish()
    assert not list((place / "r" / "pods").glob("*"))


@contextlib.contextmanager
def published(kubelet: Kubelet, seen: Path, **options: Any) -> Iterator[tuple[PodVolume, list[str]]]:
    """A pod's volume, and what to put before a command so that it sees it where the pod's containers mount it."""
    volume = kubelet.volume(seen.name)
    seen.mkdir()
    kubelet.publish(volume, mount_path=seen, **options)
    try:
        yield volume, seeing(volume.target, seen)
    finally:
        kubelet.unpublish(volume)


@modes
@pytest.mark.parametrize("group", ["", "62001"], ids=["no fsGroup", "fsGroup"])
def test_user_that_the_pod_says(ovs: PrivateOvs, place: Path, boxes: Boxes, mode: str, group: str) -> None:
    """An application whose pod says its user exchanges packets in its directory, which another user can neither list nor enter."""
    one, other, stranger = User(61001, 61001), User(61002, 61002), User(61003, 61003)
    with (
        with_volumes(ovs, place) as (node, kubelet),
        published(kubelet, place / "one", user=one.uid, group=group) as (first, in_first),
        published(kubelet, place / "other", user=other.uid, group=group) as (second, in_second),
        node.attached(node.network(mode), boxes(), args=first.args) as tx,
        node.attached(node.network(mode), boxes(), args=second.args) as rx,
        Testpmd(second.target / OWN_ENV, place, netns=rx.box.name, user=other, before=in_second) as receiver,
        Testpmd(
            first.target / OWN_ENV,
            place,
            netns=tx.box.name,
            forward="txonly",
            eth_peer=rx.mac,
            user=one,
            before=in_first,
        ),
    ):
        receiver.wait_for_rx(packets=MANY)
        path = place / "other" / rx.port
        refused = {what: attack(path, what, in_second + stranger.become()) for what in ATTACKS}
        assert refused == dict.fromkeys(ATTACKS, "PermissionError")
        assert attack(path, "list", in_second + other.become()) == "done"
        found = second.target.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode) & 0o007) == (other.uid, 0)
        assert node.cni("CHECK", rx.checking, rx.box, args=second.args).code == 0


ATTACK = """
import os, socket, sys
path, what = sys.argv[1:]
folder = os.path.dirname(path)
match what:
    case "list":
        os.listdir(folder)
    case "connect":
        socket.socket(socket.AF_UNIX).connect(path)
    case "replace":
        fresh = folder + "/.mine" + str(os.getpid())
        socket.socket(socket.AF_UNIX).bind(fresh)
        os.rename(fresh, path)
    case "delete":
        os.unlink(path)
    case "chmod":
        os.chmod(path, 0o777)
    case "hard link":
        os.link(path, folder + "/.link")
"""


def attack(path: Path, what: str, before: list[str]) -> str:
    """What comes of an act on a socket by a process that is started so: `done`, or the kernel's word."""
    command = [*before, sys.executable, "-c", ATTACK, str(path), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stderr.strip().splitlines()[-1].partition(":")[0] if done.returncode else "done"


ATTACKS = ["list", "connect", "chmod", "hard link", "replace", "delete"]


@modes
def test_pods_are_apart(ovs: PrivateOvs, place: Path, boxes: Boxes, mode: str) -> None:
    """Neither as another user nor as root in its container does a pod list, reach, replace or remove what another one has."""
    victim, thief = KINDS["runAsUser and fsGroup"], KINDS["runAsUser alone"]
    assert victim.user
    assert thief.user
    with (
        owning(ovs, place) as node,
        node.attached(node.network(mode, testAccess=victim.access), boxes()) as his,
        node.attached(node.network(mode, testAccess=thief.access), boxes()) as mine,
        start(node, place, his, victim.user) as application,
    ):
        application.wait_for_ports()
        path, own = socket_of(node, his), socket_of(node, mine).parent
        # As the thief from the node itself, as the thief where the victim's directory is mounted, and as root in its container.
        ways = {
            "PermissionError": [thief.user.become(), apart(place, path.parent, ovs) + thief.user.become()],
            "FileNotFoundError": [caged(place, own, ovs)],
        }
        before = path.stat().st_ino
        for refusal, commands in ways.items():
            for command in commands:
                assert {what: attack(path, what, command) for what in ATTACKS} == dict.fromkeys(ATTACKS, refusal)
        assert path.stat().st_ino == before
        # It is refused to them for being another's: each may do the same with what is its own.
        assert attack(path, "list", apart(place, path.parent, ovs) + victim.user.become()) == "done"
        for command in (apart(place, own, ovs) + thief.user.become(), caged(place, own, ovs)):
            for what in ("list", "replace", "delete"):
                assert attack(own / "vhu", what, command) == "done"


@modes
def test_shared_directory(ovs: PrivateOvs, place: Path, boxes: Boxes, mode: str) -> None:
    """In the mount_point with a group, pods of that group exchange packets, and remove nothing of each other's."""
    node = Node(ovs, place / "n", more={"vhostuser": {"socket_group": str(GROUP)}})
    one, other, stranger = User(61001, 61001, [GROUP]), User(61002, 61002, [GROUP]), User(61003, 61003)
    with (
        node.running(),
        node.attached(node.network(mode), boxes()) as first,
        node.attached(node.network(mode), boxes()) as second,
        start(node, place, second, other) as rx,
        start(node, place, first, one, to=second.mac),
    ):
        rx.wait_for_rx(packets=MANY)
        path = second.socket
        assert attack(path, "connect", stranger.become()) == "PermissionError"
        for user in (one, stranger):
            assert attack(path, "replace", user.become()) == "PermissionError"
            assert attack(path, "delete", user.become()) == "PermissionError"
        for mess in node.mount_point.glob(".mine*"):
            mess.unlink()
    node.finish()
