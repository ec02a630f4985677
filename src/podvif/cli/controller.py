"""`podvif controller`."""

import click

from podvif.cli.options import config_files


@click.command()
@config_files
def controller(files: tuple[str, ...]) -> None:
    """Give pods their Neutron ports, until SIGTERM."""
    from podvif.controller import main  # noqa: PLC0415  a second of imports that only the controller needs

    main.run(files)
