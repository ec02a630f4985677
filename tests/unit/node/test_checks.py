"""The preconditions of a node, one by one."""

import socket
from pathlib import Path

import msgspec
import pytest

from podvif.host.machine import Machine
from podvif.model import SwitchFacts
from podvif.node import checks
from podvif.node.checks import Check, State
from podvif.settings import Settings
from tests.fakes.settings import settings
from tests.fakes.switch import FakeSwitch
from tests.fakes.values import entry, port_of, vif


@pytest.fixture
def switch(tmp_path: Path) -> FakeSwitch:
    """A switch that is ready."""
    (tmp_path / "ovs").mkdir(exist_ok=True)
    return FakeSwitch(tmp_path / "ovs")


@pytest.fixture
def conf(tmp_path: Path) -> Settings:
    """The settings of a node that is ready."""
    return settings(tmp_path)


def facts(switch: FakeSwitch, **changes: object) -> FakeSwitch:
    switch.dpdk = msgspec.structs.replace(switch.dpdk, **changes)
    return switch


def told(check: Check, state: State, *words: str) -> None:
    """The check comes to `state`, says all of the words, and what to do about it if there is something to do."""
    assert check.state is state, check
    for word in words:
        assert word in check.reason
    assert check.reason
    assert "\n" not in check.reason
    assert bool(check.remedy) <= (state is not State.OK)
    assert bool(check.remedy) or state is not State.FAILURE


def test_ready(switch: FakeSwitch, conf: Settings) -> None:
    """On a node that is ready nothing that an ADD needs is a failure."""
    assert [check.name for check in checks.readiness(switch, conf) if check.state is State.FAILURE] == []


def test_ovsdb(switch: FakeSwitch, conf: Settings) -> None:
    """OVSDB is told with its address: that it answers, or why not, in the words of whoever found out."""
    told(checks.ovsdb(switch, conf), State.OK, conf.ovsdb_connection, "3.1.0")
    told(checks.ovsdb(switch, conf, why="it is no socket", remedy="mend it"), State.FAILURE, "it is no socket")
    switch.lose_ovsdb()
    told(checks.ovsdb(switch, conf), State.FAILURE, "cannot be reached")


def test_without_ovsdb(switch: FakeSwitch, conf: Settings, tmp_path: Path) -> None:
    """What cannot be known without OVSDB is a warning that says so: the fault is told once."""
    switch.lose_ovsdb()
    (tmp_path / "ovs/ovs-vswitchd.pid").touch()
    for check in (
        checks.dpdk(switch),
        checks.interface_types(switch),
        checks.forwarding_processors(switch, Machine()),
        checks.bridges(switch, {}),
        checks.ovs_socket_directory(switch, conf),
        checks.ownerless_sockets(switch, conf, []),
    ):
        told(check, State.WARNING, "OVSDB cannot be asked")


def test_vswitchd(conf: Settings, tmp_path: Path) -> None:
    """Whether vswitchd runs is said by its lock in OVSDB, else by its pid file, and else not known."""
    told(checks.vswitchd(conf), State.WARNING, "cannot be told")
    (tmp_path / "ovs/ovs-vswitchd.pid").write_text("1\n")
    told(checks.vswitchd(conf), State.FAILURE, "has died", str(tmp_path / "ovs/ovs-vswitchd.pid"))
    told(checks.vswitchd(conf, holds_lock=True), State.OK, "it runs")
    told(checks.vswitchd(conf, holds_lock=False), State.FAILURE, "no ovs-vswitchd")


def test_dpdk(switch: FakeSwitch) -> None:
    """DPDK that is not initialised is a failure: whether somebody asked for it decides what to do."""
    told(checks.dpdk(switch), State.OK, "DPDK 22.11.11")
    facts(switch, dpdk_initialized=False)
    check = checks.dpdk(switch)
    told(check, State.FAILURE, "DPDK is not initialized in ovs-vswitchd", "dpdk-init is not set")
    assert "ovsdb_connection" in check.remedy
    facts(switch, other_config={"dpdk-init": "true"})
    check = checks.dpdk(switch)
    told(check, State.FAILURE, "DPDK is not initialized in ovs-vswitchd")
    assert "hugepages" in check.remedy


def test_interface_types(switch: FakeSwitch) -> None:
    """A vswitchd built without DPDK is told by the interface type that it does not know."""
    told(checks.interface_types(switch), State.OK)
    facts(switch, iface_types=frozenset({"system", "dpdkvhostuser"}))
    told(checks.interface_types(switch), State.FAILURE, "type dpdkvhostuserclient: it is not built with DPDK")


@pytest.mark.parametrize(
    ("mask", "online", "expected"),
    [
        ("", "0-3", (State.OK, "one thread for each NUMA node")),
        ("0x6", "0-3", (State.OK, "processors 1, 2")),
        ("6", "", (State.OK, "processors 1, 2")),
        ("0x12", "0-3", (State.WARNING, "not online: 4")),
        ("0x30", "0-3", (State.FAILURE, "0, 1, 2, 3")),
        ("1,2", "0-3", (State.FAILURE, "no mask")),
    ],
)
def test_pmd_cores(switch: FakeSwitch, tmp_path: Path, mask: str, online: str, expected: tuple[State, str]) -> None:
    """The processors in pmd-cpu-mask are compared with those that are online."""
    file = tmp_path / "sys/devices/system/cpu/online"
    file.parent.mkdir(parents=True)
    file.write_text(online)
    facts(switch, other_config={"pmd-cpu-mask": mask} if mask else {})

    told(checks.forwarding_processors(switch, Machine(str(tmp_path))), *expected)


async def test_bridges(switch: FakeSwitch) -> None:
    """A bridge that is used and has another datapath is a failure; one that is not there is made when needed."""
    told(checks.bridges(switch, {}), State.OK, "none yet")
    told(checks.bridges(switch, {"br-x": "10-a.conf"}), State.OK, "br-x is made when needed")
    switch.bridges["br-int"] = "system"
    switch.add_port(port_of(vif(bridge="br-int"), name="br-int"))
    told(checks.bridges(switch, {}), State.WARNING, "no bridge has the datapath netdev", "br-int system")
    told(checks.bridges(switch, {"br-int": "10-a.conf"}), State.FAILURE, "br-int (10-a.conf) has system")
    switch.bridges["br-dpdk"] = "netdev"
    told(checks.bridges(switch, {"br-dpdk": "x"}), State.OK, "br-dpdk netdev", "br-int system")


@pytest.mark.parametrize("option", ["mount_point", "ovs_vhu_path"])
def test_directories(conf: Settings, option: str) -> None:
    """A directory that is missing is told with its option, and so is the rename that cannot work."""
    told(checks.directories(conf), State.OK)
    told(checks.rename(conf), State.OK)
    missing = getattr(conf, option)
    Path(missing).rmdir()
    told(checks.directories(conf), State.FAILURE, option, f"directory {missing} is missing")
    told(checks.rename(conf), State.FAILURE, missing)


def test_rename_leaves_nothing(conf: Settings) -> None:
    """Trying the rename leaves nothing in either directory."""
    checks.rename(conf)

    assert not [*Path(conf.mount_point).iterdir(), *Path(conf.ovs_vhu_path).iterdir()]


def test_rename_across_file_systems(conf: Settings) -> None:
    """Two file systems are told with what to do about them."""
    across = msgspec.structs.replace(conf, mount_point="/dev/shm")
    if Path("/dev/shm").stat().st_dev == Path(conf.ovs_vhu_path).stat().st_dev:
        pytest.skip("this machine has one file system for both")

    check = checks.rename(across)

    told(check, State.FAILURE, "EXDEV", "/dev/shm", conf.ovs_vhu_path)
    assert "one mount" in check.remedy


def test_path_lengths(conf: Settings) -> None:
    """The longest socket path is told beside what a socket can have."""
    longest = max(len(conf.mount_point), len(conf.ovs_vhu_path)) + 15

    told(checks.path_lengths(conf), State.OK, f"{longest} bytes of 107")


@pytest.mark.parametrize("below", ["", "vhu"])
def test_ovs_socket_directory(switch: FakeSwitch, conf: Settings, tmp_path: Path, below: str) -> None:
    """ovs_vhu_path is compared with vswitchd's run directory and its vhost-sock-dir."""
    told(checks.ovs_socket_directory(switch, conf), State.WARNING, "pid file is not to be seen")
    (tmp_path / "ovs/ovs-vswitchd.pid").touch()
    facts(switch, other_config={"vhost-sock-dir": below})
    right = msgspec.structs.replace(conf, ovs_vhu_path=f"{tmp_path}/ovs/{below}")
    told(checks.ovs_socket_directory(switch, right), State.OK)
    wrong = msgspec.structs.replace(conf, ovs_vhu_path=f"{tmp_path}/elsewhere")
    told(checks.ovs_socket_directory(switch, wrong), State.WARNING, f"{tmp_path}/elsewhere", f"{tmp_path}/ovs")


def test_state_dir(conf: Settings, tmp_path: Path) -> None:
    """The journal's directory is made at start, and has to be writable, closed to others, and without files set aside."""
    told(checks.state_dir(conf), State.OK, "is made")
    path = tmp_path / "state"
    path.mkdir(mode=0o755)
    told(checks.state_dir(conf), State.WARNING, "0755")
    path.chmod(0o700)
    told(checks.state_dir(conf), State.OK)
    (path / "attachments").mkdir()
    (path / "attachments/a:b.json.unreadable").touch()
    told(checks.state_dir(conf), State.WARNING, "a:b.json.unreadable")
    assert [found.name for found in path.iterdir()] == ["attachments"]


def test_state_dir_that_is_a_file(conf: Settings, tmp_path: Path) -> None:
    """A state_dir that is none is a failure in the system's words."""
    (tmp_path / "state").touch()

    told(checks.state_dir(conf), State.FAILURE, "Not a directory")


def _socket(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    return listening


async def test_ownerless_sockets(switch: FakeSwitch, conf: Settings, tmp_path: Path) -> None:
    """A vhost-user socket without attachment and without OVS port is told, with whether somebody listens; no other is."""
    mine = entry()
    foreign = port_of(vif(), name="vhuaaaaaaaa-bb", vhost_server_path=None)
    switch.add_port(foreign)
    for path in (tmp_path / "pods" / mine.vif.name, tmp_path / "ovs/vhuaaaaaaaa-bb", tmp_path / "ovs/db.sock"):
        _socket(path).close()
    told(checks.ownerless_sockets(switch, conf, [mine]), State.OK, "none")

    _socket(tmp_path / "pods/vhu11111111-11").close()
    with _socket(tmp_path / "ovs/vhu22222222-22"):
        told(
            checks.ownerless_sockets(switch, conf, [mine]),
            State.WARNING,
            "2 belong to no attachment",
            "vhu11111111-11 (nobody on the host listens)",
            "vhu22222222-22 (somebody listens)",
        )


def test_few() -> None:
    """Of many things the first are told, and how many more there are."""
    assert checks.few(["a", "b"]) == "a, b"
    assert checks.few([str(number) for number in range(9)]) == "0, 1, 2, 3, 4, and 4 more"
    assert checks.few(["one is bad", "two is bad", "three is bad"], "; ", 2) == "one is bad; two is bad; and 1 more"


@pytest.mark.parametrize("option", ["mount_point", "ovs_vhu_path"])
def test_nearest_first(switch: FakeSwitch, conf: Settings, option: str) -> None:
    """Of several faults the one nearest to the switch comes first."""
    Path(getattr(conf, option)).rmdir()
    switch.dpdk = SwitchFacts()
    failures = [check.name for check in checks.readiness(switch, conf) if check.state is State.FAILURE]

    assert failures[:2] == ["DPDK", "interface types"]
    assert "directories" in failures
