"""What a node needs besides, one by one."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif.host.machine import Machine
from podvif.model import SocketDir, Vif
from podvif.node import surroundings
from podvif.node.checks import State
from podvif.settings import Settings
from tests.fakes.settings import settings
from tests.fakes.switch import FakeSwitch
from tests.fakes.values import entry, kernel_vif, vif
from tests.unit.host.test_machine import HOLD, hugepages, put
from tests.unit.node.test_checks import told

OURS = {"type": "podvif-cni", "bridge": "br-dpdk"}


@pytest.fixture
def conf(tmp_path: Path) -> Settings:
    """The settings of a node that is ready."""
    return settings(tmp_path)


@pytest.fixture
def switch(conf: Settings) -> FakeSwitch:
    """A switch that is ready."""
    return FakeSwitch(Path(conf.ovs_vhu_path))


@pytest.mark.parametrize(
    ("counts", "running", "state", "words"),
    [
        ({}, True, State.WARNING, "has no hugepages"),
        ({}, False, State.FAILURE, "has no hugepages"),
        ({"nr_hugepages": 8}, True, State.WARNING, "0 of 8 with 2 MiB"),
        ({"nr_hugepages": 8, "free_hugepages": 3}, True, State.OK, "3 of 8 with 2 MiB"),
    ],
)
def test_hugepages(
    switch: FakeSwitch, tmp_path: Path, counts: dict[str, int], state: State, words: str, *, running: bool
) -> None:
    """No hugepages are a failure where DPDK does not run already, and no free ones a warning."""
    hugepages(tmp_path, 2048, **counts)
    switch.dpdk = msgspec.structs.replace(switch.dpdk, dpdk_initialized=running)

    told(surroundings.hugepages(switch, Machine(str(tmp_path))), state, words)


def test_user() -> None:
    """Who is not root is told that there is more to see."""
    check = surroundings.user()

    assert (check.state is State.OK) == (os.geteuid() == 0)


@pytest.mark.parametrize(
    ("mode", "state", "words"),
    [(None, State.OK, "not in use"), ("0", State.WARNING, "permissive"), ("1", State.WARNING, "enforcing")],
)
def test_selinux(conf: Settings, tmp_path: Path, mode: str | None, state: State, words: str) -> None:
    """SELinux is a warning in either mode, with the rule that the pods' directory needs."""
    if mode is not None:
        put(tmp_path, "/sys/fs/selinux/enforce", mode)

    told(surroundings.selinux(conf, Machine(str(tmp_path))), state, words)


def test_access_without_a_process(conf: Settings, tmp_path: Path) -> None:
    """As whom vswitchd runs is not known where its process is not to be seen."""
    told(surroundings.access(conf, Machine(str(tmp_path))), State.WARNING, "cannot be told")


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """A pid file whose daemon lives; its process id."""
    path.write_text("1\n")
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield holder.pid
        holder.kill()


@pytest.mark.parametrize(
    ("who", "mount_point", "answer"),
    [
        ((0, "ffffffffff"), "", (State.OK, "may open every socket")),
        ((0, "0"), "", (State.OK, "podvif opens each application's socket to it")),
        ((0, "0"), "/proc/self", (State.FAILURE, "without access control lists")),
        ((60600, "0"), "", (State.FAILURE, "may not enter")),
    ],
)
def test_access(
    conf: Settings, tmp_path: Path, who: tuple[int, str], mount_point: str, answer: tuple[State, str]
) -> None:
    """Whoever vswitchd runs as reaches applications' sockets, if it may go into the directory and that has lists."""
    uid, capabilities = who
    tmp_path.chmod(0o700)
    if mount_point:
        conf = msgspec.structs.replace(conf, mount_point=SocketDir(mount_point))
    path = Path(conf.ovs_vhu_path, "ovs-vswitchd.pid")
    with held(path) as pid:
        status = f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t9\t9\t9\t9\nGroups:\t\nCapEff:\t{capabilities}\n"
        put(tmp_path, f"/proc/{pid}/status", status)
        told(surroundings.access(conf, Machine(str(tmp_path))), *answer)


@pytest.mark.parametrize(
    ("installed", "port"), [([], kernel_vif()), ([("/etc/cni/net.d/x.conf", [OURS | {"portType": "veth"}])], vif())]
)
def test_kernel_ports(conf: Settings, installed: list[tuple[str, list[dict[str, Any]]]], port: Vif) -> None:
    """Where kernel ports are wanted or there, vswitchd has to be in our network namespace; elsewhere nobody asks."""
    assert not list(surroundings.kernel_ports(conf, [entry()], [("/etc/cni/net.d/x.conf", [OURS])]))

    [unknown] = surroundings.kernel_ports(conf, [entry(vif=port)], installed)
    told(unknown, State.WARNING, "it does not run")

    path = Path(conf.ovs_vhu_path, "ovs-vswitchd.pid")
    with held(path):
        [same] = surroundings.kernel_ports(conf, [entry(vif=port)], installed)
    told(same, State.OK, "in this network namespace")


def files(*configurations: tuple[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    return surroundings.parse_cni([(path, json.dumps(document).encode()) for path, document in configurations])


@pytest.mark.parametrize(
    ("documents", "state", "words"),
    [
        ([], State.WARNING, "has none"),
        ([OURS], State.OK, "0 is the first and names podvif-cni"),
        ([{"plugins": [OURS, {"type": "tuning"}]}], State.OK, "0 is the first and names podvif-cni"),
        ([{"type": "flannel"}, OURS], State.WARNING, "1 names podvif-cni and is not what the runtime takes: that is 0"),
        ([{"type": "flannel"}], State.WARNING, "none names podvif-cni"),
        ([{"type": "multus-shim"}], State.OK, "NetworkAttachmentDefinition"),
        (["nonsense", OURS], State.WARNING, "0 is the first and is no CNI configuration"),
        ([{"plugins": "x"}], State.WARNING, "is no CNI configuration"),
        ([{"plugins": [7, {}]}], State.WARNING, "is no CNI configuration"),
    ],
)
def test_cni_configuration(conf: Settings, documents: list[Any], state: State, words: str) -> None:
    """What the runtime takes is the first configuration; whether that is podvif's, or Multus's, or another's is told."""
    default = msgspec.structs.replace(conf, cni_socket="/var/run/podvif/cni.sock")
    installed = files(*((str(number), document) for number, document in enumerate(documents)))

    told(surroundings.cni_configuration(installed, default), state, words)


def test_cni_configuration_that_is_no_json(conf: Settings) -> None:
    """A file that is no JSON is told as that."""
    installed = surroundings.parse_cni([("/etc/cni/net.d/00-x.conf", b"{")])

    told(surroundings.cni_configuration(installed, conf), State.WARNING, "00-x.conf is the first and is no CNI")


def test_daemon_socket(conf: Settings) -> None:
    """A configuration that reaches the daemon at another path than it has is told with both."""
    told(surroundings.cni_configuration(files(("a", OURS)), conf), State.WARNING, "/podvif/cni.sock", conf.cni_socket)


def test_used_bridges() -> None:
    """A bridge is used by who asks for it, by an installed configuration, which has a default, and by what is attached."""
    installed = files(("a", {"type": "podvif-cni"}), ("b", {"type": "other", "bridge": "br-no"}))

    assert surroundings.used_bridges([entry()], installed, ["br-x"]) == {
        "br-x": "asked for",
        "br-int": "a",
        "br-dpdk": "network dpdk-net",
    }


@pytest.mark.parametrize(
    ("installed", "seen", "state", "words"),
    [
        ({}, "", State.WARNING, "in none of the directories"),
        ({"/a": "1.0"}, "1.0", State.OK, "/a, version 1.0"),
        ({"/a": "0.9"}, "", State.WARNING, "podvif is 1.0, and /a is 0.9"),
        ({"/a": ""}, "", State.WARNING, "/a is of an unknown version"),
        ({"/a": "1.0"}, "0.9", State.WARNING, "called the daemon was 0.9"),
        ({"/a": "0.9"}, "0.9", State.WARNING, "podvif is 1.0, and /a is 0.9"),
    ],
)
def test_plugin_version(installed: dict[str, str], seen: str, state: State, words: str) -> None:
    """The plugin that is installed, and the one that calls, are of the daemon's version or told."""
    told(surroundings.plugin_version(installed, seen, "1.0"), state, words)


def test_plugin_version_of_a_source_tree() -> None:
    """A podvif without a version of its own is compared with nothing."""
    told(surroundings.plugin_version({"/a": "1.0"}, "1.0", ""), State.OK, "/a")


def test_daemon(conf: Settings, tmp_path: Path) -> None:
    """A daemon that does not run is a warning, one that does not answer a failure; another version or configuration is told."""
    told(surroundings.daemon(None, conf, "1.0", why="x"), State.WARNING, "does not run", conf.cni_socket)
    (tmp_path / "cni.sock").touch()
    told(surroundings.daemon(None, conf, "1.0", why="it was cut short"), State.FAILURE, "it was cut short")
    about = {"version": "1.0", "metrics": "127.0.0.1:9655", "settings": msgspec.to_builtins(conf)}
    told(surroundings.daemon(about, conf, "1.0"), State.OK, "version 1.0", "http://127.0.0.1:9655/metrics")
    told(surroundings.daemon(about, conf, "1.1"), State.WARNING, "version 1.0 runs, version 1.1 is installed")
    other = settings(tmp_path, add_timeout=7.0)
    told(surroundings.daemon(about, other, "1.0"), State.WARNING, "add_timeout = 180.0 and not 7.0")
    told(surroundings.daemon({**about, "settings": {}}, other, "1.0"), State.OK)


ITEM = {
    "pod": "ns/p",
    "container_id": "c0ffee",
    "ifname": "net1",
    "trouble": None,
    "link": "connected",
    "goal": "attached",
}


@pytest.mark.parametrize(
    ("items", "state", "words"),
    [
        ([], State.OK, "none"),
        ([ITEM], State.OK, "1, all as they should be"),
        (
            [ITEM, ITEM | {"trouble": "it has VLAN 7", "pod": ""}],
            State.WARNING,
            "1 of 2 are not as they should be: c0ffee net1: it",
        ),
        ([ITEM | {"link": "stale"}], State.WARNING, "ns/p net1: stale"),
        ([ITEM | {"goal": "leaving", "link": "leaving"}], State.WARNING, "1 are leaving and not gone: ns/p net1"),
    ],
)
def test_attachments(items: list[dict[str, Any]], state: State, words: str) -> None:
    """What is attached is told by what is wrong with it."""
    told(surroundings.attachments({"attachments": items}), state, words)


def test_read_journal(conf: Settings, tmp_path: Path) -> None:
    """The journal is read as it is: what is no entry is passed over and left alone."""
    assert surroundings.read_journal(conf.state_dir) == []
    folder = tmp_path / "state/attachments"
    folder.mkdir(parents=True)
    mine = entry()
    (folder / "c0ffee:net1.attached.json").write_bytes(msgspec.json.encode(mine))
    for name in ("spoilt:x.json", ".c0ffee:net2.json.new", "a.unreadable"):
        (folder / name).write_text("{")

    assert surroundings.read_journal(conf.state_dir) == [mine]
    assert len(list(folder.iterdir())) == 4


def test_apiserver() -> None:
    """That nobody follows the node's PodVifs is a failure with its reason; else it is told how many there are and where."""
    known: dict[str, Any] = {"node": "n1", "server": "https://api", "podvifs": 3, "trouble": None}

    told(surroundings.apiserver(known), State.OK, "3 PodVifs of node n1 are followed at https://api")
    told(
        surroundings.apiserver(known | {"trouble": "refused"}),
        State.FAILURE,
        "of node n1 are not being followed: refused",
    )
