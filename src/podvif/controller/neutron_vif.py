"""NeutronPodVIFDriver: one pod observed, and one action done, with the API server and Neutron.

Law: it decides nothing.  Before each write it asks whether this controller still leads.  Neutron lists a pod's ports once a
walk at most; from then on the answers to the walk's own requests are what is known.  What must not be believed of a cache is
read anew: that a pod is gone, before its ports go.

A pod has no ports, and Neutron need not list them, when it came after this leadership had begun, has never been asked a port
for in it, and its PodVif was made just now: ports are made by who leads, and under a PodVif only.
"""

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from podvif import names
from podvif.controller.cluster import Cluster, Facts, kept_pod
from podvif.controller.defaults import Defaults
from podvif.controller.tally import Tally
from podvif.core.pods import (
    BOUND,
    Action,
    AddFinalizer,
    CreatePodVif,
    CreatePort,
    DeletePodVif,
    DeletePort,
    RebindPort,
    RemoveFinalizer,
    SeenPod,
    WriteStatus,
    stamped,
)
from podvif.core.ports import Places, network_ids, subnet_ids
from podvif.errors import Bug, PodvifError, Refused, Retry, result_of
from podvif.kube.client import Outcome
from podvif.kube.convert import parse_podvif, render
from podvif.kube.resources import PODS, PODVIFS, Document, Key, Resource
from podvif.model import ClusterPod, NeutronNetwork, NeutronPort, NeutronSubnet, PortRequest
from podvif.podvifs import FINALIZER, NODE_LABEL, InterfaceState, PodVif, Spec

_LOG = logging.getLogger(__name__)

MANAGER = "podvif-controller"
"""Field manager of what the controller writes."""

ASK_AGAIN = 1.0
"""Seconds in which no other pod asks a Neutron that was just found to be away."""


BELIEVE = 10.0
"""Seconds after which a port that Neutron does not show any more is believed to be gone, when it is still not shown.  A Neutron
that was just started shows a `service` nothing for a moment, with 200 and an empty list (measured): believed at once, that would cost
every bound pod its port, and leave the ports of those that end."""


class Api(Protocol):
    """What it takes to write PodVifs (`podvif.kube.client.Kube`)."""

    async def get(self, resource: Resource, key: Key) -> Document | None:
        """One object."""

    async def create(self, resource: Resource, document: Document, manager: str) -> Document | Outcome:
        """Make an object."""

    async def apply(
        self, resource: Resource, key: Key, document: Document, manager: str, *, status: bool = False
    ) -> Document | Outcome:
        """Say fields of an object."""

    async def merge(self, resource: Resource, key: Key, document: Document, manager: str) -> Document | Outcome:
        """Patch an object."""

    async def delete(self, resource: Resource, key: Key, *, uid: str = "", version: str = "") -> Outcome | None:
        """Delete an object."""


class Ports(Protocol):
    """What it takes to have ports (`podvif.neutron.client.Neutron`)."""

    def trouble(self) -> str | None:
        """Why Neutron cannot be reached, and since when; None when it has answered last."""

    async def ports_of(self, device_id: str) -> tuple[NeutronPort, ...]:
        """Our ports of one device."""

    async def create_port(self, request: PortRequest) -> NeutronPort:
        """A port that is not there yet."""

    async def delete_port(self, port_id: str) -> None:
        """No port of that id any more."""

    async def bind_port(self, port_id: str, host_id: str) -> NeutronPort:
        """A port, bound again."""

    async def subnet(self, subnet_id: str) -> NeutronSubnet:
        """A subnet's facts."""

    async def network(self, network_id: str) -> NeutronNetwork:
        """A network's facts."""


class DeposedError(Exception):
    """This controller leads no more, or is about to end: it must not write."""


@dataclass
class Walk:
    """What one walk has learned, beyond what the caches say.

    Attributes:
        key: the pod's namespace and name.
        refusals: why Neutron made no port, by interface.
        ports: Neutron's ports by id, for each pod UID that was asked for.
        gone: pod UIDs that the API server itself has said to be no more.
        trouble: why Neutron could not be asked in this walk.
    """

    key: Key
    refusals: dict[str, PodvifError] = field(default_factory=dict)
    ports: dict[str, dict[str, NeutronPort]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    trouble: str | None = None


class NeutronPodVIFDriver:
    """Observes and acts.

    Args:
        api: the API server.
        neutron: Neutron.
        cluster: the caches.
        defaults: [neutron_defaults].
        leading: whether this controller may write.
        tally: the counts.
        clock: seconds, monotonic.
        now: RFC 3339, for conditions.
    """

    def __init__(
        self,
        api: Api,
        neutron: Ports,
        cluster: Cluster,
        defaults: Defaults,
        *,
        leading: Callable[[], bool],
        tally: Tally,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], str] = lambda: dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    ) -> None:
        self._api = api
        self._neutron = neutron
        self._cluster = cluster
        self._defaults = defaults
        self._leading = leading
        self._tally = tally
        self._clock = clock
        self._now = now
        self._in_vain_at = float("-inf")
        self._former = cluster.uids()
        self._asked_for: set[str] = set()
        self._missing: dict[str, float] = {}

    # -- observe -------------------------------------------------------------------------------------------------------

    async def observe(self, walk: Walk, facts: Facts) -> SeenPod:
        """All that a decision about one pod needs.

        Raises:
            Retry, Refused: the API server cannot be asked whether a pod is there.
        """
        podvif = facts.podvif
        if podvif is None:
            return SeenPod(facts.pod, None, facts.wanted)
        pod = await self._pod_not_older(walk, facts.pod, podvif)
        wanted = facts.wanted if pod is facts.pod else self._cluster.wanted(pod) if pod else ()
        seen = SeenPod(pod, podvif, wanted, refusals=walk.refusals)
        if not _asks_neutron(pod, podvif):
            return seen
        ports = await self._ports(walk, podvif)
        if ports is None or _is_over(pod, podvif):
            return msgspec.structs.replace(seen, ports=ports or (), trouble=walk.trouble)
        try:
            await self._defaults.look_up()
        except Retry as error:
            self._in_vain(walk, error)
        except Refused as error:
            walk.refusals |= {interface.name: error for interface in podvif.spec.interfaces}
        places = await self.places(podvif, ports)
        return msgspec.structs.replace(seen, ports=ports, places=places, trouble=walk.trouble)

    async def places(self, podvif: PodVif, ports: tuple[NeutronPort, ...]) -> Places:
        """The subnets and networks that a decision needs, or why they are not known."""
        wanted, defaults = podvif.spec.interfaces, self._defaults.known
        subnets: dict[str, NeutronSubnet | PodvifError] = dict(self._defaults.refused)
        networks: dict[str, NeutronNetwork | PodvifError] = {}
        for name in subnet_ids(wanted, ports, defaults) - subnets.keys():
            try:
                subnets[name] = await self._neutron.subnet(name)
            except PodvifError as error:
                subnets[name] = error
        for name in network_ids(wanted, ports, Places(subnets)):
            try:
                networks[name] = await self._neutron.network(name)
            except PodvifError as error:
                networks[name] = error
        return Places(subnets, networks)

    async def _pod_not_older(self, walk: Walk, pod: ClusterPod | None, podvif: PodVif) -> ClusterPod | None:
        """The pod; where the cache has not the PodVif's own one, the API server says whether that is gone."""
        uid = podvif.spec.pod_uid
        if (pod is not None and pod.uid == uid) or uid in walk.gone:
            return pod
        document = await self._api.get(PODS, walk.key)
        if document is not None and document["metadata"]["uid"] == uid and (found := kept_pod(document)) is not None:
            return found
        walk.gone.add(uid)
        return pod

    async def _ports(self, walk: Walk, podvif: PodVif) -> tuple[NeutronPort, ...] | None:
        """The pod's ports; None when Neutron cannot be asked for them, or what it says is not believed yet."""
        uid = podvif.spec.pod_uid
        if uid not in walk.ports:
            if self._clock() < self._in_vain_at + ASK_AGAIN:
                walk.trouble = walk.trouble or self._neutron.trouble()
            if walk.trouble:
                return None
            try:
                ports = {port.id: port for port in await self._neutron.ports_of(uid)}
            except PodvifError as error:
                self._in_vain(walk, error)
                return None
            if reason := self._why_not_believed(podvif, ports):
                walk.trouble = reason
                return None
            walk.ports[uid] = ports
        return tuple(walk.ports[uid].values())

    def _why_not_believed(self, podvif: PodVif, ports: Mapping[str, NeutronPort]) -> str | None:
        """Why a listing without a port that the status has is not taken for true, or None when it is."""
        uid = podvif.spec.pod_uid
        known = (one.port_id for one in podvif.status.interfaces if one.state is InterfaceState.BOUND)
        missing = next((port for port in known if port not in ports), None)
        since = self._missing.setdefault(uid, self._clock()) if missing else float("-inf")
        if self._clock() < since + BELIEVE:
            return f"Neutron does not show port {missing} of PodVif {podvif}: it is asked again before that is believed"
        self._missing.pop(uid, None)
        return None

    def _in_vain(self, walk: Walk, error: PodvifError) -> None:
        """Neutron was asked just now, and could not answer."""
        if self._neutron.trouble() is not None:
            self._in_vain_at = self._clock()
        walk.trouble = self._neutron.trouble() or error.message

    # -- do ------------------------------------------------------------------------------------------------------------

    async def do(self, walk: Walk, podvif: PodVif | None, action: Action) -> None:
        """One action; what it answered with is known from now on.

        Raises:
            DeposedError: somebody else may lead by now.
            Retry, Refused: it could not be done.
        """
        if not self._leading():
            raise DeposedError
        name = type(action).__name__
        try:
            await self._do(walk, podvif, action)
        except PodvifError as error:
            self._tally.acted(name, result_of(error))
            if isinstance(action, CreatePort | DeletePort | RebindPort) and self._neutron.trouble() is not None:
                self._in_vain(walk, error)
            elif isinstance(action, CreatePort):
                walk.refusals[action.interface] = error
            else:
                raise
        else:
            self._tally.acted(name, "ok")
            _LOG.info("%s%s", name, _told(action))

    async def _do(self, walk: Walk, podvif: PodVif | None, action: Action) -> None:
        match action:
            case CreatePodVif(_, _, spec):
                await self._create_podvif(walk, spec)
            case DeletePodVif(uid, version):
                await self._api.delete(PODVIFS, walk.key, uid=uid, version=version)
                await self._cluster.read_again(walk.key, self._api)
            case AddFinalizer(uid):
                await self._set_finalizers(walk.key, podvif, uid, present=True)
            case RemoveFinalizer(uid):
                await self._set_finalizers(walk.key, podvif, uid, present=False)
                self._asked_for -= walk.gone
            case WriteStatus(uid, status):
                written = stamped(status, self._now())
                ours = [render(condition) for condition in written.conditions if condition.type == BOUND]
                facts = {"interfaces": [render(one) for one in written.interfaces], "conditions": ours}
                # The uid would guard no status: the version that was read does.
                document = {"metadata": {"resourceVersion": _seen(podvif, uid).resource_version}, "status": facts}
                await self._took(walk.key, await self._api.apply(PODVIFS, walk.key, document, MANAGER, status=True))
            case CreatePort(_, request):
                self._asked_for.add(request.device_id)
                port = await self._neutron.create_port(request)
                walk.ports.setdefault(request.device_id, {})[port.id] = port
            case DeletePort(port_id):
                await self._neutron.delete_port(port_id)
                for ports in walk.ports.values():
                    ports.pop(port_id, None)
            case RebindPort(port_id, host_id):
                port = await self._neutron.bind_port(port_id, host_id)
                walk.ports.setdefault(port.device_id, {})[port.id] = port

    async def _create_podvif(self, walk: Walk, spec: Spec) -> None:
        key = walk.key
        owner = {"apiVersion": PODS.api_version, "kind": PODS.kind, "name": key.name, "uid": spec.pod_uid}
        metadata = {
            "namespace": key.namespace,
            "name": key.name,
            "labels": {NODE_LABEL: names.node_label(spec.node_name)},
            "finalizers": [FINALIZER],
            "ownerReferences": [owner],
        }
        made = await self._api.create(PODVIFS, {"metadata": metadata, "spec": render(spec)}, MANAGER)
        if made is Outcome.MISSING:
            raise Retry(f"namespace {key.namespace} is not there", "the PodVif is made when it is")
        await self._took(key, made)
        if not isinstance(made, Outcome) and spec.pod_uid not in self._former and spec.pod_uid not in self._asked_for:
            walk.ports[spec.pod_uid] = {}

    async def _set_finalizers(self, key: Key, podvif: PodVif | None, uid: str, *, present: bool) -> None:
        seen = _seen(podvif, uid)
        others = [name for name in seen.finalizers if name != FINALIZER]
        # The list is replaced as a whole, so it has to be the one that was read.
        document: Document = {
            "metadata": {
                "uid": uid,
                "resourceVersion": seen.resource_version,
                "finalizers": [*others, FINALIZER] if present else others,
            }
        }
        await self._took(key, await self._api.merge(PODVIFS, key, document, MANAGER))

    async def _took(self, key: Key, answer: Document | Outcome) -> None:
        """Go on from what the API server has now."""
        if isinstance(answer, Outcome):
            await self._cluster.read_again(key, self._api)
        else:
            self._cluster.note(key, parse_podvif(answer))


def _seen(podvif: PodVif | None, uid: str) -> PodVif:
    """The PodVif that an action is about."""
    if podvif is None or podvif.uid != uid:
        raise Bug(f"an action is about PodVif {uid}, and that is not the one that was seen: {podvif}")
    return podvif


def _is_over(pod: ClusterPod | None, podvif: PodVif) -> bool:
    """Whether the PodVif's pod is no more."""
    return pod is None or pod.uid != podvif.spec.pod_uid


def _asks_neutron(pod: ClusterPod | None, podvif: PodVif) -> bool:
    """Whether a decision may need the ports: a listing costs Neutron more than all the rest of a quiet look."""
    if _is_over(pod, podvif):
        return podvif.deleting
    if podvif.deleting or not podvif.spec.interfaces:
        return False
    return pod is not None and not pod.deleting and FINALIZER in podvif.finalizers


def _told(action: Action) -> str:
    match action:
        case CreatePort(interface):
            return f" for {interface}"
        case DeletePort(port_id, why):
            return f" {port_id}: {why}"
        case RebindPort(port_id, host_id):
            return f" {port_id} to {host_id}"
    return ""
