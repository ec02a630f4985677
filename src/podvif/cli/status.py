"""`podvif status`: the node's attachments as a table."""

import json
from typing import Any

import click

from podvif.cli.daemon import ask


@click.command()
@click.option("--socket", "path", default="/var/run/podvif/cni.sock", show_default=True, help="The daemon's socket.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form.")
def status(path: str, output: str) -> None:
    """Show the attachments of this node: port, mode, who listens, socket, link, addresses, age."""
    document = ask(path, "status")
    if output == "json":
        click.echo(json.dumps(document, indent=2))
        return
    _print(document)


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415  not needed for --output json
    from rich.measure import Measurement  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    switch = document["switch"]
    console = Console()
    if switch["trouble"]:
        console.print(Text(switch["trouble"], "red"))
    else:
        dpdk = "DPDK initialized" if switch["dpdk_initialized"] else "[red]DPDK not initialized[/]"
        console.print(f"Open vSwitch {switch['ovs_version']}, {dpdk}, {len(document['attachments'])} attachments")
    if not document["attachments"]:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("POD / CONTAINER", "IF", "PORT", "MODE", "LISTENS", "LINK", "MAC", "IPS", "SOCKET", "AGE"):
        table.add_column(name, no_wrap=True)
    for item in document["attachments"]:
        link = item["trouble"] or item["link"]
        table.add_row(
            item["pod"] or item["container_id"][:13],
            item["ifname"],
            item["port"],
            item["mode"],
            "OVS" if item["listener"] == "ovs" else "application",
            Text(link, "red" if item["trouble"] else "green" if link == "connected" else ""),
            item["mac"],
            "\n".join(item["ips"]),
            item["socket"],
            age(item["age_seconds"]),
        )
    # As wide as it is, like kubectl's: a folded table can neither be read nor be cut with awk.
    wide = Measurement.get(Console(width=1000), Console(width=1000).options, table).maximum
    Console(width=max(console.width, wide)).print(table)


def age(seconds: int) -> str:
    """A duration in kubectl's form: 59s, 12m, 5h, 3d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
