"""`podvif doctor`: every precondition of this node as a line, with what to do about it.

Law: it needs no daemon and changes nothing.  It asks OVSDB, the kernel and the files itself, by the functions that STATUS uses,
and adds what a running daemon knows.
"""

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from podvif import settings as configuration
from podvif.cli.daemon import ask, receive
from podvif.cli.options import config_files
from podvif.daemon.version import version
from podvif.errors import PodvifError, Refused
from podvif.host.machine import Machine
from podvif.node import checks, surroundings
from podvif.node.checks import Check, State
from podvif.ovs import probe
from podvif.settings import Settings

EXIT = {State.OK: 0, State.WARNING: 0, State.FAILURE: 1}
"""The exit code by the worst state: a warning is no reason for a script to stop."""

PLUGIN_DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", str(Path(sys.executable).parent))
_CONNECT_SECONDS = 5.0
_PLUGIN_SECONDS = 2.0
_REQUEST_MAX = 1 << 20
_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.FAILURE: "bold red"}


@click.command()
@config_files
@click.option(
    "--bridge", "bridges", multiple=True, help="Look at this bridge too, as a network would name it; repeatable."
)
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form.")
def doctor(files: tuple[str, ...], bridges: tuple[str, ...], output: str) -> None:
    """Look at every precondition of this node: ok, warning or failure, why, and what to do.

    Exit code 0 when there is no failure, warnings or not; 1 when there is one. Run it as root.
    """
    found = examine(files, bridges)
    if output == "json":
        click.echo(json.dumps({"checks": msgspec.to_builtins(found)}, indent=2, ensure_ascii=False))
    else:
        show(found)
    sys.exit(max(EXIT[check.state] for check in found))


def examine(files: Sequence[str], bridges: Iterable[str], host: Machine | None = None) -> list[Check]:
    """Every check, for the configuration in `files` and the `bridges` that somebody means to use."""
    host = host or Machine()
    try:
        settings = configuration.load(files)
    except Refused as error:
        # The rest would be about another node than the one that is meant.
        return [Check("configuration", State.FAILURE, error.message, error.remedy)]
    named = ", ".join(files) or "the defaults: no --config-file is given"
    return [
        surroundings.user(),
        Check("configuration", State.OK, named),
        *asyncio.run(_switch_and_files(settings, bridges, host)),
        *_runtime(settings, host),
    ]


async def _switch_and_files(settings: Settings, bridges: Iterable[str], host: Machine) -> list[Check]:
    from podvif.ovs.switch import Switch  # noqa: PLC0415  half a second, for nothing when the settings are wrong

    found = probe.look(settings.ovsdb_connection)
    switch = Switch(settings.ovsdb_connection)
    if found.trouble is None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await switch.connect()
        except TimeoutError:
            pass  # the switch says so itself
    entries = surroundings.read_journal(settings.state_dir)
    installed = surroundings.parse_cni(host.cni_configurations(surroundings.CNI_DIRECTORY))
    try:
        return [
            checks.ovsdb(switch, settings, why=found.trouble or "", remedy=found.remedy),
            checks.vswitchd(settings, holds_lock=found.vswitchd),
            checks.dpdk(switch),
            checks.interface_types(switch),
            checks.forwarding_processors(switch, host),
            checks.bridges(switch, surroundings.used_bridges(entries, installed, bridges)),
            surroundings.hugepages(switch, host),
            checks.directories(settings),
            checks.ovs_socket_directory(switch, settings),
            checks.rename(settings),
            *checks.own_directories(settings),
            checks.path_lengths(settings),
            surroundings.access(settings, host),
            *surroundings.kernel_ports(settings, entries, installed),
            surroundings.selinux(settings, host),
            checks.ownerless_sockets(switch, settings, entries),
            checks.state_dir(settings),
            surroundings.cni_configuration(installed, settings),
        ]
    finally:
        await switch.close()


def _runtime(settings: Settings, host: Machine) -> list[Check]:
    """The daemon, the plugin and what is attached."""
    about: dict[str, Any] | None = None
    status: dict[str, Any] | None = None
    why = ""
    try:
        about = ask(settings.cni_socket, "doctor")
        status = ask(settings.cni_socket, "status")
    except PodvifError as error:
        why = error.message
    seen = about["plugin_version"] if about else ""
    plugins = {path: plugin_version(path) for path in host.executables(surroundings.PLUGIN, PLUGIN_DIRECTORIES)}
    found = [
        surroundings.plugin_version(plugins, seen, version()),
        surroundings.daemon(about, settings, version(), why=why),
    ]
    if status is None:
        return found
    if status.get("apiserver"):
        found.append(surroundings.apiserver(status["apiserver"]))
    return [*found, surroundings.attachments(status)]


def plugin_version(executable: str) -> str:
    """The version of a podvif-cni, which it tells to no one but the daemon: for one call we are that; empty if it does not."""
    with tempfile.TemporaryDirectory(prefix="podvif-") as folder, socket.socket(socket.AF_UNIX) as listening:
        path = f"{folder}/s"
        listening.bind(path)
        listening.listen()
        config = {"cniVersion": "1.1.0", "daemonSocket": path, "daemonTimeout": _PLUGIN_SECONDS}
        try:
            process = subprocess.Popen(
                [executable],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"CNI_COMMAND": "VERSION"},
            )
        except OSError:
            return ""
        with process:
            try:
                return _told(listening, process, json.dumps(config).encode())
            except (OSError, EOFError, ValueError, KeyError, TypeError):
                return ""
            finally:
                process.kill()


def _told(listening: socket.socket, process: "subprocess.Popen[bytes]", config: bytes) -> str:
    """The version in the plugin's request; whoever ends without one has none."""
    if process.stdin is not None:
        process.stdin.write(config)
        process.stdin.close()
    ended = os.pidfd_open(process.pid)
    try:
        ready, _, _ = select.select([listening.fileno(), ended], [], [], _PLUGIN_SECONDS)
    finally:
        os.close(ended)
    if listening.fileno() not in ready:
        return ""
    link, _ = listening.accept()
    with link:
        link.settimeout(_PLUGIN_SECONDS)
        return str(json.loads(receive(link, _REQUEST_MAX))["shim"])


def show(found: Sequence[Check]) -> None:
    """Print the table, and the count that stands below it."""
    from rich.console import Console  # noqa: PLC0415  not needed for --output json
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("CHECK", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    table.add_column("WHY, AND WHAT TO DO", overflow="fold")
    for check in found:
        colour = _COLOURS[check.state]
        text = Text(check.reason)
        if check.remedy:
            text.append(f"\n→ {check.remedy}", style="cyan")
        table.add_row(Text(check.name), Text(check.state.value, style=colour), text)
    console = Console()
    console.print(table)
    counts = [f"{sum(check.state is state for check in found)} {state.value}" for state in State]
    console.print(f"\n{', '.join(counts)}", highlight=False)
