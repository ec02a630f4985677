"""What Prometheus is told."""

import ast
import asyncio
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry

from podvif.core.attach import Link, Step, Want
from podvif.errors import Bug, PodvifError, Refused, Retry
from podvif.model import Attachment, Goal, Listener, Seen
from podvif.node import metrics, recover
from podvif.node.converge import World
from podvif.node.drivers import Drivers
from podvif.node.journal import Journal
from podvif.node.metrics import FAMILIES, Metrics, SeenLink
from tests.fakes.devices import FakeDevices
from tests.fakes.ipam import FakeIpam
from tests.fakes.settings import settings
from tests.fakes.switch import FakeSwitch
from tests.fakes.values import ATTACHMENT, entry, kernel_vif, port_of, vif

ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = ROOT / "deploy/grafana/podvif-node.json"
ALERTS = ROOT / "deploy/prometheus/podvif-alerts.yaml"


class LinkState(msgspec.Struct, frozen=True):
    """A link as recovery remembers it."""

    link: Link


class Seer:
    """Recovery, as far as the metrics look at it."""

    def __init__(self) -> None:
        self.known: dict[Attachment, SeenLink] = {}
        self.removed = 0
        self.observers: list[Callable[[str, list[Step]], None]] = []

    def links(self) -> Mapping[Attachment, SeenLink]:
        return self.known

    def swept(self) -> int:
        return self.removed

    def on_recovery(self, call: Callable[[str, list[Step]], None]) -> None:
        self.observers.append(call)


class Daemon:
    """The parts that the metrics look at."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings(folder)
        self.switch = FakeSwitch(folder / "ovs")
        self.journal = Journal(self.settings.state_dir)
        self.recovery = Seer()
        self.metrics = Metrics(CollectorRegistry())
        self.metrics.watch(self.journal, self.switch, self.recovery)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon without attachments."""
    made = Daemon(tmp_path)
    yield made
    made.switch.kill_vswitchd()


def test_verbs(daemon: Daemon) -> None:
    """Each verb that ended is in the histogram of its name and result."""
    daemon.metrics.verb("ADD", "ok", 0.0015)
    daemon.metrics.verb("ADD", "retry", 200)

    assert daemon.value("podvif_verb_duration_seconds_count", verb="ADD", result="ok") == 1
    assert daemon.value("podvif_verb_duration_seconds_bucket", verb="ADD", result="ok", le="0.001") == 0
    assert daemon.value("podvif_verb_duration_seconds_bucket", verb="ADD", result="ok", le="0.002") == 1
    assert daemon.value("podvif_verb_duration_seconds_bucket", verb="ADD", result="retry", le="180.0") == 0
    assert daemon.value("podvif_verb_duration_seconds_bucket", verb="ADD", result="retry", le="+Inf") == 1


def test_failures_are_there_from_the_start(daemon: Daemon) -> None:
    """The first failure, bug or recovery is an increase: the series is there before."""
    for verb in ("ADD", "DEL"):
        for result in ("ok", "retry", "refused", "bug"):
            assert daemon.value("podvif_verb_duration_seconds_count", verb=verb, result=result) == 0
    for verb in ("CHECK", "GC", "STATUS"):
        assert daemon.value("podvif_verb_duration_seconds_count", verb=verb, result="bug") == 0
    assert daemon.value("podvif_steps_failed_total", step="plug", family="retry") == 0
    assert daemon.value("podvif_recoveries_total", cause="socket") == 0


def test_causes() -> None:
    """The causes that are there from the start are those that recovery names, no more and no fewer."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(recover))) if isinstance(node, ast.Call)]
    touched = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr.startswith("touch")]
    last = [call.args[-1] for call in touched]

    assert {arg.value for arg in last if isinstance(arg, ast.Constant)} == set(metrics.CAUSES)


def test_unknown_verbs(daemon: Daemon) -> None:
    """Whatever a caller says in place of a verb makes one series and no more."""
    for name in ("", "add", "X" * 99):
        daemon.metrics.verb(name, "refused", 0.001)

    assert daemon.value("podvif_verb_duration_seconds_count", verb="other", result="refused") == 3


async def test_attachments(daemon: Daemon) -> None:
    """Attached interfaces are counted by mode and link: as recovery last saw it, else as OVSDB has it."""
    for number, (listener, link) in enumerate(
        [(Listener.APPLICATION, Link.STALE), (Listener.APPLICATION, None), (Listener.OVS, None), (Listener.OVS, None)]
    ):
        attachment = Attachment("c0ffee", f"net{number}")
        port = vif(listener, attachment)
        daemon.journal.remember(entry(listener, attachment, vif=port))
        if link:
            daemon.recovery.known[attachment] = LinkState(link)
        if number:
            daemon.switch.add_port(port_of(port, ofport=-1 if number == 2 else 1, link_up=number == 3))
    daemon.journal.remember(entry(attachment=Attachment("beef", "net1"), goal=Goal.LEAVING))

    def count(mode: str, link: Link) -> float | None:
        return daemon.value("podvif_attachments", mode=mode, link=link.value)

    assert count("server", Link.STALE) == 1
    assert count("server", Link.WAITING) == 1
    assert count("client", Link.NOT_PLUGGED) == 1
    assert count("client", Link.CONNECTED) == 1
    assert count("client", Link.GONE) == 0
    assert daemon.value("podvif_journal_entries", goal="attached") == 4
    assert daemon.value("podvif_journal_entries", goal="leaving") == 1
    assert daemon.value("podvif_journal_entries", goal="attaching") == 0


def test_switch(daemon: Daemon) -> None:
    """Whether OVSDB can be asked, and what the switch is, is told as of now."""
    assert daemon.value("podvif_ovsdb_connected") == 1
    assert daemon.value("podvif_switch_info", ovs_version="3.1.0", dpdk_version="DPDK 22.11.11") == 1
    daemon.switch.lose_ovsdb()
    assert daemon.value("podvif_ovsdb_connected") == 0


def test_recoveries(daemon: Daemon) -> None:
    """Recoveries are counted by their cause, and what was swept."""
    for tell in daemon.recovery.observers:
        tell("socket", [Step.TAKE_SOCKET])
        tell("socket", [Step.TAKE_SOCKET])
        tell("OVSDB", [Step.PLUG])
    daemon.recovery.removed = 3

    assert daemon.value("podvif_recoveries_total", cause="socket") == 2
    assert daemon.value("podvif_recoveries_total", cause="OVSDB") == 1
    assert daemon.value("podvif_swept_total") == 3


class Failing(FakeSwitch):
    """A switch whose plug does not come to its end."""

    error: PodvifError | None = None

    async def plug(self, *arguments: Any) -> None:
        del arguments
        if self.error:
            raise self.error


def driver(daemon: Daemon, switch: FakeSwitch) -> tuple[World, Want, Seen]:
    made = daemon.metrics.measured(
        Drivers(switch, daemon.journal, FakeIpam(), daemon.settings, FakeDevices()), daemon.journal
    )
    want = Want(ATTACHMENT, Goal.ATTACHED, vif(Listener.APPLICATION, ATTACHMENT, daemon.settings.mount_point))
    return made, want, made.observe(want)


@pytest.mark.parametrize(("error", "family"), [(Retry("x"), "retry"), (Refused("x"), "refused"), (Bug("x"), "bug")])
async def test_steps_that_fail(daemon: Daemon, tmp_path: Path, error: PodvifError, family: str) -> None:
    """A step that fails is counted with its name and the family of its error, and fails as it did; one that does not is not."""
    switch = Failing(tmp_path / "ovs")
    measured, want, seen = driver(daemon, switch)
    await measured.do(want, Step.PLUG, seen)
    assert daemon.value("podvif_steps_failed_total", step="plug", family=family) in {0, None}

    switch.error = error
    with pytest.raises(type(error)):
        await measured.do(want, Step.PLUG, seen)

    assert daemon.value("podvif_steps_failed_total", step="plug", family=family) == 1


@pytest.mark.parametrize(("goal", "counted"), [(Goal.ATTACHING, 1), (Goal.LEAVING, 0)])
async def test_waits(daemon: Daemon, goal: Goal, counted: float) -> None:
    """A wait that came to its deadline is a step that failed; one that a DEL has ended is not."""
    measured, want, seen = driver(daemon, daemon.switch)
    daemon.journal.remember(entry(goal=goal))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await measured.wait(want, Step.AWAIT_PORT, seen)

    assert daemon.value("podvif_steps_failed_total", step=Step.AWAIT_PORT.value, family="retry") == counted


def test_table_is_the_registry(daemon: Daemon) -> None:
    """The table of families, which the documentation is made from, is what the registry exposes."""
    daemon.metrics.recovered("socket", [])
    daemon.metrics.step_failed(Step.PLUG, None)
    found = {}
    for family in daemon.metrics.registry.collect():
        for sample in family.samples:
            if sample.name.startswith("podvif_process_"):
                continue
            name = re.sub(r"_(bucket|count|sum)$", "", sample.name) if family.type == "histogram" else sample.name
            found[name] = (family.type, family.documentation, frozenset(sample.labels) - {"le"})

    assert found == {family.name: (family.kind, family.help, frozenset(family.labels)) for family in FAMILIES}


def test_no_times_of_creation(daemon: Daemon) -> None:
    """No counter has a time of creation beside it, which would double what is scraped."""
    names = {sample.name for family in daemon.metrics.registry.collect() for sample in family.samples}

    assert not [name for name in names if name.endswith("_created")]


def test_registry_of_its_own() -> None:
    """Each daemon's metrics are its own: a second one in the same process has its own registry."""
    assert Metrics(CollectorRegistry()).registry is not Metrics(CollectorRegistry()).registry


# -- what is made of them ----------------------------------------------------------------------------------------------


def known() -> set[str]:
    """Every name that a query may use."""
    named = {family.name for family in FAMILIES}
    parts = {
        f"{family.name}_{part}"
        for family in FAMILIES
        if family.kind == "histogram"
        for part in ("bucket", "count", "sum")
    }
    process = {f"podvif_process_{name}" for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds")}
    return named | parts | process


def labels_in(query: str) -> set[str]:
    """Names of labels that a query selects or groups by."""
    selected = re.findall(r"[{,]\s*(\w+)\s*[=!]~?\"", query)
    grouped = [
        name.strip() for names in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", query) for name in names.split(",")
    ]
    return {*selected, *grouped}


def queries() -> list[str]:
    """Every query of the dashboard and of the alert rules."""
    board = json.loads(DASHBOARD.read_text())
    drawn = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    variables = [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    rules = [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    return [*drawn, *variables, *rules]


def test_queries_use_what_there_is() -> None:
    """Dashboard and alert rules ask for metrics and labels that are exposed."""
    common = {"job", "instance", "le", "node"}
    ours = {label for family in FAMILIES for label in family.labels}
    for query in queries():
        assert set(re.findall(r"\bpodvif_\w+", query)) <= known(), query
        assert labels_in(query) <= ours | common, query


def test_every_metric_is_shown() -> None:
    """Each of our families is on the dashboard."""
    shown = {name for query in queries() for name in re.findall(r"\bpodvif_\w+", query)}
    for family in FAMILIES:
        assert any(name.startswith(family.name) for name in shown), family.name


def test_dashboard_has_a_form_that_grafana_takes() -> None:
    """The dashboard has a schema version, a source of data to choose, and panels that do not overlap and have distinct ids."""
    board = json.loads(DASHBOARD.read_text())
    assert board["schemaVersion"] >= 39
    assert board["templating"]["list"][0]["type"] == "datasource"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + column, place["y"] + row) for column in range(place["w"]) for row in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["description"]


def test_alerts_say_what_to_do() -> None:
    """Each alert rule has a severity, a summary, and a description with what to do."""
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description"} <= set(rule["annotations"])
        assert (
            "podvif doctor" in rule["annotations"]["description"]
            or "podvif status" in rule["annotations"]["description"]
        )


def test_buckets() -> None:
    """The buckets begin at a millisecond and end at the default deadline of an ADD."""
    assert (metrics.BUCKETS[0], metrics.BUCKETS[-1]) == (0.001, 180)
    assert sorted(set(metrics.BUCKETS)) == list(metrics.BUCKETS)
    assert msgspec.json.encode(list(metrics.BUCKETS))


def test_kernel_ports(daemon: Daemon) -> None:
    """Kernel ports count as what they are; one whose link is down waits for nobody."""
    up, down = Attachment("a", "net1"), Attachment("b", "net1")
    for attachment in (up, down):
        port = kernel_vif(attachment=attachment)
        daemon.journal.remember(entry(attachment=attachment, vif=port))
        daemon.switch._ports[port.name] = port_of(port, link_up=attachment is up)

    assert daemon.value("podvif_attachments", mode="veth", link=Link.CONNECTED.value) == 1
    assert daemon.value("podvif_attachments", mode="veth", link=Link.NOT_PLUGGED.value) == 1
    assert daemon.value("podvif_attachments", mode="hybrid", link=Link.CONNECTED.value) == 0
