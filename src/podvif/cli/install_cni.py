"""`podvif install-cni`: the plugin's executable and its configuration into the runtime's directories."""

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podvif.cli.daemon import why_not_ready
from podvif.cli.options import bin_dir, conf_dir, config_files
from podvif.errors import Refused, Retry

if TYPE_CHECKING:
    from podvif.node.install import Place
    from podvif.settings import Settings


@click.command(name="install-cni")
@config_files
@bin_dir
@conf_dir
@click.option(
    "--configuration",
    type=click.Path(dir_okay=False),
    help="CNI configuration to install under its own file name. Without it there is none, as for Multus, which finds the plugin"
    " by NetworkAttachmentDefinition.",
)
@click.option("--plugin", type=click.Path(dir_okay=False), help="The executable; default: the one of this package.")
@click.option(
    "--wait", "seconds", default=60.0, show_default=True, help="Seconds that the daemon may take until it can serve."
)
@click.option(
    "--daemon-set",
    metavar="NAMESPACE/NAME",
    help="Stay, with no limit to the wait, and on SIGTERM take everything away if this DaemonSet is gone; a restart or an"
    " upgrade leaves it. It is the API server who is asked.",
)
def install_cni(  # noqa: PLR0917  click gives them by name
    files: tuple[str, ...],
    bin_dir: str,
    conf_dir: str,
    configuration: str | None,
    plugin: str | None,
    seconds: float,
    daemon_set: str | None,
) -> None:
    """Put podvif-cni into the runtime's directory, wait until the daemon can serve, and put the configuration last."""
    from podvif import settings as configured  # noqa: PLC0415  `podvif --help` needs none of these
    from podvif.daemon import log  # noqa: PLC0415
    from podvif.node import install  # noqa: PLC0415

    settings = configured.load(files)
    ask = functools.partial(why_not_ready, settings.cni_socket, bin_dir)
    log.setup(settings.log_format)
    place = install.Place(
        plugin=plugin or str(Path(sys.executable).parent / "podvif-cni"),
        bin_dir=bin_dir,
        conf_dir=conf_dir,
        name=Path(configuration).name if configuration else "",
        configuration=_read(configuration) if configuration else "",
    )
    install.check(place)
    if daemon_set is None:
        asyncio.run(_within(seconds, install.install(place, ask), ask))
        return
    namespace, slash, name = daemon_set.partition("/")
    if not slash or not namespace or not name:
        raise click.BadParameter("write it as NAMESPACE/NAME", param_hint="--daemon-set")
    asyncio.run(_stay(place, settings, ask, (namespace, name)))


async def _within(seconds: float, installing: Coroutine[Any, Any, None], ask: Callable[[], str | None]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await installing
    except TimeoutError as error:
        raise Retry(
            f"the CNI configuration is not installed: the daemon is not ready within {seconds:g} s: {ask() or 'it is now'}",
            "mend what it says (podvif doctor says more), and run this again",
        ) from error


async def _stay(place: "Place", settings: "Settings", ask: Callable[[], str | None], owner: tuple[str, str]) -> None:
    from podvif.daemon import life  # noqa: PLC0415
    from podvif.kube.client import Kube  # noqa: PLC0415
    from podvif.kube.resources import Key  # noqa: PLC0415
    from podvif.node import install  # noqa: PLC0415

    kube = Kube(settings.kubeconfig)
    try:
        await install.stay(place, settings, ask, install.Owner(kube, Key(*owner)), life.stop_event())
    finally:
        await kube.close()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the CNI configuration {path} cannot be read: {error}", "mend --configuration") from error
