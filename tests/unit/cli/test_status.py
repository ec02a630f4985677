"""`podvif status`, against a daemon that answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from podvif.cli.status import age, status
from tests.unit.cli.test_daemon import Answers, answers, frame

__all__ = ["answers"]

SWITCH = {"trouble": None, "ovs_version": "3.1.0", "dpdk_version": "DPDK 22.11.11", "dpdk_initialized": True}
ITEM: dict[str, Any] = {
    "container_id": "0123456789abcdef" * 4,
    "ifname": "net1",
    "pod": "",
    "network": "dpdk-net",
    "goal": "attached",
    "port": "vhu9c9cc8f5-88",
    "port_id": "9c9cc8f5-88",
    "bridge": "br-dpdk",
    "mode": "client",
    "listener": "ovs",
    "socket": "/p/vhu9c9cc8f5-88",
    "link": "connected",
    "trouble": None,
    "mac": "02:00:00:00:00:01",
    "mtu": 1500,
    "vlan": None,
    "queues": 1,
    "ips": ["10.1.0.5/24", "fd00::5/64"],
    "age_seconds": 7260,
}


def shown(
    answers: Answers, *items: dict[str, Any], switch: dict[str, Any] | None = None, output: str = "table"
) -> Result:
    document = {"switch": SWITCH | (switch or {}), "attachments": list(items)}
    path = answers(frame({"code": 0, "stdout": json.dumps(document)}))
    return CliRunner().invoke(status, ["--socket", str(path), "--output", output], env={"COLUMNS": "200"})


def test_json(answers: Answers) -> None:
    """--output json is the daemon's document."""
    result = shown(answers, ITEM, output="json")

    assert (result.exit_code, json.loads(result.output)) == (0, {"switch": SWITCH, "attachments": [ITEM]})


def test_table(answers: Answers) -> None:
    """The table has a row for each attachment: pod or container, port, mode, who listens, link, addresses, socket, age."""
    result = shown(answers, ITEM, ITEM | {"pod": "ns/trex", "listener": "application", "mode": "server"})
    lines = result.output.splitlines()

    assert lines[0] == "Open vSwitch 3.1.0, DPDK initialized, 2 attachments"
    for words in (
        "0123456789abc",
        "net1",
        "vhu9c9cc8f5-88",
        "client",
        "OVS",
        "connected",
        "02:00:00:00:00:01",
        "10.1.0.5/24",
        "2h",
    ):
        assert words in lines[2]
    assert "fd00::5/64" in lines[3]
    assert "ns/trex" in lines[4]
    assert "application" in lines[4]


@pytest.mark.parametrize(
    ("switch", "items", "words"),
    [
        ({"trouble": "OVSDB is away"}, [], "OVSDB is away"),
        ({"dpdk_initialized": False}, [], "DPDK not initialized"),
        ({}, [ITEM | {"trouble": "mend [vif_plug_ovs] first"}], "mend [vif_plug_ovs] first"),
        ({}, [ITEM | {"link": "waiting for the application"}], "waiting for the application"),
    ],
)
def test_trouble(answers: Answers, switch: dict[str, Any], items: list[dict[str, Any]], words: str) -> None:
    """What is wrong with the switch or with an attachment is shown in its words."""
    assert words in shown(answers, *items, switch=switch).output


def test_no_daemon(tmp_path: Path) -> None:
    """Without a daemon the command fails."""
    result = CliRunner().invoke(status, ["--socket", str(tmp_path / "gone")])

    assert result.exit_code != 0
    assert "cannot be reached" in str(result.exception)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h"), (86400, "1d"), (864000, "10d")],
)
def test_age(seconds: int, text: str) -> None:
    """A duration is shown as kubectl does, in its largest whole unit."""
    assert age(seconds) == text
