"""The run on a terminal.

Law: a figure stands beside its floor in one table, with its spread and the ratio to it.
"""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from bench import cluster, contenders, controller, pods, traffic
from bench.plan import AT_ONCE, ATTACHMENTS
from bench.rows import Row, Rows
from bench.targets import Verdict, paired, ratio

NOTES = (
    "One vhost-user port stands all the time, so that the forwarding thread (PMD) lives; container ids are new each time.",
    (
        "pmd-maxsleep 0: that thread never sleeps and has its CPU for itself. Any other value adds about 10 ms to a plug and"
        " 28 ms to an unplug that wait for vswitchd."
    ),
    "podvif's DEL answers when the port is out of OVSDB and does not wait for vswitchd; os-vif, ovs-vsctl and raw OVSDB do.",
)
"""What one has to know to read the figures."""

_SPREAD = ("n", "p10", "p50", "p95")


def show(console: Console, rows: Rows, judged: Iterable[Verdict]) -> None:
    """Print everything."""
    for note in NOTES:
        console.print(note, markup=False, highlight=False)
    for verb in ("ADD", "DEL"):
        _grouped(console, f"{verb}, one after the other (ms)", list(rows.of("serial", verb=verb)), contenders.FLOOR)
    _grouped(
        console, f"{ATTACHMENTS} at concurrency {AT_ONCE}, os-vif back to back (ms)", _burst(rows), contenders.OS_VIF
    )
    _grouped(console, "beside other ports (ms)", _growth(rows), contenders.FLOOR)
    _grouped(console, "a pod of a cluster, ADD (ms)", list(rows.of("cluster")), cluster.FLOOR)
    _grouped(console, "the shim alone", list(rows.of("shim")), contenders.NOOP)
    _grouped(console, "the daemon", list(rows.of("daemon")), "")
    _grouped(console, "recovery", list(rows.of("recovery")), "")
    _grouped(console, "packets (million per second, both directions)", list(rows.of("traffic")), traffic.HAND)
    _grouped(
        console, "pods that come at once, and as many ports of Neutron", list(rows.of("controller")), controller.NEUTRON
    )
    _pods(console, rows)
    _verdicts(console, judged)
    for remark in rows.remarks:
        console.print(f"remark: {remark}", markup=False)
    for failure in rows.failures:
        console.print(f"failed: {failure}", style="red", markup=False)


def _burst(rows: Rows) -> list[Row]:
    return sorted(rows.of("burst"), key=lambda row: (row.maxsleep or 0, row.verb))


def _growth(rows: Rows) -> list[Row]:
    return sorted(rows.of("growth"), key=lambda row: (row.maxsleep or 0, row.verb, row.standing))


def _grouped(console: Console, title: str, rows: list[Row], floor: str) -> None:
    """One table; rows that were measured in turn stand together, with their ratio to their floor."""
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for column in ("maxsleep", "mode", "ports", "verb"):
        table.add_column(column)
    table.add_column("what", min_width=24)
    for column in (*_SPREAD, "unit", "x floor", "of p10"):
        table.add_column(column, justify="right")
    before: tuple[object, ...] | None = None
    for row in rows:
        group = (row.maxsleep, row.mode, row.standing, row.verb)
        if before is not None and group != before:
            table.add_section()
        shown = [""] * 4 if group == before else [_text(row.maxsleep), row.mode, _text(row.standing or None), row.verb]
        table.add_row(*shown, row.what, *_figures(row), row.unit, *_ratios(row, rows, floor))
        before = group
    console.print(table)


_P99_LEAST = 20
"""Samples from which on a p99 says something."""


def _pods(console: Console, rows: Rows) -> None:
    """Pods that came at once: here the slowest of a hundred counts too."""
    if not (found := list(rows.of("pods"))):
        return
    table = Table(title="pods that come at once: their sandboxes", title_justify="left")
    table.add_column("pods")
    table.add_column("what", min_width=24)
    for column in ("n", "p50", "p99", "unit", "x floor", "of p99"):
        table.add_column(column, justify="right")
    for row in found:
        mine, floor = row.spread, pods.floor_of(row, rows)
        slowest = mine.n >= _P99_LEAST
        ratios = (
            [f"{mine.p50 / floor.spread.p50:.2f}", f"{mine.p99 / floor.spread.p99:.2f}" * slowest]
            if floor
            else ["", ""]
        )
        figures = [str(mine.n), f"{mine.p50:.2f}", f"{mine.p99:.2f}" * slowest, row.unit]
        table.add_row(str(row.standing), row.what, *figures, *ratios)
    console.print(table)


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _figures(row: Row) -> list[str]:
    found = row.spread
    return [str(found.n), *(f"{figure:.2f}" for figure in (found.p10, found.p50, found.p95))]


def _ratios(row: Row, rows: list[Row], floor: str) -> list[str]:
    beside = next((each for each in rows if _group(each) == _group(row) and each.what == floor), None)
    if beside is None:
        return ["", ""]
    if row.section == "traffic":
        ratios = paired(row, beside)
        return [f"{ratios.p50:.3f}", f"{ratios.p10:.3f}"]
    return [f"{each:.2f}" for each in ratio(row, beside)]


def _group(row: Row) -> tuple[object, ...]:
    return (row.maxsleep, row.mode, row.standing, row.verb, row.unit)


def _verdicts(console: Console, judged: Iterable[Verdict]) -> None:
    table = Table(title="what the design promises", title_justify="left")
    for column in ("what", "promise", "measured", "of p10", ""):
        table.add_column(column, no_wrap=True)
    for each in judged:
        word = "[green]ok[/green]" if each.kept else "[bold red]MISSED[/bold red]"
        table.add_row(each.what, each.promise, each.figure, each.beside, word)
    console.print(table)
