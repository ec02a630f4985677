"""`podvif doctor` on a node that is well, and on nodes with one fault each."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from podvif.lab import programs
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import output
from podvif.lab.sandbox import Sandbox
from podvif.lab.tmpfs import tmpfs
from tests.node.support import MakeNode, Node, leave_dead_socket


def doctor(node: Node, *options: str, config: Path | None = None) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code and checks by name, as the command prints them."""
    command = [sys.executable, "-m", "podvif", "doctor", "--config-file", str(config or node.daemon.config)]
    done = subprocess.run([*command, "--output", "json", *options], capture_output=True, text=True, check=False)
    checks = json.loads(done.stdout)["checks"] if done.stdout else pytest.fail(done.stderr)
    return done.returncode, {check["name"]: check for check in checks}


def fault(node: Node, name: str, *words: str, **arguments: Any) -> dict[str, str]:
    """The named check fails with all of the words in its reason, and with a remedy; the exit code says that something has."""
    code, checks = doctor(node, **arguments)
    check = checks[name]
    assert check["state"] == "failure", check
    for word in words:
        assert word in check["reason"]
    assert check["remedy"]
    assert code == 1
    return check


def states(checks: dict[str, dict[str, str]], state: str) -> dict[str, str]:
    return {name: check["reason"] for name, check in checks.items() if check["state"] == state}


@contextmanager
def alone(node: Node) -> Iterator[None]:
    """The node's configuration without its daemon, for faults that would keep it from starting."""
    with node.running() as daemon:
        daemon.stop()
        yield


def test_well(node: Node, box: Sandbox) -> None:
    """A node that is well has no failure, exit code 0, and what is attached is told."""
    with node.attached(node.network(), box):
        code, checks = doctor(node)

    assert states(checks, "failure") == {}
    assert code == 0
    assert checks["attachments"] == {
        "name": "attachments",
        "state": "ok",
        "reason": "1, all as they should be",
        "remedy": "",
    }
    assert checks["podvif node"]["state"] == "ok"
    assert checks["bridges"]["reason"] == "br-dpdk netdev"
    assert str(node.ovs.vswitchd_pid) in checks["ovs-vswitchd"]["reason"]
    assert str(programs.shim()) in checks["CNI plugin"]["reason"]


def test_nothing_is_changed(node: Node, box: Sandbox) -> None:
    """Being examined changes nothing: no file, no port, no row."""
    with node.attached(node.network("client"), box):
        before = node.ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg"), sorted(os.walk(node.folder / "pods"))
        doctor(node)
        doctor(node)
        assert (node.ovs.vsctl("get", "Open_vSwitch", ".", "next_cfg"), sorted(os.walk(node.folder / "pods"))) == before


def test_table(node: Node) -> None:
    """For people it is a table with the counts below it."""
    text = output([sys.executable, "-m", "podvif", "doctor", "--config-file", str(node.daemon.config)])

    assert "DPDK" in text
    assert text.rstrip().endswith("0 failure")


def test_without_a_daemon(make_node: MakeNode) -> None:
    """A node whose daemon does not run is examined all the same; that is a warning, since it may be before its first start."""
    node = make_node()
    with alone(node):
        code, checks = doctor(node)

    assert (code, states(checks, "failure")) == (0, {})
    assert "does not run" in checks["podvif node"]["reason"]
    assert checks["DPDK"]["state"] == "ok"


def test_dead_daemon(make_node: MakeNode) -> None:
    """A daemon that was killed has left its socket, and that is a failure."""
    node = make_node()
    with node.running() as daemon:
        daemon.kill()
        fault(node, "podvif node", str(daemon.socket))


def test_ovsdb_down(make_node: MakeNode) -> None:
    """OVSDB that does not run is one failure with its address, and what cannot be known then is a warning."""
    node = make_node()
    with node.running():
        node.ovs.stop_ovsdb()
        try:
            fault(node, "OVSDB", node.ovs.ovsdb, "there is no such file")
            _, checks = doctor(node)
            assert list(states(checks, "failure")) == ["OVSDB"]
            assert {"DPDK", "bridges"} <= set(states(checks, "warning"))
        finally:
            node.ovs.start_ovsdb()


def test_ovsdb_hangs(make_node: MakeNode) -> None:
    """An ovsdb-server that accepts and never answers is told as that, soon."""
    node = make_node()
    with alone(node):
        node.ovs.pause_ovsdb()
        try:
            fault(node, "OVSDB", "does not answer within 2 s")
        finally:
            node.ovs.resume_ovsdb()


@pytest.mark.parametrize("end", ["kill_vswitchd", "stop_vswitchd"])
def test_vswitchd_down(make_node: MakeNode, end: str) -> None:
    """A vswitchd that was killed or stopped is a failure, whatever it left in OVSDB."""
    node = make_node()
    with alone(node):
        getattr(node.ovs, end)()
        try:
            fault(node, "ovs-vswitchd", "no ovs-vswitchd works on this database")
        finally:
            node.ovs.start_vswitchd()


def test_wrong_database(make_node: MakeNode, folder: Path) -> None:
    """Another Open vSwitch's database, where nobody asked for DPDK, is told with the option to mend."""
    (folder / "o").mkdir()
    other = PrivateOvs(folder / "o")
    other.start_ovsdb()
    try:
        other.vsctl("--no-wait", "init")
        with alone(node := make_node(ovsdb=other.ovsdb)):
            fault(node, "ovs-vswitchd", "no ovs-vswitchd works on this database")
            assert "ovsdb_connection" in fault(node, "DPDK", "dpdk-init is not set")["remedy"]
    finally:
        other.stop_ovsdb()


SCHEMA = {"name": "Another", "version": "1.0.0", "tables": {"T": {"columns": {"a": {"type": "string"}}}}}


def test_database_of_another_program(make_node: MakeNode, folder: Path) -> None:
    """A database of another program is named."""
    schema, path, address = folder / "schema", folder / "db", folder / "s"
    schema.write_text(json.dumps(SCHEMA))
    output([programs.ovsdb_tool(), "create", str(path), str(schema)])
    started = [
        programs.ovsdb_server(),
        str(path),
        f"--remote=punix:{address}",
        f"--unixctl={folder}/c",
        "-vconsole:off",
    ]
    # It goes to the background once it listens.
    pid_file = folder / "pid"
    output([*started, "--detach", f"--pidfile={pid_file}", f"--log-file={folder}/log"])
    pid = int(pid_file.read_text())
    try:
        with alone(node := make_node(ovsdb=f"unix:{address}")):
            fault(node, "OVSDB", "it serves Another and not Open_vSwitch")
    finally:
        os.kill(pid, 15)


def test_mount_point_missing(make_node: MakeNode) -> None:
    """A mount_point that is missing is named with its option."""
    node = make_node()
    with alone(node):
        node.mount_point.rmdir()
        fault(node, "directories", "mount_point", str(node.mount_point))
        node.mount_point.mkdir()


def test_two_file_systems(make_node: MakeNode, folder: Path) -> None:
    """A mount_point on another file system than ovs_vhu_path is told with EXDEV and both directories."""
    with tmpfs(folder / "m"), alone(node := make_node(mount_point=folder / "m")):
        check = fault(node, "rename", "EXDEV", str(folder / "m"), str(node.ovs.rundir))
    assert "one mount" in check["remedy"]


def test_too_long(make_node: MakeNode, folder: Path) -> None:
    """A mount_point too long for a socket is told with its length, as the daemon tells it at its start."""
    node = make_node()
    with alone(node):
        config = folder / "kuryr.conf"
        config.write_text(f"[vhostuser]\nmount_point = /{'x' * 100}\n")
        check = fault(node, "configuration", "mount_point", "at most 107", config=config)
    assert "shorter" in check["remedy"]


def test_bridge_with_another_datapath(make_node: MakeNode) -> None:
    """A bridge that somebody means to use and that has the kernel's datapath is told, with what to do."""
    node = make_node()
    with alone(node):
        node.ovs.vsctl("--no-wait", "add-br", "br-kernel", "--", "set", "Bridge", "br-kernel", "datapath_type=system")
        try:
            code, checks = doctor(node, "--bridge", "br-kernel")
        finally:
            node.ovs.vsctl("--no-wait", "del-br", "br-kernel")
    assert (code, checks["bridges"]["state"]) == (1, "failure")
    assert "br-kernel" in checks["bridges"]["reason"]
    assert "datapath_type=netdev" in checks["bridges"]["remedy"]


AS_NOBODY = """
import msgspec, os, sys
from podvif.cli.doctor import examine
examine(sys.argv[1:], [])  # what is loaded late is loaded now: nobody may not read the interpreter's files everywhere
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(msgspec.json.encode(examine(sys.argv[1:], [])).decode())
"""


def test_no_permission(make_node: MakeNode) -> None:
    """Whoever may not open OVSDB's socket is told that, with his number, and to be root."""
    node = make_node()
    with alone(node), tempfile.TemporaryDirectory() as readable:
        config = Path(readable, "kuryr.conf")
        config.write_text(node.daemon.config.read_text())
        for path in (config.parent, config):
            path.chmod(0o755)
        found = json.loads(output([sys.executable, "-c", AS_NOBODY, str(config)]))
    checks = {check["name"]: check for check in found}
    assert checks["user"]["state"] == "warning"
    assert checks["OVSDB"]["state"] == "failure"
    assert "Permission denied for uid 65534" in checks["OVSDB"]["reason"]
    assert checks["OVSDB"]["remedy"] == "run it as root"


def test_socket_without_an_owner(make_node: MakeNode) -> None:
    """A vhost-user socket that belongs to nobody is a warning that names it."""
    node = make_node()
    with alone(node):
        left = node.mount_point / "vhuffffffff-ff"
        leave_dead_socket(left)
        code, checks = doctor(node)
        left.unlink()
    assert code == 0
    assert str(left) in states(checks, "warning")["sockets without an owner"]


def test_another_configuration(make_node: MakeNode, folder: Path) -> None:
    """A daemon that runs with another configuration than the one given is told with what differs."""
    node = make_node()
    with node.running() as daemon:
        config = folder / "kuryr.conf"
        config.write_text(daemon.config.read_text() + "add_timeout = 77\n")
        _, checks = doctor(node, config=config)
    assert "add_timeout = 180.0 and not 77.0" in states(checks, "warning")["podvif node"]
