"""`podvif node`."""

import click

from podvif.cli.options import config_files


@click.command()
@config_files
def node(files: tuple[str, ...]) -> None:
    """Serve the CNI plugin on this node until SIGTERM."""
    from podvif.node import main  # noqa: PLC0415  half a second of imports that only the daemon needs

    main.run(files)
