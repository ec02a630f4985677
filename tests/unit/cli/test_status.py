"""`podvif status`, against a daemon that answers."""

import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    "link_since": None,
    "trouble": None,
    "mac": "02:00:00:00:00:01",
    "mtu": 1500,
    "vlan": None,
    "queues": 1,
    "ips": ["10.1.0.5/24", "fd00::5/64"],
    "age_seconds": 7260,
}


def shown(
    answers: Answers, *items: dict[str, Any], switch: dict[str, Any] | None = None, output: str = "table", **more: Any
) -> Result:
    document = {"switch": SWITCH | (switch or {}), "attachments": list(items), **more}
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
    ("link", "seconds", "text"),
    [
        ("connected", 185, "connected 3m "),
        ("waiting for the application", 4, "waiting for the application 4s "),
        ("stale", 90000, "stale 1d "),
        ("gone", -5, "gone 0s "),
    ],
)
def test_age_of_the_link(answers: Answers, link: str, seconds: float, text: str) -> None:
    """The link is shown with how long it has been so, which is never negative, whatever the clock does."""
    # Half a second on: the second must not change between here and there.
    result = shown(answers, ITEM | {"link": link, "link_since": time.time() - seconds - 0.3})

    assert text in result.output


@pytest.mark.parametrize(
    ("switch", "items", "words"),
    [
        ({"trouble": "OVSDB is away"}, [], "OVSDB is away"),
        ({"dpdk_initialized": False}, [], "DPDK not initialized"),
        ({}, [ITEM | {"trouble": "it has VLAN [7]"}], "it has VLAN [7]"),
        ({}, [ITEM | {"link": "waiting for the application"}], "waiting for the application"),
        ({}, [ITEM | {"link": "leaving", "goal": "leaving"}], "leaving"),
    ],
)
def test_trouble(answers: Answers, switch: dict[str, Any], items: list[dict[str, Any]], words: str) -> None:
    """What is wrong with the switch or with an attachment is shown in its words."""
    assert words in shown(answers, *items, switch=switch).output


@pytest.mark.parametrize(
    ("trouble", "words"),
    [(None, "0 attachments, 4 PodVifs of node n1"), ("refused", "PodVifs are not being followed: refused")],
)
def test_apiserver(answers: Answers, trouble: str | None, words: str) -> None:
    """A node that learns from an API server says how many PodVifs it has, or why it does not follow them."""
    known = {"node": "n1", "server": "https://api", "podvifs": 4, "trouble": trouble}

    assert words in shown(answers, apiserver=known).output


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


# -- --watch -----------------------------------------------------------------------------------------------------------


class Daemon:
    """A daemon that answers for as long as it runs, each time with what `links` has next; the last stays."""

    def __init__(self, path: Path, *links: str) -> None:
        self.path = path
        self._links = list(links)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()

    def serve(self) -> None:
        while True:
            try:
                link, _ = self._listening.accept()
            except OSError:
                return
            with link:
                (length,) = struct.unpack(">I", link.recv(4, socket.MSG_WAITALL))
                link.recv(length, socket.MSG_WAITALL)
                state = self._links.pop(0) if len(self._links) > 1 else self._links[0]
                document = {"switch": SWITCH, "attachments": [ITEM | {"link": state}]}
                link.sendall(frame({"code": 0, "stdout": json.dumps(document)}))

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@contextmanager
def running(path: Path, *links: str) -> Iterator[None]:
    daemon = Daemon(path, *links)
    thread = threading.Thread(target=daemon.serve)
    thread.start()
    try:
        yield
    finally:
        daemon.stop()
        thread.join()


@contextmanager
def watch(path: Path, *options: str, **streams: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """`podvif status --watch`, which does not outlive a test that fails."""
    command = [
        sys.executable,
        "-m",
        "podvif",
        "status",
        "--socket",
        str(path),
        "--watch",
        "--interval",
        "0.1",
        *options,
    ]
    streams.setdefault("env", os.environ | {"COLUMNS": "100"})
    with subprocess.Popen(command, **streams) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def test_watch_without_a_terminal(tmp_path: Path) -> None:
    """Where stdout is no terminal --watch prints the table again and again, until Ctrl-C, which is no failure."""
    with running(tmp_path / "s", "stale", "connected"), watch(tmp_path / "s", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = b""
        while b"connected" not in seen:
            seen += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()

    assert process.returncode == 0
    assert seen.count(b"POD / CONTAINER") == 2
    assert b"stale" in seen
    assert b"\x1b" not in seen + rest


def test_watch_as_json(tmp_path: Path) -> None:
    """As JSON each answer of --watch is one line."""
    with running(tmp_path / "s", "gone"), watch(tmp_path / "s", "--output", "json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)

    assert [line["attachments"][0]["link"] for line in lines] == ["gone", "gone"]
    assert process.returncode == 0


def test_watch_goes_on_without_a_daemon(tmp_path: Path) -> None:
    """A daemon that is away while somebody watches is said on standard error, and its return is seen."""
    with watch(tmp_path / "s", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"cannot be reached" in process.stderr.readline()
        with running(tmp_path / "s", "connected"):
            while b"connected" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)
            process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize(("columns", "shows"), [(60, False), (200, True)])
def test_watch_on_a_terminal(tmp_path: Path, columns: int, *, shows: bool) -> None:
    """On a terminal the table stays in its place; what is too narrow for all columns does without some, never without the link."""
    ours, theirs = pty.openpty()
    with (
        running(tmp_path / "s", "stale", "connected"),
        watch(tmp_path / "s", stdout=theirs, env=os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}) as process,
    ):
        os.close(theirs)
        seen = b""
        while b"connected" not in seen:
            assert select.select([ours], [], [], 20)[0]
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        while True:
            try:
                if not os.read(ours, 65536):
                    break
            except OSError:  # the other end is closed
                break
    os.close(ours)

    assert process.returncode == 0
    assert b"\x1b[" in seen
    assert (b"/p/vhu9c9cc8f5-88" in seen) is shows
    assert b"vhu9c9cc8f5-88" in seen


def test_kernel_port(answers: Answers) -> None:
    """A kernel port has no socket, and nobody listens."""
    item = ITEM | {"mode": "veth", "listener": None, "socket": None, "port": "tap9c9cc8f5-88", "ips": []}
    [*_, row] = shown(answers, item).output.splitlines()

    assert row.split()[2:5] == ["tap9c9cc8f5-88", "veth", "-"]
    assert row.split()[-2:] == ["-", "2h"]
