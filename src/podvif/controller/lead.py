"""What runs while this controller leads: workers, rounds, and the look at the credentials.

Law: each leadership begins with nothing but the caches.  It ends in one of two ways: asked to stop, it ends the acts that are
under way and returns; deposed, it is cancelled where it stands, and has no time for anything.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from podvif.controller.cluster import Cluster
from podvif.controller.converge import Converge
from podvif.controller.credentials import Credentials
from podvif.controller.defaults import Defaults, Finder
from podvif.controller.neutron_vif import Api, NeutronPodVIFDriver, Ports
from podvif.controller.queue import Queue
from podvif.controller.sweep import Sweep
from podvif.controller.tally import Tally
from podvif.controller.voice import Recorder, Voice
from podvif.kube.resources import Key
from podvif.model import NeutronPort
from podvif.settings import ControllerSettings

_LOG = logging.getLogger(__name__)

STOP_SECONDS = 20.0
"""Seconds that acts under way have when the controller is stopped; Kubernetes kills it after 30."""


class Neutron(Ports, Finder, Protocol):
    """All that the controller needs of Neutron (`podvif.neutron.client.Neutron`)."""

    async def our_ports(self, tag: str) -> tuple[NeutronPort, ...]:
        """All ports that podvif has made."""

    async def why_not_allowed(self, network_id: str = "") -> str | None:
        """What the credentials lack, or None."""


class Leader:
    """The work.

    Args:
        api: the API server.
        neutron: Neutron.
        cluster: the caches, which are kept whether this controller leads or not.
        recorder: writes events.
        settings: what the controller was told.
        lease: the Lease's key.
        leading: whether this controller may write.
        tally: the counts.
    """

    def __init__(
        self,
        api: Api,
        neutron: Neutron,
        cluster: Cluster,
        recorder: Recorder,
        settings: ControllerSettings,
        *,
        lease: Key,
        leading: Callable[[], bool],
        tally: Tally,
    ) -> None:
        self._api = api
        self._neutron = neutron
        self._cluster = cluster
        self._recorder = recorder
        self._settings = settings
        self._lease = lease
        self._leading = leading
        self._tally = tally
        self._queue: Queue | None = None
        self._converge: Converge | None = None

    @property
    def queued(self) -> int:
        """How many pods are to be looked at."""
        return len(self._queue) if self._queue is not None else 0

    @property
    def waiting(self) -> int:
        """How many pods wait for another try."""
        return self._converge.waiting if self._converge is not None else 0

    async def lead(self, stop: asyncio.Event) -> None:
        """Serve all pods until `stop` is set."""
        settings, leading, cluster = self._settings, self._leading, self._cluster
        clock = asyncio.get_running_loop().time
        await cluster.listed()
        defaults = Defaults(self._neutron, settings)
        queue = self._queue = Queue()
        driver = NeutronPodVIFDriver(
            self._api, self._neutron, cluster, defaults, leading=leading, tally=self._tally, clock=clock
        )
        converge = self._converge = Converge(
            driver,
            cluster,
            Voice(self._recorder, leading, clock),
            defaults=lambda: defaults.known,
            tally=self._tally,
            wake=queue.wake,
            retry_max=settings.retry_max,
            clock=clock,
        )
        sweep = Sweep(
            self._neutron,
            cluster,
            driver,
            converge,
            defaults=lambda: defaults.known,
            leading=leading,
            tally=self._tally,
            grace=settings.sweep_grace,
            clock=clock,
        )
        credentials = Credentials(
            self._neutron, defaults, self._api, self._recorder, lease=self._lease, leading=leading
        )
        cluster.on_change(queue.wake)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(queue.work(converge.look)) for _ in range(settings.workers)]
                tasks.append(group.create_task(sweep.run(settings.resync_interval)))
                tasks.append(group.create_task(credentials.watch()))
                await stop.wait()
                await self._drain(converge, queue)
                for task in tasks:
                    task.cancel()
        finally:
            cluster.on_change(None)
            converge.stop()
            self._queue = self._converge = None

    async def _drain(self, converge: Converge, queue: Queue) -> None:
        _LOG.info("stopping: acts under way are finished first")
        self._cluster.on_change(None)
        converge.stop()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await queue.idle()
        except TimeoutError:
            _LOG.warning("some acts did not end within %g s: whoever leads next finishes them", STOP_SECONDS)
