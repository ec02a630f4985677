"""What a real daemon tells Prometheus, and whoever asks whether it is ready."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from podvif.lab.process import LabError
from podvif.lab.sandbox import Sandbox
from tests.node.support import SOON, MakeNode, Node, refused


class Watched:
    """A node whose daemon has its pages on a port of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        (line,) = [line for line in node.daemon.log.read_text().splitlines() if "metrics at http://" in line]
        self.address = line.partition("http://")[2].partition("/metrics")[0]

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def scrape(self) -> Callable[..., float]:
        """All samples of now; the function gives the value of one."""
        status, text = self.get("/metrics")
        assert status == 200
        found = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        return lambda name, **labels: found[(name, frozenset(labels.items()))]


@pytest.fixture
def watched(make_node: MakeNode) -> Iterator[Watched]:
    """A node of the test's own."""
    node = make_node(more={"node": {"metrics_bind": "127.0.0.1:0"}})
    with node.running():
        yield Watched(node)


def attached(value: Callable[..., float], mode: str) -> float:
    """How many attachments of a mode there are, whatever their link."""
    links = ("not plugged", "waiting for the application", "connected", "stale", "gone")
    return sum(value("podvif_attachments", mode=mode, link=link) for link in links)


def verbs(value: Callable[..., float], verb: str, result: str) -> float:
    return value("podvif_verb_duration_seconds_count", verb=verb, result=result)


@pytest.mark.parametrize("mode", ["server", "client"])
def test_add_and_del(watched: Watched, box: Sandbox, mode: str) -> None:
    """An ADD and a DEL are seen: verbs with their durations, the attachment, the journal; an ADD that is refused too."""
    node = watched.node
    before = watched.scrape()
    assert (verbs(before, "ADD", "ok"), attached(before, mode)) == (0, 0)

    with node.attached(node.network(mode), box):
        during = watched.scrape()
        assert verbs(during, "ADD", "ok") == 1
        assert 0.001 < during("podvif_verb_duration_seconds_sum", verb="ADD", result="ok") < 30
        assert during("podvif_verb_duration_seconds_bucket", verb="ADD", result="ok", le="0.001") == 0
        assert attached(during, mode) == 1
        assert during("podvif_attachments", mode=mode, link="waiting for the application") == 1
        assert during("podvif_journal_entries", goal="attached") == 1
        assert during("podvif_ready") == during("podvif_ovsdb_connected") == 1
        refused(node.cni("ADD", node.network(mode, mtu="x"), box), 7)

    after = watched.scrape()
    assert verbs(after, "DEL", "ok") == 1
    assert verbs(after, "ADD", "refused") == 1
    assert attached(after, mode) == 0
    assert after("podvif_journal_entries", goal="leaving") == 0


def test_readiness(watched: Watched) -> None:
    """/readyz is 503 with the reason while OVSDB is down, /healthz is not, and /metrics says so; all of it passes."""
    assert watched.get("/readyz") == (200, "ready\n")
    ovs = watched.node.ovs
    ovs.stop_ovsdb()
    try:
        status, text = watched.get("/readyz")
        assert status == 503
        assert ovs.ovsdb in text
        assert watched.get("/healthz") == (200, "ok\n")
        value = watched.scrape()
        assert value("podvif_ready") == value("podvif_ovsdb_connected") == 0
    finally:
        ovs.start_ovsdb()
    until(lambda: watched.get("/readyz")[0] == 200, "the daemon is ready again")


def until(holds: Callable[[], bool], what: str) -> None:
    """Ask the daemon until it says so: what it knows comes to it by events, and to others only when they ask."""
    deadline = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < deadline, f"not within {SOON:g} s: {what}"


@pytest.mark.parametrize("end", ["stop_vswitchd", "kill_vswitchd"])
def test_recovery(watched: Watched, box: Sandbox, end: str) -> None:
    """A socket that a new vswitchd has made and podvif has taken is counted; a vswitchd that was killed is no readiness."""
    node = watched.node
    with node.attached(node.network("client"), box):
        getattr(node.ovs, end)()
        status, text = watched.get("/readyz")
        node.ovs.start_vswitchd()
        until(lambda: recoveries(watched) >= 1, "the socket is taken")
    if end == "kill_vswitchd":
        assert status == 503
        assert "ovs-vswitchd has died" in text


def recoveries(watched: Watched) -> float:
    """Of any cause: which event comes first is the kernel's and the network's affair."""
    _, text = watched.get("/metrics")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == "podvif_recoveries_total")


def test_port_that_is_taken(watched: Watched, make_node: MakeNode) -> None:
    """A daemon whose port is taken does not start, and names the option."""
    other = make_node(more={"node": {"metrics_bind": watched.address}})
    with (
        pytest.raises(LabError, match=f"metrics_bind = {watched.address}.*somebody listens there already"),
        other.running(),
    ):
        pass
    assert watched.get("/healthz")[0] == 200


def test_off(node: Node) -> None:
    """Where metrics_bind is empty nothing listens, and the code for it is not loaded."""
    assert "aiohttp" not in Path(f"/proc/{node.daemon.pid}/maps").read_text()
    assert "metrics at" not in node.daemon.log.read_text()


def test_memory(watched: Watched) -> None:
    """With its pages the daemon stays below the 90 MB that it may have."""
    watched.scrape()
    assert watched.node.daemon.rss_kib() < 90 * 1024
