"""The command line: `podvif node | controller | status | doctor | install-cni | uninstall-cni | demo | demo-neutron`.

Law: this module imports nothing but click, so that `podvif --help` answers at once; each subcommand is imported when it is
called.
"""

import importlib
import sys

import click

from podvif.errors import PodvifError

_COMMANDS = {
    "node": ("podvif.cli.node", "Serve the CNI plugin on this node."),
    "controller": ("podvif.cli.controller", "Give the cluster's pods their Neutron ports."),
    "status": ("podvif.cli.status", "Show the attachments of this node."),
    "doctor": ("podvif.cli.doctor", "Look at every precondition of this node, and say what to do."),
    "install-cni": (
        "podvif.cli.install_cni",
        "Put the CNI plugin and its configuration into the runtime's directories.",
    ),
    "uninstall-cni": ("podvif.cli.uninstall_cni", "Take them away."),
    "demo": ("podvif.cli.demo", "Watch two DPDK applications exchange packets over ports that podvif made."),
    "demo-neutron": (
        "podvif.cli.demo_neutron",
        "Watch two pods of a private cluster get Neutron ports and exchange packets.",
    ),
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are used; each module has one named like the command, `_` for `-`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The subcommands' names."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="podvif")
def cli() -> None:
    """vhost-user ports of Open vSwitch with DPDK for Kubernetes pods."""


def main() -> None:
    """The `podvif` executable: an error of ours is two lines on standard error and exit code 1."""
    try:
        cli(prog_name="podvif")
    except PodvifError as error:
        sys.stderr.write(f"podvif: {error.message}\n")
        if error.remedy:
            sys.stderr.write(f"        {error.remedy}\n")
        sys.exit(1)
