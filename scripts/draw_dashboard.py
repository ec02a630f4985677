"""Draw deploy/grafana/podvif-node.json without Grafana: its panels and its queries, with the answers of a real Prometheus.

Law: what is drawn comes from the dashboard and from Prometheus and from nowhere else; only the drawing is not Grafana's.  So
a panel whose query finds nothing says "No data" here as it would there.
scripts/draw_pictures.py uses it.
"""

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: there is no screen

from matplotlib import pyplot as plt
from matplotlib.gridspec import GridSpec

DASHBOARD = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "podvif-node.json"
_COLUMNS = 24  # of Grafana's grid
_POINTS = 300
_COLOURS = {"green": "#56a64b", "red": "#e02f44", "orange": "#ff9830", "blue": "#3274d9"}
_UNITS = {"s": (1000.0, "ms"), "bytes": (1 / (1 << 20), "MiB"), "percentunit": (100.0, "%"), "ops": (1.0, "per second")}

Series = Mapping[str, Mapping[float, float]]
"""Values by minute, by legend."""


class Stretch(NamedTuple):
    """A stretch of time of one Prometheus: its address, seconds since the epoch, and seconds between two scrapes."""

    url: str
    start: float
    end: float
    interval: float

    @property
    def step(self) -> float:
        """Seconds between two points of a curve."""
        return max(self.interval, (self.end - self.start) / _POINTS)

    def ask(self, what: str, query: str, **arguments: float) -> list[dict[str, Any]]:
        """What its HTTP API answers to a query of the dashboard, for all nodes."""
        rate = f"{math.ceil(max(4 * self.interval, self.step))}s"  # Grafana's $__rate_interval
        filled = query.replace("$__rate_interval", rate).replace("$node", ".*")
        parameters = urllib.parse.urlencode({"query": filled, **arguments})
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{parameters}") as answer:  # noqa: S310  a URL that somebody gave
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def now(self, panel: dict[str, Any]) -> list[dict[str, Any]]:
        """The panel's first query at the end of the stretch."""
        return self.ask("query", panel["targets"][0]["expr"], time=self.end)

    def series(self, panel: dict[str, Any]) -> Series:
        """All the panel's queries over the stretch."""
        found = {}
        for target in panel["targets"]:
            for series in self.ask("query_range", target["expr"], start=self.start, end=self.end, step=self.step):
                legend = target["legendFormat"]
                for label, value in series["metric"].items():
                    legend = legend.replace("{{" + label + "}}", value)
                found[legend] = {
                    (when - self.start) / 60: float(value) for when, value in series["values"] if value != "NaN"
                }
        return {legend: values for legend, values in sorted(found.items()) if values}


def draw(stretch: Stretch, file: Path) -> None:
    """Write the dashboard as a PNG file."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(14, rows * 0.46), facecolor="#f4f5f5")
    grid = GridSpec(rows, _COLUMNS, figure, left=0.05, right=0.985, top=0.99, bottom=0.01, wspace=4, hspace=8)
    for panel in panels:
        x, y, width, height = (panel["gridPos"][key] for key in ("x", "y", "w", "h"))
        axes = figure.add_subplot(grid[y : y + height, x : x + width])
        if panel["type"] != "row":
            axes.set_title(panel["title"], loc="left", fontsize=9, weight="bold")
        _DRAWERS[panel["type"]](axes, panel, stretch)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _row(axes: Any, panel: dict[str, Any], stretch: Stretch) -> None:
    del stretch
    axes.axis("off")
    axes.text(0, 0, panel["title"], fontsize=12, weight="bold", transform=axes.transAxes)


def _stat(axes: Any, panel: dict[str, Any], stretch: Stretch) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    found = stretch.now(panel)
    value = float(found[0]["value"][1]) if found else math.nan
    reached = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    shown = {"text": f"{value:g}", "color": reached[-1]["color"]}
    for mapping in defaults["mappings"]:
        shown = mapping["options"].get(f"{value:g}", shown)
    axes.set_facecolor(_COLOURS[shown["color"]])
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, shown["text"], ha="center", va="center", fontsize=24, color="white", transform=axes.transAxes)


def _curves(axes: Any, panel: dict[str, Any], stretch: Stretch) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    factor, unit = _UNITS.get(defaults["unit"], (1.0, ""))
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    series = stretch.series(panel)
    minutes = sorted({minute for values in series.values() for minute in values})
    below = [0.0] * len(minutes)
    for legend, values in series.items():
        heights = [factor * values.get(minute, 0.0 if stacked else math.nan) for minute in minutes]
        tops = [low + height for low, height in zip(below, heights, strict=True)]
        if defaults["custom"]["drawStyle"] == "bars":
            axes.bar(minutes, heights, bottom=below, width=stretch.step / 60, label=legend)
        elif stacked:
            axes.fill_between(minutes, below, tops, alpha=0.5, label=legend, linewidth=1)
        else:
            axes.plot(minutes, heights, linewidth=1.2, label=legend)
        below = tops if stacked else below
    _scales(axes, stretch)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
    axes.set_ylabel(unit, fontsize=7)
    if series:
        axes.legend(fontsize=7, loc="upper left", frameon=False, ncols=2)
    else:
        axes.text(0.5, 0.5, "No data", ha="center", color="#777777", transform=axes.transAxes)


def _heatmap(axes: Any, panel: dict[str, Any], stretch: Stretch) -> None:
    series = {float(bound): values for bound, values in stretch.series(panel).items()}
    bounds = sorted(series)
    minutes = sorted({minute for values in series.values() for minute in values})
    counts = [[series[bound].get(minute, 0.0) for minute in minutes] for bound in bounds]
    below = [[0.0] * len(minutes), *counts]  # a bucket of Prometheus counts what is in the smaller ones too
    cells = [
        [max(0.0, n - m) or math.nan for n, m in zip(*pair, strict=True)] for pair in zip(counts, below, strict=False)
    ]
    if minutes:
        axes.pcolormesh(minutes, range(len(bounds)), cells, cmap="Blues", vmin=0, shading="nearest")
    axes.set_yticks(range(len(bounds)), [f"{bound:g} s" for bound in bounds], fontsize=6)
    _scales(axes, stretch)


def _scales(axes: Any, stretch: Stretch) -> None:
    axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(0, (stretch.end - stretch.start) / 60)
    axes.xaxis.set_major_formatter("{x:g} min")
    axes.tick_params(labelsize=7)


def _table(axes: Any, panel: dict[str, Any], stretch: Stretch) -> None:
    axes.axis("off")
    headings: dict[str, str] = panel["transformations"][0]["options"]["renameByName"]
    cells = [[series["metric"].get(label, "") for label in headings] for series in stretch.now(panel)]
    if cells:
        height = 0.25 * (1 + len(cells))
        axes.table(cells, colLabels=list(headings.values()), cellLoc="left", bbox=(0, 1 - height, 1, height))


_DRAWERS = {"row": _row, "stat": _stat, "timeseries": _curves, "heatmap": _heatmap, "table": _table}
