"""The parts of the daemon that speak to the API server, put together: only `source = cluster` loads them.

Law: one cache of this node's PodVifs feeds the source and the reporter; nothing waits for the API server at start, and
nothing fails by its absence but an ADD whose PodVif has not come.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from podvif import names
from podvif.kube.client import Kube
from podvif.kube.convert import parse_podvif
from podvif.kube.reflector import Reflector
from podvif.kube.resources import PODVIFS, Where
from podvif.model import SeenPort
from podvif.node import about
from podvif.node.cluster import Cluster
from podvif.node.conditions import Reporter
from podvif.node.converge import World
from podvif.node.journal import Journal
from podvif.node.recover import Recovery
from podvif.node.sources import Volumes
from podvif.node.verbs import Verbs
from podvif.podvifs import NODE_LABEL, PodVif
from podvif.settings import Settings


class ApiServer:
    """The API server as the node has it.

    Attributes:
        source: what the verbs ask.
    """

    def __init__(self, settings: Settings, ports: Callable[[], Mapping[str, SeenPort]], volumes: Volumes) -> None:
        """Read the credentials; nothing is asked yet.

        Args:
            settings: where it is, and which node this is.
            ports: the OVS ports.
            volumes: the pods' own directories.

        Raises:
            Refused: there are none that can be used.
        """
        self._node = about.node_name(settings)
        self._kube = Kube(settings.kubeconfig)
        ours = Where(labels=f"{NODE_LABEL}={names.node_label(self._node)}")
        self._podvifs: Reflector[PodVif] = Reflector(self._kube, PODVIFS, parse_podvif, ours)
        self.source = Cluster(settings, self._node, self._podvifs, self._kube, ports, volumes=volumes)

    def tasks(self, journal: Journal, driver: World, verbs: Verbs, recovery: Recovery) -> list[asyncio.Future[None]]:
        """Follow the PodVifs, and tell them what the node sees, until cancelled."""
        reporter = Reporter(self._kube, self._podvifs, journal, driver)
        verbs.on_end(reporter.touch)
        recovery.on_link(reporter.touch)
        recovery.on_recovery(lambda cause, steps: reporter.look())  # noqa: ARG005  the sweep's removals are among them
        return [asyncio.ensure_future(self._podvifs.run()), asyncio.ensure_future(reporter.run())]

    def status(self) -> dict[str, Any]:
        """What `podvif status` says of it."""
        return {
            "node": self._node,
            "server": self._kube.server,
            "trouble": self._podvifs.trouble,
            "podvifs": len(self._podvifs.objects),
        }

    async def close(self) -> None:
        """End all connections."""
        await self._kube.close()
