"""`podvif doctor`, without Open vSwitch: the faults that it finds then, and what a daemon adds."""

import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from podvif.cli.doctor import doctor, examine, plugin_version
from podvif.host.machine import Machine
from podvif.node.checks import Check, State

# What os-vif imports warns about what that imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def conf(folder: Path, **options: str) -> Path:
    """A configuration whose paths are all below the folder."""
    for name in ("pods", "ovs"):
        (folder / name).mkdir(exist_ok=True)
    mount_point = options.pop("mount_point", str(folder / "pods"))
    node = {"cni_socket": str(folder / "cni.sock"), "state_dir": str(folder / "state"), "metrics_bind": "", **options}
    lines = [
        "[vhostuser]",
        f"mount_point = {mount_point}",
        f"ovs_vhu_path = {folder}/ovs",
        "[vif_plug_ovs]",
        f"ovsdb_connection = unix:{folder}/ovs/db.sock",
        "[node]",
        *(f"{name} = {value}" for name, value in node.items()),
    ]
    path = folder / "kuryr.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(doctor, list(arguments), env={"COLUMNS": "300"})


def named(found: list[Check], name: str) -> Check:
    (check,) = [check for check in found if check.name == name]
    return check


def test_without_anything(tmp_path: Path) -> None:
    """A node without Open vSwitch fails for that, and is told about the rest all the same."""
    found = examine([str(conf(tmp_path))], [], Machine(str(tmp_path)))

    assert named(found, "OVSDB").state is State.FAILURE
    assert "there is no such file" in named(found, "OVSDB").reason
    assert named(found, "hugepages").state is State.FAILURE
    for name in ("configuration", "directories", "rename", "path lengths", "state_dir"):
        assert named(found, name).state is State.OK
    assert named(found, "podvif node").state is State.WARNING
    assert len({check.name for check in found}) == len(found)


def test_fault_has_a_remedy(tmp_path: Path) -> None:
    """No failure is told without what to do about it."""
    found = examine([str(conf(tmp_path))], [], Machine(str(tmp_path)))

    assert not [check for check in found if check.state is State.FAILURE and not check.remedy]


def test_table(tmp_path: Path) -> None:
    """The table has a line for each check and what to do below it; a failure is exit code 1."""
    result = run("--config-file", str(conf(tmp_path)))

    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("OVSDB ")]
    assert "failure" in line
    assert f"OVSDB at unix:{tmp_path}/ovs/db.sock cannot be reached: there is no such file" in line
    assert "→ start ovsdb-server, or mend [vif_plug_ovs] ovsdb_connection" in result.output
    assert " failure" in result.output.splitlines()[-1]


def test_json(tmp_path: Path) -> None:
    """As JSON each check is an object with name, state, reason and remedy."""
    result = run("--config-file", str(conf(tmp_path)), "--output", "json")

    assert result.exit_code == 1
    checks = json.loads(result.output)["checks"]
    assert all(set(check) == {"name", "state", "reason", "remedy"} for check in checks)
    assert {check["state"] for check in checks} <= {"ok", "warning", "failure"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[vhostuser]\nmount_point = /" + "x" * 100 + "\n", "mount_point = /xxx"),
        ("[vhostuser]\nmount_pint = /x\n", "mount_pint is not an option"),
        ("[node]\nmetrics_bind = nonsense\n", "metrics_bind = nonsense"),
        ("no ini", "is not INI"),
    ],
)
def test_configuration(tmp_path: Path, text: str, words: str) -> None:
    """A configuration that cannot be used is the one fault that is told: the rest would be about another node."""
    path = tmp_path / "kuryr.conf"
    path.write_text(text)
    found = examine([str(path)], [])

    assert [(check.name, check.state) for check in found] == [("configuration", State.FAILURE)]
    assert words in found[0].reason
    assert found[0].remedy


def test_several_files(tmp_path: Path) -> None:
    """A later file wins over an earlier one, and all of them are named."""
    first = conf(tmp_path)
    second = tmp_path / "more.conf"
    second.write_text(f"[node]\nstate_dir = {tmp_path}/elsewhere\n")

    found = examine([str(first), str(second)], [], Machine(str(tmp_path)))

    assert "elsewhere" in named(found, "state_dir").reason
    assert named(found, "configuration").reason == f"{first}, {second}"


# -- a daemon that runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A daemon at the configuration's socket that answers each query with what the test puts there."""
    documents: dict[str, Any] = {}
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(tmp_path / "cni.sock"))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with link:
                    (length,) = struct.unpack(">I", link.recv(4, socket.MSG_WAITALL))
                    query = json.loads(link.recv(length, socket.MSG_WAITALL))["query"]
                    code, document = (0, documents[query]) if query in documents else (1, {"msg": "no answer to that"})
                    data = json.dumps({"code": code, "stdout": json.dumps(document)}).encode()
                    link.sendall(struct.pack(">I", len(data)) + data)

        thread = threading.Thread(target=serve)
        thread.start()
        stack.callback(thread.join)
        stack.callback(listening.shutdown, socket.SHUT_RDWR)
        yield documents


ITEM = {
    "pod": "ns/p",
    "container_id": "c0",
    "ifname": "net1",
    "trouble": "it has VLAN 7",
    "link": "x",
    "goal": "attached",
}


def test_daemon(tmp_path: Path, daemon: dict[str, Any]) -> None:
    """What a running daemon knows is added: itself, and what is attached."""
    daemon["doctor"] = {"version": "0", "plugin_version": "", "metrics": "", "settings": {"add_timeout": 7}}
    daemon["status"] = {"attachments": [ITEM]}

    found = examine([str(conf(tmp_path))], [], Machine(str(tmp_path)))

    assert named(found, "podvif node").state is State.WARNING
    assert "it has VLAN 7" in named(found, "attachments").reason


def test_daemon_that_fails(tmp_path: Path, daemon: dict[str, Any]) -> None:
    """A daemon that is there and does not answer is a failure in its own words."""
    del daemon

    found = examine([str(conf(tmp_path))], [], Machine(str(tmp_path)))

    assert named(found, "podvif node").state is State.FAILURE
    assert "no answer to that" in named(found, "podvif node").reason


# -- the plugin's version ----------------------------------------------------------------------------------------------

SPEAKS = """
import json, socket, struct, sys
link = socket.socket(socket.AF_UNIX)
link.connect(json.load(sys.stdin)["daemonSocket"])
data = {data}
link.sendall(struct.pack(">I", {length}) + data)
link.recv(1)
"""


def plugin(folder: Path, data: bytes, length: str = "len(data)") -> str:
    """A plugin that sends this to its daemon."""
    path = folder / "podvif-cni"
    path.write_text(f"#!{sys.executable}\n" + SPEAKS.format(data=data, length=length))
    path.chmod(0o755)
    return str(path)


def test_plugin_version(tmp_path: Path) -> None:
    """A plugin's version is what it tells the daemon, whom the doctor plays for one call."""
    assert plugin_version(plugin(tmp_path, b'{"shim": "1.2.3", "env": {}}')) == "1.2.3"


@pytest.mark.parametrize(
    ("data", "length"),
    [(b"{}", "len(data)"), (b"[]", "len(data)"), (b"\xff", "len(data)"), (b"{", "9"), (b"", "0"), (b"", "4000000000")],
)
def test_plugin_that_says_nothing(tmp_path: Path, data: bytes, length: str) -> None:
    """A plugin that sends something else has no version."""
    assert plugin_version(plugin(tmp_path, data, length)) == ""


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "no program", "#!/no/such/interpreter\n"])
def test_plugin_that_does_not_run(tmp_path: Path, text: str) -> None:
    """An executable that never calls has no version either, and nobody waits for it."""
    path = tmp_path / "podvif-cni"
    path.write_text(text)
    path.chmod(0o755)

    assert plugin_version(str(path)) == ""
