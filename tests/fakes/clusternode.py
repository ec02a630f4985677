"""A node whose source is a fake API server, with a controller and an agent beside it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from podvif import names
from podvif.kube.convert import parse_podvif
from podvif.kube.reflector import Backoff, Reflector
from podvif.kube.resources import PODVIFS, Where
from podvif.model import Attachment
from podvif.node.cluster import Cluster
from podvif.node.conditions import Reporter
from podvif.podvifs import NODE_LABEL, PodVif
from podvif.settings import Settings
from tests.fakes.cluster import NODE, UID
from tests.fakes.kube import FakeKube
from tests.fakes.node import Node
from tests.fakes.podvifs import Agent, Controller
from tests.fakes.values import config

SECONDS = 5.0
"""After which something that has to come counts as not coming."""

MAIN = Attachment("c0ffee", "vu0")
"""The pod's main interface here: the test's own network namespace, which stands for a sandbox, has none of that name."""

SOON = Backoff(0.001, 0.01)


class ClusterNode:
    """One node of a cluster.

    Attributes:
        kube: the API server.
        controller: plays the controller.
        agent: plays Neutron's agent.
        node: the daemon.
        podvifs: its cache.
        reporter: tells the API server; None where it was not asked for.
    """

    def __init__(self, folder: Path, **arguments: Any) -> None:
        self.kube = FakeKube()
        changes = {name: arguments.pop(name) for name in ("cluster_network",) if name in arguments}
        self.podvifs = self._cache()
        self._changes = changes
        self.node = Node(folder, source=self._source, **arguments)
        self.controller = Controller(self.kube, "ns", str(self.node.pods), main=MAIN.ifname)
        self.agent = Agent(self.node.switch)
        self._tasks: list[asyncio.Future[None]] = []
        self.reporter: Reporter | None = None

    def _cache(self) -> Reflector[PodVif]:
        ours = Where(labels=f"{NODE_LABEL}={names.node_label(NODE)}")
        return Reflector(self.kube, PODVIFS, parse_podvif, ours, backoff=SOON)

    def _source(self, node: Node) -> Cluster:
        settings: Settings = msgspec.structs.replace(node.settings, source="cluster", **self._changes)
        return Cluster(settings, NODE, self.podvifs, self.kube, node.switch.ports, volumes=node.volumes)

    @contextlib.asynccontextmanager
    async def running(self, *, telling: bool = False) -> AsyncIterator["ClusterNode"]:
        """It follows the API server, and tells it what it sees, for the length of a block."""
        self.follow(telling=telling)
        try:
            yield self
        finally:
            await self.stop()

    def follow(self, *, telling: bool = False) -> None:
        """Begin to."""
        self._tasks.append(asyncio.ensure_future(self.podvifs.run()))
        if telling:
            self.reporter = Reporter(
                self.kube, self.podvifs, self.node.journal, self.node.driver, gather=0.001, backoff=SOON
            )
            self.node.verbs.on_end(self.reporter.touch)
            self.node.recovery.on_link(self.reporter.touch)
            self._tasks.append(asyncio.ensure_future(self.reporter.run()))

    async def stop(self) -> None:
        """End it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    def again(self) -> None:
        """Another daemon on what this one left; it knows nothing of the API server yet."""
        self.podvifs = self._cache()
        self.node = self.node.again()

    async def call(
        self, command: str = "ADD", network: dict[str, Any] | None = None, ifname: str = MAIN.ifname, **variables: str
    ) -> dict[str, Any]:
        """One call of the runtime for the pod ns/p in the sandbox c0ffee, unless told otherwise."""
        container_id = variables.pop("container_id", "c0ffee")
        given = {"CNI_ARGS": f"K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID={UID}"} | variables
        cluster = config(bridge=None, name="podvif") if network is None else network
        return await self.node.call(command, cluster, Attachment(container_id, ifname), **given)

    def calling(self, *call: Any, **variables: Any) -> "asyncio.Task[dict[str, Any]]":
        """A call that runs beside the test."""
        return asyncio.ensure_future(self.call(*call, **variables))

    async def told(self) -> None:
        """Wait until the API server's events have been taken in."""
        newest = max(
            (int(document["metadata"]["resourceVersion"]) for document in self.kube.objects(PODVIFS).values()),
            default=0,
        )
        async with asyncio.timeout(SECONDS):
            while newest > max((int(each.resource_version) for each in self.podvifs.objects.values()), default=0):  # noqa: ASYNC110  the loop's own next round is the event
                await asyncio.sleep(0)
