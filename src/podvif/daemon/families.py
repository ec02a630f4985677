"""Metric families: how one is described, and how its values of now are given to Prometheus."""

from collections.abc import Mapping

import msgspec
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily


class Family(msgspec.Struct, frozen=True):
    """One metric family: its name as it is exposed, what it says, and its labels with their values."""

    name: str
    kind: str
    help: str
    labels: Mapping[str, str] = {}


def gauge(family: Family, values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    """What is so, by the values of the labels."""
    made = GaugeMetricFamily(family.name, family.help, labels=tuple(family.labels))
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made


def counter(family: Family, values: Mapping[tuple[str, ...], float]) -> CounterMetricFamily:
    """What has happened how often, by the values of the labels."""
    made = CounterMetricFamily(family.name, family.help, labels=tuple(family.labels))
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made


def summary(family: Family, values: Mapping[tuple[str, ...], tuple[int, float]]) -> SummaryMetricFamily:
    """How often and how much in all, by the values of the labels."""
    made = SummaryMetricFamily(family.name, family.help, labels=tuple(family.labels))
    for labels, (count, total) in values.items():
        made.add_metric(labels, count, total)
    return made
