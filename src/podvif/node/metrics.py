"""Metrics for Prometheus.

Law: what happens is counted where it happens, with one dictionary look-up; what is so is read from its owner when somebody
asks, and remembered nowhere.  Every family is in one table here, from which the registry, the documentation and the checks of
the dashboard and the alert rules are made.
"""

import asyncio
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from podvif.core import translate
from podvif.core.attach import Link, Step, Want
from podvif.core.cni import Command
from podvif.daemon.families import Family, counter, gauge
from podvif.daemon.version import version
from podvif.errors import RESULTS, PodvifError, result_of
from podvif.model import Attachment, Entry, Goal, Listener, PortKind, Seen, SwitchFacts
from podvif.node import vhostuser
from podvif.node.converge import World
from podvif.node.journal import Journal

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 180)
"""Seconds: from a STATUS that only looks, to an ADD that waits for vswitchd until add_timeout."""

CAUSES = (
    "start",
    "OVSDB",
    "OVS port",
    "socket",
    "pod file",
    "files",
    "vswitchd ended",
    "a verb failed",
    "ADD of several",
    "sweep",
    "resync",
    "retry",
)
"""The events that recovery knows (`podvif.node.recover`); another one is counted just as well."""

_OTHER = "other"


VERBS = Family(
    "podvif_verb_duration_seconds",
    "histogram",
    "Seconds that CNI verbs took in the daemon.",
    {"verb": "ADD, CHECK, DEL, GC, STATUS, VERSION, other", "result": ", ".join(RESULTS)},
)
READY = Family("podvif_ready", "gauge", "1 when an ADD could be served, as STATUS and /readyz say.")
ATTACHMENTS = Family(
    "podvif_attachments",
    "gauge",
    "Attached interfaces.",
    {"mode": "server, client, veth, hybrid", "link": ", ".join(link.value for link in Link)},
)
JOURNAL = Family(
    "podvif_journal_entries", "gauge", "Entries of the journal.", {"goal": ", ".join(goal.value for goal in Goal)}
)
OVSDB = Family("podvif_ovsdb_connected", "gauge", "1 while OVSDB can be asked.")
RECOVERIES = Family(
    "podvif_recoveries_total",
    "counter",
    "Attachments that were mended after an event.",
    {"cause": ", ".join(CAUSES)},
)
SWEPT = Family(
    "podvif_swept_total", "counter", "Attachments, ports, files and volumes without an owner that were removed."
)
STEPS_FAILED = Family(
    "podvif_steps_failed_total",
    "counter",
    "Steps that failed, in verbs and in recovery.",
    {"step": "as in the log", "family": "retry, refused, bug"},
)
BUILD = Family("podvif_build_info", "gauge", "Always 1.", {"version": "of podvif", "python": "of the interpreter"})
SWITCH = Family(
    "podvif_switch_info", "gauge", "Always 1.", {"ovs_version": "of Open vSwitch", "dpdk_version": "of its DPDK"}
)

FAMILIES = (VERBS, READY, ATTACHMENTS, JOURNAL, OVSDB, RECOVERIES, SWEPT, STEPS_FAILED, BUILD, SWITCH)
"""All of ours; `podvif_process_…` are prometheus_client's."""


class Switch(vhostuser.Switch, Protocol):
    """What the driver needs of Open vSwitch, and its own row (`podvif.ovs.switch.Switch`)."""

    def facts(self) -> SwitchFacts:
        """The switch's own row."""


class SeenLink(Protocol):
    """How recovery last saw a link (`podvif.node.recover.LinkState`)."""

    @property
    def link(self) -> Link:
        """Its state."""


class Seer(Protocol):
    """What the metrics need of recovery (`podvif.node.recover.Recovery`)."""

    def links(self) -> Mapping[Attachment, SeenLink]:
        """The links as they were last seen."""

    def swept(self) -> int:
        """How many things without an owner were removed."""

    def on_recovery(self, call: Callable[[str, list[Step]], None]) -> None:
        """Have `call` told of each recovery that had something to do."""


class Metrics(Collector):
    """Counts, and asks the owners; everything belongs to the event loop's thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Enter what happens into `registry`."""
        # A setting of the whole library: a time of creation for each counter would double the exposition.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self.ready = False
        self._owners: tuple[Journal, Switch, Seer] | None = None
        # What can be known beforehand is there from the start, so that the first event is an increase and not a new series.
        self._recoveries = Counter(dict.fromkeys(CAUSES, 0))
        self._failed: Counter[tuple[str, ...]] = Counter(
            {(step.value, result): 0 for step in Step for result in ("retry", "refused")}
        )
        self._verbs = Histogram(VERBS.name, VERBS.help, tuple(VERBS.labels), buckets=BUCKETS, registry=registry)
        for command in Command:
            for result in RESULTS if command in {Command.ADD, Command.DEL} else ("ok", "bug"):
                self._verbs.labels(command.value, result)
        self._names = {command.value for command in Command}

    def measured(self, world: World, journal: Journal) -> World:
        """The world, whose failing steps are counted."""
        return MeasuredWorld(world, journal, self.step_failed)

    def watch(self, journal: Journal, switch: Switch, recovery: Seer) -> None:
        """Enter what is so into the registry: these are asked whenever somebody asks us."""
        self._owners = (journal, switch, recovery)
        recovery.on_recovery(self.recovered)
        self.registry.register(self)
        ProcessCollector(namespace="podvif", registry=self.registry)

    # -- what happens --------------------------------------------------------------------------------------------------

    def verb(self, name: str, result: str, seconds: float) -> None:
        """A verb has ended."""
        self._verbs.labels(name if name in self._names else _OTHER, result).observe(seconds)

    def recovered(self, cause: str, steps: list[Step]) -> None:
        """An event had consequences."""
        del steps
        self._recoveries[cause] += 1

    def step_failed(self, step: Step, error: PodvifError | None) -> None:
        """A step has failed; without an error it waited too long."""
        self._failed[(step.value, "retry" if error is None else result_of(error))] += 1

    # -- what is so ----------------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Every family but the histogram, as of now; the registry calls this."""
        if self._owners is None:
            return
        journal, switch, recovery = self._owners
        entries = journal.all()
        yield gauge(READY, {(): float(self.ready)})
        yield gauge(OVSDB, {(): float(switch.trouble() is None)})
        yield gauge(ATTACHMENTS, _attachments(entries, switch, recovery.links()))
        goals = Counter(entry.goal for entry in entries)
        yield gauge(JOURNAL, {(goal.value,): goals[goal] for goal in Goal})
        yield counter(RECOVERIES, {(cause,): number for cause, number in self._recoveries.items()})
        yield counter(SWEPT, {(): recovery.swept()})
        yield counter(STEPS_FAILED, self._failed)
        yield gauge(BUILD, {(version(), platform.python_version()): 1})
        facts = switch.facts()
        yield gauge(SWITCH, {(facts.ovs_version, facts.dpdk_version): 1})


class MeasuredWorld:
    """The world of the loop, which tells of steps that fail; a step that succeeds costs nothing more."""

    def __init__(self, world: World, journal: Journal, failed: Callable[[Step, PodvifError | None], None]) -> None:
        """Take the world, the goals, and who is told."""
        self._world = world
        self._journal = journal
        self._failed = failed
        self.observe = world.observe

    async def do(self, want: Want, step: Step, seen: Seen) -> None:
        """As the world does."""
        try:
            await self._world.do(want, step, seen)
        except PodvifError as error:
            self._failed(step, error)
            raise

    async def wait(self, want: Want, step: Step, seen: Seen) -> None:
        """As the world does; a deadline shows here as a cancellation while the goal still is one."""
        try:
            await self._world.wait(want, step, seen)
        except asyncio.CancelledError:
            if self._wanted(want):
                self._failed(step, None)
            raise
        except PodvifError as error:
            self._failed(step, error)
            raise

    def _wanted(self, want: Want) -> bool:
        entry = self._journal.get(want.attachment)
        return entry is not None and (entry.goal is Goal.LEAVING) is (want.goal is Goal.LEAVING)


def _attachments(
    entries: Iterable[Entry], switch: Switch, links: Mapping[Attachment, SeenLink]
) -> dict[tuple[str, ...], float]:
    found = Counter(
        (translate.mode_of_port(entry.vif), _link(entry, switch, links).value)
        for entry in entries
        if entry.goal is Goal.ATTACHED
    )
    modes = [
        *(translate.mode_of(listener) for listener in Listener),
        *(kind.value for kind in PortKind if kind is not PortKind.VHOST_USER),
    ]
    return {(mode, link.value): found[(mode, link.value)] for mode in modes for link in Link}


def _link(entry: Entry, switch: Switch, links: Mapping[Attachment, SeenLink]) -> Link:
    if known := links.get(entry.attachment):
        return known.link
    # Recovery has not looked at it yet: OVSDB alone says enough, and costs nothing.
    port = switch.port(entry.vif.name)
    if port is None or port.ofport in {None, -1}:
        return Link.NOT_PLUGGED
    if port.link_up:
        return Link.CONNECTED
    return Link.WAITING if entry.vif.kind is PortKind.VHOST_USER else Link.NOT_PLUGGED
