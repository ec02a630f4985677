"""`podvif controller`: from configuration to its end.

Law: neither the API server nor Neutron has to be there at start.  Every replica follows the cluster, and the one that leads
acts.  SIGTERM lets the acts under way finish and gives the lease back, so that another replica goes on at once.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

from podvif.controller.cluster import Cluster
from podvif.controller.lead import STOP_SECONDS, Leader
from podvif.controller.metrics import Metrics, Readiness
from podvif.controller.tally import Tally
from podvif.daemon import life, log
from podvif.kube.client import Kube
from podvif.kube.elector import Elector, Timing
from podvif.kube.events import Recorder
from podvif.kube.resources import Key
from podvif.neutron import access
from podvif.neutron.client import Neutron
from podvif.settings import ControllerSettings, load_controller

_LOG = logging.getLogger(__name__)
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NAME = "podvif.io/controller"


def run(files: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Refused: the configuration cannot be used.
    """
    settings = load_controller(files)
    account = access.load(files)
    log.setup(settings.log_format)
    asyncio.run(_serve(settings, account))


async def _serve(settings: ControllerSettings, account: access.Access) -> None:
    kube, neutron = Kube(settings.kubeconfig), Neutron(account)
    # The Lease says who leads: with the node's network two pods of a node have one host name, and each has process 1.
    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"
    timing = Timing(settings.lease_duration, settings.lease_renew_deadline, settings.lease_retry_period)
    lease = Key(settings.lease_namespace or _own_namespace(), settings.lease_name)
    elector = Elector(kube, lease, identity, timing)
    cluster = Cluster(kube, cluster_network=settings.cluster_network, prefix=settings.additional_ifname_prefix)
    tally = Tally()
    leader = Leader(
        kube,
        neutron,
        cluster,
        Recorder(kube, NAME, identity),
        settings,
        lease=lease,
        leading=lambda: elector.leading,
        tally=tally,
    )
    pages = None
    if settings.metrics_bind:
        from podvif.daemon.health import Health  # noqa: PLC0415  an HTTP server, only where it is asked for

        metrics = Metrics(cluster, elector, neutron, leader, tally)
        pages = Health("[controller] metrics_bind", settings.metrics_bind, metrics, Readiness(cluster))
        await pages.start()
    stop = life.stop_event()
    following = asyncio.ensure_future(cluster.run())
    candidate = asyncio.ensure_future(elector.run(lambda: leader.lead(stop)))
    _LOG.info("%s follows %s and stands for election by lease %s", identity, kube.server, lease)
    try:
        await life.until(stop, [following, candidate])
        if elector.leading:
            await asyncio.wait([candidate], timeout=STOP_SECONDS + timing.retry)
    finally:
        for task in (candidate, following):
            task.cancel()
        await asyncio.wait([candidate, following])
        if pages:
            await pages.stop()
        await neutron.close()
        await kube.close()
    _LOG.info("stopped")


def _own_namespace() -> str:
    try:
        return _NAMESPACE.read_text().strip()
    except OSError:
        return "kube-system"
