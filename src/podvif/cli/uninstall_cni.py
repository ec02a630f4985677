"""`podvif uninstall-cni`: what install-cni has put there goes, and what the daemon leaves when it has nothing to keep."""

import click

from podvif.cli.options import bin_dir, conf_dir, config_files


@click.command(name="uninstall-cni")
@config_files
@bin_dir
@conf_dir
@click.option(
    "--configuration", default="", metavar="NAME", help="File name of our CNI configuration, if one was installed."
)
def uninstall_cni(files: tuple[str, ...], bin_dir: str, conf_dir: str, configuration: str) -> None:
    """Take the CNI configuration and podvif-cni away, and the daemon's directories where they are empty.

    Stop podvif node before: its directories stay while it runs.
    """
    from podvif import settings as configured  # noqa: PLC0415  `podvif --help` needs none of these
    from podvif.node import install  # noqa: PLC0415

    name = configuration.rpartition("/")[2]
    place = install.Place(plugin="", bin_dir=bin_dir, conf_dir=conf_dir, name=name)
    for left in install.uninstall(place, configured.load(files)):
        click.echo(f"not removed: {left}")
