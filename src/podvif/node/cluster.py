"""`source = cluster`: the node learns from the pod's PodVif what a port shall be.

Law: an ADD waits for its PodVif by event, and is served by the very pod's or not at all; what it was told goes into the
journal, so that DEL, CHECK, recovery and a daemon that is started again need no API server.  Nothing but this module, the
conditions and `main` knows that there is one.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from podvif import errors
from podvif.core import serve, translate
from podvif.core.cni import Request
from podvif.core.pods import MIRROR
from podvif.core.serve import Serve, Way, Whose
from podvif.core.translate import ClusterNetwork
from podvif.errors import Refused, Retry
from podvif.host import netns
from podvif.kube.client import Outcome
from podvif.kube.convert import parse_pod
from podvif.kube.resources import PODS, Document, Key, Resource
from podvif.model import Attachment, Entry, Goal, Pod, PortKind, SeenPort, Vif, Volume
from podvif.node.sources import Standalone, Volumes, access_of, refuse_existing
from podvif.podvifs import Interface, PodVif
from podvif.settings import Settings

_LOG = logging.getLogger(__name__)

_MICROSECOND = 1e-6


class Cache(Protocol):
    """This node's PodVifs (`podvif.kube.reflector.Reflector`)."""

    trouble: str | None

    @property
    def is_listed(self) -> bool:
        """Whether all have been listed once."""

    @property
    def objects(self) -> Mapping[Key, PodVif]:
        """All of them."""

    def get(self, key: Key) -> PodVif | None:
        """One of them."""

    def on_change(self, call: Callable[[frozenset[Key]], None]) -> None:
        """Have `call` told which have changed."""

    async def in_sync(self) -> None:
        """Return when the changes are being followed."""


class Api(Protocol):
    """What the node asks of an API server itself (`podvif.kube.client.Kube`)."""

    async def get(self, resource: Resource, key: Key) -> Document | None:
        """One object."""

    async def apply(
        self, resource: Resource, key: Key, document: Document, manager: str, *, status: bool = False
    ) -> Document | Outcome:
        """Server-side apply."""

    async def merge(
        self, resource: Resource, key: Key, document: Document, manager: str, *, status: bool = False
    ) -> Document | Outcome:
        """JSON merge patch."""


class _Waiting:
    """An ADD that waits for its PodVif."""

    def __init__(self, attachment: Attachment, key: Key) -> None:
        self.attachment = attachment
        self.key = key
        self.news = asyncio.Event()
        self.unwanted = False


class Cluster:
    """The pod's PodVif says what the ports are, and Neutron which addresses they have."""

    def __init__(
        self,
        settings: Settings,
        node: str,
        podvifs: Cache,
        api: Api,
        ports: Callable[[], Mapping[str, SeenPort]],
        *,
        volumes: Volumes,
    ) -> None:
        """Take the parts.

        Args:
            settings: the node's directories and deadline.
            node: this node's name in Kubernetes.
            podvifs: this node's PodVifs.
            api: asked for a pod's UID where the runtime does not say it.
            ports: the OVS ports, to find one by our marks.
            volumes: the pods' own directories.
        """
        self._settings = settings
        self._node = node
        self._podvifs = podvifs
        self._api = api
        self._ports = ports
        self._volumes = volumes
        self._standalone = Standalone(settings, volumes)
        self._waiting: set[_Waiting] = set()
        podvifs.on_change(self._told)

    # -- what a verb asks ----------------------------------------------------------------------------------------------

    async def entries(self, request: Request) -> list[Entry]:
        """What an ADD asks for, the interface that it names first, as soon as the pod's PodVif says it.

        Raises:
            Refused: it cannot be served; CNI code 3 when its pod has ended meanwhile.
            Retry: the PodVif did not come, or was not bound, in time.
        """
        way = serve.way_of(request.config)
        if way is Way.STANDALONE:
            return await self._standalone.entries(request)
        network = translate.parse_cluster_network(request.config)
        if way is Way.MAIN and not self._settings.cluster_network:
            raise Refused(
                f"network {request.network} has neither subnetId nor networkId, and podvif is not the cluster network",
                "name a Neutron subnet in the configuration, or set [kubernetes] cluster_network",
            )
        inode = netns.inode(request.netns)
        podvif, interfaces = await self._answer(request, network)
        entries = [self._entry(request, network, interface, podvif) for interface in interfaces]
        now = time.time()
        return [
            msgspec.structs.replace(entry, netns_inode=inode, created=now + place * _MICROSECOND)
            for place, entry in enumerate(entries)
        ]

    def leaving(self, request: Request) -> Entry:
        """What a DEL of an attachment that the journal does not know has to remove: what has our marks, or our names."""
        entry = self._standalone.leaving(request)
        for port in self._ports().values():
            vif = translate.vif_of_port(port, self._settings.mount_point, self._settings.ovs_vhu_path)
            if vif and translate.owner_of(port) == entry.attachment:
                if volume := self._volumes.of_pod(request.pod):
                    vif = translate.in_own_directory(vif, self._volumes.directory_of(volume))
                return Entry(entry.attachment, entry.network, entry.goal, vif, entry.netns, created=entry.created)
        return entry

    def unwanted(self, attachment: Attachment) -> None:
        """An ADD of the attachment that waits here need not go on: it was deleted."""
        for waiting in self._waiting:
            if waiting.attachment == attachment:
                waiting.unwanted = True
                waiting.news.set()

    def why_not(self) -> str | None:
        """Why no ADD could be served: as long as nothing was listed.

        Later a lost API server is no reason: what is known of goes on to be served, and it would make every node of the
        cluster not ready at once.
        """
        if self._podvifs.is_listed:
            return None
        return f"the API server has not told this node's PodVifs yet: {self._podvifs.trouble}"

    def trouble(self) -> str | None:
        """Why this node's PodVifs are not being followed now, None while they are."""
        return self._podvifs.trouble

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _told(self, keys: frozenset[Key]) -> None:
        for waiting in self._waiting:
            if waiting.key in keys:
                waiting.news.set()

    async def _answer(self, request: Request, network: ClusterNetwork) -> tuple[PodVif, tuple[Interface, ...]]:
        pod = request.pod
        if not pod.name or not pod.namespace:
            raise Refused(
                "CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME",
                "with [node] source = cluster podvif serves pods; a runtime of Kubernetes names them",
                code=errors.INVALID_ENVIRONMENT,
            )
        waiting = _Waiting(request.expect_attachment(), Key(pod.namespace, pod.name))
        self._waiting.add(waiting)
        try:
            return await self._look(request, network, waiting)
        finally:
            self._waiting.discard(waiting)

    async def _look(
        self, request: Request, network: ClusterNetwork, waiting: _Waiting
    ) -> tuple[PodVif, tuple[Interface, ...]]:
        deadline = asyncio.get_running_loop().time() + self._settings.add_timeout
        whose = await self._whose(request.pod)
        seen, said = False, ""
        while True:
            waiting.news.clear()
            podvif = self._podvifs.get(waiting.key)
            theirs = podvif is None or whose.why_not(podvif) is not None
            if seen and theirs:
                raise serve.gone(str(waiting.key))
            # One without an interface says why there is none, and is replaced when that is mended.
            seen = podvif is not None and not theirs and bool(podvif.spec.interfaces)
            answer = serve.next_answer(request, network, whose, podvif)
            if isinstance(answer, Serve) and podvif is not None:
                return podvif, answer.interfaces
            reason = "" if isinstance(answer, Serve) else answer.reason
            if reason != said:
                _LOG.info("waiting for PodVif %s: %s", waiting.key, reason)
            said = reason
            try:
                async with asyncio.timeout_at(deadline):
                    await waiting.news.wait()
            except TimeoutError:
                raise self._too_late(waiting.key, reason) from None
            if waiting.unwanted:
                raise Retry(f"{waiting.attachment} was deleted while it was being added")

    def _too_late(self, key: Key, reason: str) -> Retry:
        trouble = self._podvifs.trouble
        away = f"; the API server is out of reach: {trouble}" if trouble else ""
        return Retry(
            f"PodVif {key} could not be served within {self._settings.add_timeout:g} s: {reason}{away}",
            f"kubectl describe podvif -n {key.namespace} {key.name} says more; `podvif controller` makes and binds it",
        )

    async def _whose(self, pod: Pod) -> Whose:
        """Which pod it is; cri-dockerd does not say (K8S_POD_UID), and two pods may have one name within a second."""
        if pod.uid:
            return Whose(pod.uid, "", self._node)
        key = Key(pod.namespace, pod.name)
        document = await self._api.get(PODS, key)
        if document is None:
            raise Refused(f"pod {key} is gone", "nothing was plugged for it", code=errors.UNKNOWN_CONTAINER)
        found = parse_pod(document)
        return Whose(found.annotations.get(MIRROR, ""), found.uid, self._node)

    # -- what it comes to ----------------------------------------------------------------------------------------------

    def _entry(self, request: Request, network: ClusterNetwork, interface: Interface, podvif: PodVif) -> Entry:
        asked = request.expect_attachment()
        attachment = Attachment(asked.container_id, interface.name)
        pod = Pod(podvif.namespace, podvif.name, podvif.spec.runtime_uid or podvif.spec.pod_uid)
        volume = self._volumes.of_pod(pod)
        vif = self._vif(interface, podvif, network, volume)
        main = attachment == asked and serve.way_of(request.config) is Way.MAIN
        addresses = serve.addresses_of(interface, main=main)
        if attachment == asked:
            serve.refuse_unasked(request, network, vif, addresses)
        refuse_existing(request.netns, interface.name, vif)
        return Entry(
            attachment=attachment,
            network=request.network,
            goal=Goal.ATTACHING,
            vif=vif,
            netns=request.netns,
            pod=pod,
            access=access_of(volume) if volume else None,
            addresses=addresses,
            leader="" if attachment == asked else asked.ifname,
        )

    def _vif(self, interface: Interface, podvif: PodVif, network: ClusterNetwork, volume: Volume | None) -> Vif:
        settings = self._settings
        kind = translate.kind_of(
            interface, podvif.spec.host_paths, settings.mount_point, own_directory=volume is not None
        )
        if kind is not PortKind.VHOST_USER:
            return translate.neutron_to_kernel_vif(interface, kind)
        vif = translate.neutron_to_osvif_vif_ovs(interface, settings.mount_point, settings.ovs_vhu_path, network.queues)
        return translate.in_own_directory(vif, self._volumes.directory_of(volume), volume) if volume else vif
