"""`podvif status`: the node's attachments as a table, once or again and again."""

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import click

from podvif.cli.daemon import ask
from podvif.errors import PodvifError
from podvif.names import DEFAULT_CNI_SOCKET

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

COLUMNS = ("POD / CONTAINER", "IF", "PORT", "MODE", "LISTENS", "LINK", "MAC", "IPS", "SOCKET", "AGE")
_LEAVE_OUT = ("SOCKET", "MAC", "IPS", "LISTENS", "MODE")
"""What a screen that is too narrow does without, the first first."""

_LISTENERS = {"ovs": "OVS", "application": "application"}

_COLOURS = {
    "connected": "green",
    "waiting for the application": "yellow",
    "not plugged": "red",
    "not wired": "red",
    "stale": "red",
    "gone": "red",
}


@click.command()
@click.option("--socket", "path", default=DEFAULT_CNI_SOCKET, show_default=True, help="The daemon's socket.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form.")
@click.option(
    "--watch", is_flag=True, help="Go on until Ctrl-C; where stdout is no terminal, one answer below the other."
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
def status(path: str, output: str, interval: float, *, watch: bool) -> None:
    """Show the attachments of this node: port, mode, who listens, link and since when, addresses, socket, age."""
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
            _watch(path, output, interval)
        return
    document = ask(path, "status")
    if output == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        show(document)


def _watch(path: str, output: str, interval: float) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    console = Console()
    if output == "json" or not console.is_terminal:
        while True:
            _once(path, output)
            time.sleep(interval)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_screen(path, console), refresh=True)
            time.sleep(interval)


def _once(path: str, output: str) -> None:
    """One answer of --watch without a terminal: a line of JSON, or the table."""
    try:
        document = ask(path, "status")
    except PodvifError as error:
        click.echo(error.message, err=True)  # it may come back
        return
    if output == "json":
        click.echo(json.dumps(document))
    else:
        click.echo(time.strftime("%H:%M:%S"))
        show(document)


def _screen(path: str, console: "Console") -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    try:
        document = ask(path, "status")
    except PodvifError as error:
        return Text(error.message, style="red")
    left_out: list[str] = []
    table = _table(document, left_out)
    while _width(table) > console.width and len(left_out) < len(_LEAVE_OUT):
        left_out.append(_LEAVE_OUT[len(left_out)])
        table = _table(document, left_out)
    return Group(_headline(document), table) if document["attachments"] else _headline(document)


def show(document: dict[str, Any]) -> None:
    """Print the status document as a table."""
    from rich.console import Console  # noqa: PLC0415  not needed for --output json

    console = Console()
    console.print(_headline(document))
    if document["attachments"]:
        table = _table(document)
        # As wide as it is, like kubectl's: a folded table can neither be read nor be cut with awk.
        Console(width=max(console.width, _width(table))).print(table)


def _headline(document: dict[str, Any]) -> "RenderableType":
    from rich.text import Text  # noqa: PLC0415

    switch = document["switch"]
    if switch["trouble"]:
        return Text(switch["trouble"], style="red")
    dpdk = ("DPDK initialized", "") if switch["dpdk_initialized"] else ("DPDK not initialized", "red")
    parts: list[str | tuple[str, str]] = [
        f"Open vSwitch {switch['ovs_version']}, ",
        dpdk,
        f", {len(document['attachments'])} attachments",
    ]
    return Text.assemble(*parts, *_apiserver(document))


def _apiserver(document: dict[str, Any]) -> list[str | tuple[str, str]]:
    match document.get("apiserver"):
        case {"trouble": str(trouble)}:
            return [", ", (f"PodVifs are not being followed: {trouble}", "red")]
        case {"podvifs": number, "node": node}:
            return [f", {number} PodVifs of node {node}"]
    return []


def _table(document: dict[str, Any], left_out: "list[str] | tuple[str, ...]" = ()) -> "Table":
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = [name for name in COLUMNS if name not in left_out]
    for name in shown:
        table.add_column(name, no_wrap=True)
    for item in document["attachments"]:
        row = {
            "POD / CONTAINER": item["pod"] or item["container_id"][:13],
            "IF": item["ifname"],
            "PORT": item["port"],
            "MODE": item["mode"],
            "LISTENS": _LISTENERS.get(item["listener"], "-"),
            "LINK": _link(item),
            "MAC": item["mac"],
            "IPS": "\n".join(item["ips"]),
            "SOCKET": item["socket"] or "-",
            "AGE": age(item["age_seconds"]),
        }
        # What the daemon says is text and no markup: an error may have brackets in it.
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in (row[name] for name in shown)))
    return table


def _link(item: dict[str, Any]) -> Any:
    from rich.text import Text  # noqa: PLC0415

    since = item.get("link_since")
    aged = "" if since is None else f" {age(max(0, int(time.time() - since)))}"
    text = Text(f"{item['link']}{aged}", style=_COLOURS.get(item["link"], "dim"))
    if item["trouble"]:
        text.append(f": {item['trouble']}", style="red")
    return text


def _width(table: "Table") -> int:
    from rich.console import Console  # noqa: PLC0415
    from rich.measure import Measurement  # noqa: PLC0415

    wide = Console(width=1000)
    return Measurement.get(wide, wide.options, table).maximum


def age(seconds: int) -> str:
    """A duration in kubectl's form: 59s, 12m, 5h, 3d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
