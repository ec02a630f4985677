"""Families as Prometheus reads them."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from podvif.daemon.families import Family, counter, gauge, summary


class All(Collector):
    def collect(self) -> Iterator[Metric]:
        yield gauge(Family("a_is", "gauge", "A."), {(): 1})
        yield counter(Family("a_total", "counter", "A.", {"kind": "x, y"}), {("x",): 2})
        yield summary(Family("a_seconds", "summary", "A.", {"kind": "x, y"}), {("y",): (3, 0.5)})


def test_exposed() -> None:
    """A family is exposed under its name, with its labels and values."""
    registry = CollectorRegistry()
    registry.register(All())
    lines = generate_latest(registry).decode().splitlines()

    assert [line for line in lines if not line.startswith("#")] == [
        "a_is 1.0",
        'a_total{kind="x"} 2.0',
        'a_seconds_count{kind="y"} 3.0',
        'a_seconds_sum{kind="y"} 0.5',
    ]
