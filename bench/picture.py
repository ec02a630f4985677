"""The run as a picture.

Law: bars are p50s with a line from p10 to p95, in the order of the tables; nothing is in it that the rows do not say.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: there is no screen

from matplotlib import pyplot as plt

from bench import contenders
from bench.plan import AT_ONCE, ATTACHMENTS, MAXSLEEPS, MODES
from bench.rows import Row, Rows

_OURS, _FLOOR, _OTHER = "#1b6ca8", "#9aa5b1", "#d3dae2"
_COLOURS = {
    contenders.PODVIF: _OURS,
    contenders.IPAM: "#5b9bd0",
    contenders.SETTLED: "#a9cbe8",
    contenders.FLOOR: _FLOOR,
    contenders.OS_VIF: _FLOOR,
}


def draw(rows: Rows, file: Path) -> None:
    """Write the picture as a PNG file; panels of what was not measured stay empty."""
    figure, panels = plt.subplots(3, 3, figsize=(18, 13), layout="constrained")
    for number, maxsleep in enumerate(MAXSLEEPS):
        for column, verb in enumerate(("ADD", "DEL")):
            wanted = [row for mode in MODES for row in rows.of("serial", maxsleep=maxsleep, verb=verb, mode=mode)]
            title = f"{verb}, one after the other, pmd-maxsleep {maxsleep}"
            _bars(panels[number][column], title, wanted, "ms")
        burst = sorted(rows.of("burst", maxsleep=maxsleep), key=lambda row: row.verb)
        title = f"{ATTACHMENTS} at concurrency {AT_ONCE}, pmd-maxsleep {maxsleep}"
        _bars(panels[number][2], title, burst, "ms in all")
    for column, verb in enumerate(("ADD", "DEL")):
        _growth(panels[2][column], f"{verb} beside other ports", rows, verb)
    _bars(panels[2][2], "packets, both directions", list(rows.of("traffic")), "million per second")
    figure.suptitle("podvif: p50 with p10 to p95")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _bars(panel: Any, title: str, rows: list[Row], unit: str) -> None:
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel(unit)
    if not rows:
        return
    spreads = [row.spread for row in rows]
    middles = [found.p50 for found in spreads]
    whiskers = [
        [found.p50 - found.p10 for found in spreads],
        [found.p95 - found.p50 for found in spreads],
    ]
    places = range(len(rows))
    panel.barh(
        places,
        middles,
        xerr=whiskers,
        color=[_COLOURS.get(row.what, _OTHER) for row in rows],
        error_kw={"lw": 1, "capsize": 2, "ecolor": "#333333"},
    )
    labels = [" ".join(filter(None, (row.mode, row.verb if row.section == "burst" else "", row.what))) for row in rows]
    panel.set_yticks(list(places), labels, fontsize=8)
    panel.invert_yaxis()
    for place, middle in zip(places, middles, strict=True):
        panel.text(0, place, f" {middle:.1f}", va="center", fontsize=8)


def _growth(panel: Any, title: str, rows: Rows, verb: str) -> None:
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel("ports standing")
    panel.set_ylabel("ms")
    for maxsleep, style in zip(MAXSLEEPS, ("-", "--"), strict=True):
        for what in (contenders.PODVIF, contenders.FLOOR):
            found = list(rows.of("growth", what=what, verb=verb, maxsleep=maxsleep))
            spreads = [row.spread for row in found]
            panel.errorbar(
                [row.standing for row in found],
                [each.p50 for each in spreads],
                yerr=[[each.p50 - each.p10 for each in spreads], [each.p95 - each.p50 for each in spreads]],
                linestyle=style,
                marker="o",
                capsize=2,
                color=_COLOURS[what],
                label=f"{what}, pmd-maxsleep {maxsleep}",
            )
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=8)
