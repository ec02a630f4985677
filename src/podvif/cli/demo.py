"""`podvif demo`: packets of two real DPDK applications cross two ports that podvif made.

Law: here are the options and nothing else; what happens is told in `demo_story` and drawn by `demo_screen`.
"""

import os
import sys
from pathlib import Path

import click

from podvif.cli import demo_story

SECONDS = 18
"""How long packets are watched, per mode: both modes then take about a minute in all."""


def run(mode: str | None, seconds: int = SECONDS, *, keep: bool = False, svg: Path | None = None) -> int:
    """Run the demo and return its exit code: 0 when packets arrived and nothing is left.

    Args:
        mode: `server` or `client`; None shows both, one after the other.
        seconds: how long the packets are watched, per mode.
        keep: go on until Ctrl-C in the (last) mode, and say how to look around.
        svg: write the screen to this file as a picture at the end.
    """
    if os.geteuid() != 0:
        click.echo(
            "podvif demo makes network namespaces and hugepages and plays the container runtime: run it as root (sudo).",
            err=True,
        )
        return 1
    modes = demo_story.MODES if mode is None else (mode,)
    return demo_story.tell(modes, seconds, keep=keep, svg=svg)


@click.command()
@click.option(
    "--mode",
    type=click.Choice(["server", "client"]),
    help="server: the application listens; client: OVS listens. Default: both, one after the other.",
)
@click.option(
    "--seconds",
    type=click.IntRange(min=1),
    default=SECONDS,
    show_default=True,
    help="Watch packets for so long, per mode.",
)
@click.option("--keep", is_flag=True, help="Go on until Ctrl-C (in the last mode), and say how to look around.")
@click.option(
    "--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the screen to this file as a picture."
)
def demo(mode: str | None, seconds: int, svg: Path | None, *, keep: bool) -> None:
    """Show podvif at work: a private OVS-DPDK, two pods, two DPDK applications, and their packets, live.

    Needs root and about 450 MB of memory in hugepages; touches no network card, no OVS of the host, no cluster.
    """
    sys.exit(run(mode, seconds, keep=keep, svg=svg))
