"""`podvif node`: the daemon, from configuration to its end.

Law: READY=1 is said when requests are answered, and never later than OVSDB: a node without a switch answers too, with what
is missing.  SIGTERM lets the running verbs finish.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from podvif import errors
from podvif.daemon import life, log
from podvif.daemon.version import version
from podvif.errors import PodvifError, Refused
from podvif.host import mounts, systemd, veth
from podvif.ipam.delegate import Delegate
from podvif.node import about, report
from podvif.node.drivers import Drivers
from podvif.node.guard import Guard
from podvif.node.journal import Journal
from podvif.node.readiness import Readiness
from podvif.node.recover import Recovery
from podvif.node.server import Server
from podvif.node.sources import Standalone
from podvif.node.verbs import Verbs
from podvif.node.volumes import OwnDirectories, Volumes
from podvif.ovs.switch import Switch
from podvif.settings import Settings, load

if TYPE_CHECKING:
    from podvif.csi.server import Driver
    from podvif.daemon.health import Health
    from podvif.node.apiserver import ApiServer
    from podvif.node.metrics import Metrics

_LOG = logging.getLogger(__name__)


def run(files: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Refused: the configuration or the node's directories cannot be used.
    """
    settings = load(files)
    log.setup(settings.log_format)
    if "eventlet" in sys.modules:
        raise Refused(
            "eventlet is loaded: it changes threads and sockets under podvif",
            "uninstall it; requirements/node.txt is the set without it",
        )
    with _only_one(settings.state_dir):
        asyncio.run(_serve(settings))


@contextlib.contextmanager
def _only_one(state_dir: str) -> Any:
    """Hold the state directory: two daemons with one journal would each undo what the other does."""
    path = f"{state_dir.rstrip('/')}/lock"
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)  # noqa: PTH103
        os.chmod(state_dir, 0o700)  # noqa: PTH101  where kubelet has made it for a hostPath volume it is 0755
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(
            f"[node] state_dir {state_dir} cannot be used: {error.strerror}",
            "it has to be a directory that root can write to",
            code=errors.IO_FAILURE,
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"another podvif node uses [node] state_dir {state_dir}", "stop it first, or choose another directory"
            ) from None
        yield
    finally:
        os.close(descriptor)


async def _serve(settings: Settings) -> None:
    switch = Switch(settings.ovsdb_connection)
    journal = Journal(settings.state_dir)
    delegate = Delegate(settings.ipam_timeout)
    drivers = Drivers(switch, journal, delegate, settings, veth)
    volumes = Volumes(settings, mounts, OwnDirectories(drivers.guard))
    apiserver = _apiserver(settings, switch, volumes)
    source = apiserver.source if apiserver else Standalone(settings, volumes)
    readiness = Readiness(switch, settings, source.why_not)
    metrics = _metrics(settings)
    measured = metrics.measured(drivers, journal) if metrics else drivers
    verbs = Verbs(settings, journal, measured, delegate, readiness, source=source)
    recovery = Recovery(journal, verbs, drivers, switch, settings, volumes=volumes)
    csi = _csi(settings, volumes)
    pages: Health | None = None
    server = Server(
        settings.cni_socket,
        verbs,
        {
            "status": lambda: report.status(
                journal, switch, drivers, recovery.links(), apiserver.status() if apiserver else None
            ),
            "doctor": lambda: about.about(settings, server.plugin_version, pages.address if pages else ""),
        },
        metrics.verb if metrics else None,
    )
    _make_mount_point(settings.mount_point, drivers.guard)
    if metrics:
        metrics.watch(journal, switch, recovery)
        pages = await _open_pages(settings.metrics_bind, metrics, readiness)
    await server.start()
    if csi:
        if reason := volumes.why_not():
            _LOG.error("no pod can be given a directory of its own: %s", reason)
        await csi.start()
    stop = life.stop_event()
    await switch.connect()
    if reason := await readiness.why_not():
        _LOG.warning("this node cannot serve an ADD yet: %s", reason)
    background: list[asyncio.Future[None]] = [
        asyncio.ensure_future(switch.keep_connected()),
        asyncio.ensure_future(recovery.run()),
    ]
    if apiserver:
        background += apiserver.tasks(journal, drivers, verbs, recovery)
    _LOG.info("ready: %d attachments in the journal, listening on %s", len(journal.all()), settings.cni_socket)
    systemd.notify("READY=1")
    await life.until(stop, background)
    systemd.notify("STOPPING=1")
    _LOG.info("stopping: running verbs are finished first")
    await volumes.stop()
    if csi:
        csi.stop()
    await server.stop()
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    if pages:
        await pages.stop()
    if apiserver:
        await apiserver.close()
    await switch.close()


def _apiserver(settings: Settings, switch: Switch, volumes: Volumes) -> "ApiServer | None":
    """The API server, where the node is to learn from it: else neither its code nor its library is loaded."""
    if settings.source != "cluster":
        return None
    from podvif.node.apiserver import ApiServer  # noqa: PLC0415

    return ApiServer(settings, switch.ports, volumes)


def _csi(settings: Settings, volumes: Volumes) -> "Driver | None":
    """The CSI driver, where kubelet is to find one: else neither its code nor gRPC's is loaded."""
    if not settings.csi_endpoint:
        return None
    from podvif.csi.server import Driver  # noqa: PLC0415

    return Driver(
        volumes,
        endpoint=settings.csi_endpoint,
        registration_dir=settings.csi_registration_dir,
        node=about.node_name(settings),
        version=version(),
        mount_point=settings.mount_point,
    )


def _metrics(settings: Settings) -> "Metrics | None":
    """Metrics, where they are asked for: else neither their code nor that of the HTTP server is loaded."""
    if not settings.metrics_bind:
        return None
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from podvif.node.metrics import Metrics  # noqa: PLC0415

    return Metrics(CollectorRegistry())


async def _open_pages(bind: str, metrics: "Metrics", readiness: Readiness) -> "Health":
    from podvif.daemon.health import Health  # noqa: PLC0415

    pages = Health("[node] metrics_bind", bind, metrics, readiness)
    await pages.start()
    return pages


def _make_mount_point(path: str, guard: Guard) -> None:
    """Make the pods' directory at start, as after a boot: /run is empty then, and pods mount it as an existing one."""
    path = os.path.realpath(
        path
    )  # in a container its name may be a link to the host's directory, which is not there yet
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)  # noqa: PTH103
    except OSError as error:
        _LOG.error("[vhostuser] mount_point %s cannot be made: %s", path, error.strerror)
        return
    try:
        guard.make_mount_point(path)
    except PodvifError as error:
        _LOG.error("[vhostuser] mount_point: %s; %s", error.message, error.remedy)
