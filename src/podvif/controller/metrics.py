"""The controller's metrics for Prometheus.

Law: what is so is read from its owner when somebody asks, and remembered nowhere.  Every family is in one table here, from which
the documentation is made.
"""

import platform
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from podvif.controller.cluster import Cluster, bound_condition
from podvif.controller.tally import Tally
from podvif.daemon.families import Family, counter, gauge, summary
from podvif.daemon.version import version
from podvif.errors import RESULTS
from podvif.podvifs import PodVif

LEADING = Family("podvif_controller_leading", "gauge", "1 while this replica leads: of all replicas one does.")
READY = Family("podvif_controller_ready", "gauge", "1 when pods and PodVifs are known, as /readyz says.")
SYNC = Family("podvif_controller_in_sync", "gauge", "1 while changes are followed.", {"kind": "pods, nads, podvifs"})
NEUTRON = Family(
    "podvif_controller_neutron_reachable", "gauge", "0 when Neutron did not answer when it was last asked."
)
PODVIFS = Family("podvif_controller_podvifs", "gauge", "PodVifs.", {"state": "bound, waiting, deleting"})
QUEUED = Family("podvif_controller_queued", "gauge", "Pods that are to be looked at now.")
WAITING = Family("podvif_controller_waiting", "gauge", "Pods that wait for another try.")
LOOKS = Family(
    "podvif_controller_look_seconds",
    "summary",
    "Looks at a pod with all that was done then, and the seconds they took.",
    {"result": ", ".join(RESULTS)},
)
ACTIONS = Family(
    "podvif_controller_actions_total",
    "counter",
    "What was done, or tried, by the names of the controller's table.",
    {"action": "CreatePodVif, CreatePort, WriteStatus, …", "result": ", ".join(RESULTS)},
)
SWEPT = Family("podvif_controller_swept_total", "counter", "Ports that belonged to no pod and were deleted.")
BUILD = Family("podvif_build_info", "gauge", "Always 1.", {"version": "of podvif", "python": "of the interpreter"})

FAMILIES = (LEADING, READY, SYNC, NEUTRON, PODVIFS, QUEUED, WAITING, LOOKS, ACTIONS, SWEPT, BUILD)
"""All of ours; `podvif_process_…` are prometheus_client's."""


class Work(Protocol):
    """What is under way (`podvif.controller.lead.Leader`)."""

    @property
    def queued(self) -> int:
        """Pods to be looked at."""

    @property
    def waiting(self) -> int:
        """Pods that wait for another try."""


class Elected(Protocol):
    """Whether this replica leads (`podvif.kube.elector.Elector`)."""

    @property
    def leading(self) -> bool:
        """It does."""


class Neutron(Protocol):
    """Whether Neutron answers (`podvif.neutron.client.Neutron`)."""

    def trouble(self) -> str | None:
        """Why it cannot be reached, or None."""


class Readiness:
    """Ready is who knows the cluster, whether he leads or stands by."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def why_not(self) -> str | None:
        """Why it is not ready, or None."""
        return self._cluster.trouble()


class Metrics(Collector):
    """Everything, as of now.

    Attributes:
        registry: what /metrics shows.
        ready: the answer of /readyz, set by who asks for the page.
    """

    def __init__(self, cluster: Cluster, elector: Elected, neutron: Neutron, work: Work, tally: Tally) -> None:
        self.registry = CollectorRegistry()
        self.ready = False
        self._cluster = cluster
        self._elector = elector
        self._neutron = neutron
        self._work = work
        self._tally = tally
        self.registry.register(self)
        ProcessCollector(namespace="podvif", registry=self.registry)
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        """Every family; the registry calls this."""
        cluster, tally = self._cluster, self._tally
        yield gauge(LEADING, {(): float(self._elector.leading)})
        yield gauge(READY, {(): float(self.ready)})
        followed = {"pods": cluster.pods.trouble, "nads": cluster.nads.trouble, "podvifs": cluster.podvifs.trouble}
        yield gauge(SYNC, {(kind,): float(trouble is None) for kind, trouble in followed.items()})
        yield gauge(NEUTRON, {(): float(self._neutron.trouble() is None)})
        states = Counter(_state(podvif) for podvif in cluster.podvifs.objects.values())
        yield gauge(PODVIFS, {(state,): states[state] for state in ("bound", "waiting", "deleting")})
        yield gauge(QUEUED, {(): self._work.queued})
        yield gauge(WAITING, {(): self._work.waiting})
        yield summary(LOOKS, {(result,): tally.looks.get(result, (0, 0.0)) for result in RESULTS})
        yield counter(ACTIONS, {labels: float(number) for labels, number in tally.actions.items()})
        yield counter(SWEPT, {(): tally.swept})
        yield gauge(BUILD, {(version(), platform.python_version()): 1})


def _state(podvif: PodVif) -> str:
    if podvif.deleting:
        return "deleting"
    condition = bound_condition(podvif)
    return "bound" if condition and condition.status == "True" else "waiting"
