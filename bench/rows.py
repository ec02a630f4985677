"""What was measured.

Law: a run is a flat list of rows, each with what it is of, its unit and all its samples; every table, picture, ratio and
verdict is derived from them, so that `results.json` has all there is to say.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some samples: how many, and the values that 10, 50, 95 and 99 of 100 stay below."""

    n: int
    p10: float
    p50: float
    p95: float
    p99: float


def spread(samples: Sequence[float]) -> Spread:
    """The spread of at least one sample; between two samples it is interpolated."""
    if len(samples) == 1:
        return Spread(1, *(4 * [samples[0]]))
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return Spread(len(samples), cuts[9], cuts[49], cuts[94], cuts[98])


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing.

    Attributes:
        section: what was going on: serial, shim, burst, growth, cluster, daemon, recovery, traffic, controller, pods.
        what: the thing.
        unit: of the samples.
        maxsleep: microseconds of pmd-maxsleep; None where no switch has a part in it.
        mode: of the application, server or client; empty where neither matters.
        verb: ADD or DEL; empty for others.
        standing: ports that stood beside it; of a storm, its pods.
        samples: in the order in which they were taken; rows that were measured in turn have them in the same order.
    """

    section: str
    what: str
    unit: str
    maxsleep: int | None = None
    mode: str = ""
    verb: str = ""
    standing: int = 0
    samples: list[float] = field(default_factory=list)

    @property
    def spread(self) -> Spread:
        """The spread of the samples."""
        return spread(self.samples)


@dataclass(slots=True)
class Rows:
    """All rows of a run, and remarks on what could not be measured as planned."""

    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def of(self, section: str, **where: object) -> Iterator[Row]:
        """The rows of a section whose attributes have the given values, in the order in which they came."""
        for row in self.rows:
            if row.section == section and all(getattr(row, name) == value for name, value in where.items()):
                yield row

    def one(self, section: str, **where: object) -> Row | None:
        """The only such row, None when it was not measured."""
        return next(self.of(section, **where), None)

    def take(self, like: Row, sample: float) -> None:
        """Add a sample to the row that is `like` this one but for its samples, making it if need be."""
        key = _key(like)
        row = next((row for row in self.rows if _key(row) == key), None)
        if row is None:
            row = like
            self.rows.append(row)
        row.samples.append(sample)

    def document(self) -> dict[str, Any]:
        """All of it as plain values, with the spreads."""
        return {
            "rows": [
                asdict(row)
                | {"spread": asdict(row.spread), "samples": [float(f"{sample:.6g}") for sample in row.samples]}
                for row in self.rows
            ],
            "remarks": self.remarks,
            "failures": self.failures,
        }


def _key(row: Row) -> tuple[object, ...]:
    return (row.section, row.what, row.unit, row.maxsleep, row.mode, row.verb, row.standing)
