"""Options that several commands have.

Law: an option means the same in every command, so it is said once; this module imports nothing but click.
"""

import click

config_files = click.option(
    "--config-file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False),
    help="kuryr.conf; repeatable, a later file wins. Without any the defaults hold.",
)
"""Gives the command `files: tuple[str, ...]`, as `podvif.settings.load` takes them."""


bin_dir = click.option("--bin-dir", default="/opt/cni/bin", show_default=True, help="The runtime's CNI plugins.")
conf_dir = click.option(
    "--conf-dir", default="/etc/cni/net.d", show_default=True, help="The runtime's CNI configurations."
)
