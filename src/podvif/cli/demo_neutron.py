"""`podvif demo-neutron`: from pods in a cluster's API to their packets across a Neutron network.

Law: here are the options and nothing else; what happens is told in `demo_neutron_story` and drawn by `demo_screen`.
"""

import os
import sys
from pathlib import Path

import click

from podvif.cli import demo_neutron_story

SECONDS = 10
"""How long packets are watched."""


@click.command("demo-neutron")
@click.option(
    "--seconds", type=click.IntRange(min=1), default=SECONDS, show_default=True, help="Watch packets for so long."
)
@click.option(
    "--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the screen to this file as a picture."
)
def demo_neutron(seconds: int, svg: Path | None) -> None:
    """Show the whole: API server, Neutron with OVN, controller, node, two pods, their ports and packets; then nothing is left.

    Needs root, podvif's source tree, about 3 GB of memory and 450 MB of it in hugepages; touches no network card, no OVS of the
    host, no cluster.
    """
    if os.geteuid() != 0:
        click.echo(
            "podvif demo-neutron makes network namespaces, hugepages and a switch: run it as root (sudo).", err=True
        )
        sys.exit(1)
    sys.exit(demo_neutron_story.tell(seconds, svg=svg))
