"""What the design promises, held against what was measured.

Law: a ratio is p50 over p50 of rows that were measured in turn; the ratio of the p10s stands beside it, since that is what remains when
something else keeps the machine busy.  For packets, whose rate swings with the machine's load, it is the median of the ratios of
each turn to the next one's.  A target whose rows were not measured is not judged; of the controller's, which stands on parts that a
machine may not be able to build, it is said.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bench import cluster, contenders, controller, idle, recovery, shim, traffic
from bench.plan import AT_ONCE, ATTACHMENTS
from bench.rows import Row, Rows, Spread, spread

ADD_MOST = 1.5
BURST_MOST = 1.2
SHIM_MOST_MS = 2.0
SIZE_MOST_MB = 4.0
RSS_MOST_MB = 90.0
IDLE_MOST_PERCENT = 1.0
MOVED_MOST_MS = 500.0
TRAFFIC_LEAST = 0.98
STORM_MOST = 1.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise.

    Attributes:
        what: it is about.
        promise: in words.
        figure: what was measured, with its unit.
        beside: the same of the p10s, empty where there is none.
        kept: whether the promise is.
    """

    what: str
    promise: str
    figure: str
    beside: str
    kept: bool


def verdicts(rows: Rows) -> list[Verdict]:
    """All promises that can be judged."""
    return [
        *_serial(rows),
        *_burst(rows),
        *_growth(rows),
        *_shim(rows),
        *_daemon(rows),
        *_cluster(rows),
        *_recovery(rows),
        *_traffic(rows),
        *_controller(rows),
    ]


def ratio(row: Row, floor: Row) -> tuple[float, float]:
    """Of the p50s and of the p10s."""
    return row.spread.p50 / floor.spread.p50, row.spread.p10 / floor.spread.p10


def paired(row: Row, floor: Row) -> Spread:
    """Of the ratios of samples that were taken next to each other."""
    return spread([one / other for one, other in zip(row.samples, floor.samples, strict=True)])


def _at_most(what: str, most: float, row: Row, floor: Row) -> Verdict:
    middle, low = ratio(row, floor)
    return Verdict(what, f"≤ {most:g} x floor", f"{middle:.2f} x", f"{low:.2f} x", middle <= most)


def _serial(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("serial", what=contenders.PODVIF):
        floor = rows.one("serial", what=contenders.FLOOR, maxsleep=row.maxsleep, mode=row.mode, verb=row.verb)
        if floor:
            yield _at_most(f"{row.verb}, {row.mode} mode, maxsleep {row.maxsleep}", ADD_MOST, row, floor)


def _burst(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("burst", what=contenders.PODVIF):
        floor = rows.one("burst", what=contenders.OS_VIF, maxsleep=row.maxsleep, verb=row.verb)
        if floor:
            what = f"{ATTACHMENTS} {row.verb}s at concurrency {AT_ONCE}, maxsleep {row.maxsleep}"
            yield _at_most(what, BURST_MOST, row, floor)


def _growth(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("growth", what=contenders.PODVIF):
        floor = rows.one("growth", what=contenders.FLOOR, maxsleep=row.maxsleep, verb=row.verb, standing=row.standing)
        if floor and row.standing:
            what = f"{row.verb} beside {row.standing} ports, maxsleep {row.maxsleep}"
            yield _at_most(what, ADD_MOST, row, floor)


def _shim(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("shim", what=shim.STATUS):
        least = rows.one("shim", what=contenders.NOOP, maxsleep=row.maxsleep)
        if least:
            more, low = row.spread.p50 - least.spread.p50, row.spread.p10 - least.spread.p10
            what = f"shim with STATUS, maxsleep {row.maxsleep}"
            yield Verdict(
                what, f"≤ noop + {SHIM_MOST_MS:g} ms", f"+{more:.2f} ms", f"+{low:.2f} ms", more <= SHIM_MOST_MS
            )
    if size := rows.one("shim", what=shim.SIZE):
        yield _limit("executable of the shim", SIZE_MOST_MB, size)


def _daemon(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("daemon", what=idle.RSS):
        yield _limit(f"daemon's RSS, {row.standing} attachments, maxsleep {row.maxsleep}", RSS_MOST_MB, row)
    for row in rows.of("daemon", what=idle.CPU):
        yield _limit(f"daemon idle, {row.standing} attachments, maxsleep {row.maxsleep}", IDLE_MOST_PERCENT, row)


def _limit(what: str, most: float, row: Row) -> Verdict:
    figure = row.spread.p50
    return Verdict(what, f"≤ {most:g} {row.unit}", f"{figure:.2f} {row.unit}", "", figure <= most)


def _cluster(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("cluster", what=cluster.PODVIF):
        if floor := rows.one("cluster", what=cluster.FLOOR, maxsleep=row.maxsleep):
            yield _at_most(f"ADD, from PodVif bound, maxsleep {row.maxsleep}", ADD_MOST, row, floor)


def _recovery(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("recovery", what=recovery.MOVED):
        ordered = sorted(row.samples)
        high = ordered[math.ceil(0.99 * len(ordered)) - 1]
        what = f"{row.standing} sockets after a restart of vswitchd, p99"
        beside = f"p50 {row.spread.p50:.0f}, max {ordered[-1]:.0f}"
        yield Verdict(what, f"≤ {MOVED_MOST_MS:g} ms", f"{high:.0f} ms", beside, high <= MOVED_MOST_MS)
    for row in rows.of("recovery", what=recovery.STARTED):
        came = int(sum(row.samples))
        yield Verdict("starts after kill -9", "all", f"{came} of {len(row.samples)}", "", came == len(row.samples))


def _traffic(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("traffic", what=contenders.PODVIF):
        hand = rows.one("traffic", what=traffic.HAND, maxsleep=row.maxsleep, mode=row.mode)
        control = rows.one("traffic", what=traffic.CONTROL, maxsleep=row.maxsleep, mode=row.mode)
        if hand and control:
            middle, noise = paired(row, hand).p50, paired(control, hand).p50
            what = f"packets through our ports, {row.mode} mode"
            beside = f"control {noise:.3f} x"
            yield Verdict(what, f"≥ {TRAFFIC_LEAST:g} x by hand", f"{middle:.3f} x", beside, middle >= TRAFFIC_LEAST)


def _controller(rows: Rows) -> Iterator[Verdict]:
    for row in rows.of("controller", what=controller.PODVIF):
        if floor := rows.one("controller", what=controller.NEUTRON, standing=row.standing):
            yield _at_most(f"{row.standing} pods at once until bound, to Neutron alone", STORM_MOST, row, floor)
            return
    yield Verdict(
        "pods at once until bound, to Neutron alone", f"≤ {STORM_MOST:g} x floor", "not measured", "", kept=False
    )
