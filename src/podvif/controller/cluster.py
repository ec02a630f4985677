"""What Kubernetes says: the pods, NetworkAttachmentDefinitions and PodVifs, never older than what was written here.

Law: the caches follow the API server at their own pace; what this controller has written itself, or read anew, is noted until
the cache has it, so that no decision stands on a PodVif older than its own last act.  Pods that need nothing of podvif are
not kept, and of the others only what podvif reads, so that a change which does not concern it is none.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from podvif.core.networks import NETWORKS, attachments_of, wanted_interfaces
from podvif.core.pods import BOUND, MIRROR, is_served
from podvif.errors import PodvifError, Retry
from podvif.kube.convert import parse_nad, parse_pod, parse_podvif
from podvif.kube.reflector import Reflector, Source
from podvif.kube.resources import NADS, PODS, PODVIFS, Document, Key
from podvif.model import ClusterPod, Nad
from podvif.podvifs import Condition, PodVif, WantedInterface

_READ = frozenset({NETWORKS, MIRROR})

NOTE_SECONDS = 60.0
"""After that a note is believed no longer than the cache: a list that came late can have passed its version over."""


class Getter(Protocol):
    """Reading one object anew."""

    async def get(self, resource: Any, key: Key) -> Document | None:
        """The object, or None."""


class Facts(msgspec.Struct, frozen=True):
    """One namespace and name as Kubernetes has it, and what its pod asks for, or why it cannot be served."""

    pod: ClusterPod | None = None
    podvif: PodVif | None = None
    wanted: tuple[WantedInterface, ...] | PodvifError = ()


Signature = tuple[Any, ...]
"""What of the facts a decision depends on; equal ones lead to the same decision."""


def signature(facts: Facts) -> Signature:
    """What of the facts matters: not the versions, nor the node's conditions, which come while a pod is bound already."""
    wanted = facts.wanted.message if isinstance(facts.wanted, PodvifError) else facts.wanted
    found = facts.podvif
    if found is None:
        return facts.pod, None, wanted
    ours = bound_condition(found)
    return facts.pod, found.uid, found.spec, found.finalizers, found.deleting, found.status.interfaces, ours, wanted


def bound_condition(podvif: PodVif) -> Condition | None:
    """The controller's condition."""
    return next((condition for condition in podvif.status.conditions if condition.type == BOUND), None)


def kept_pod(document: Document) -> ClusterPod | None:
    """A pod that podvif may have to serve, with what podvif reads of it."""
    pod = parse_pod(document)
    if not is_served(pod):
        return None
    read = {name: text for name, text in pod.annotations.items() if name in _READ}
    return msgspec.structs.replace(pod, annotations=read)


class _Note(msgspec.Struct, frozen=True):
    """What is known beyond the cache: the object, or that the one of this uid is gone."""

    at: float
    uid: str
    podvif: PodVif | None


class Cluster:
    """The three caches.

    Args:
        source: the API server.
        cluster_network: podvif is the cluster network.
        prefix: of additional interfaces' names.
        clock: seconds.
    """

    def __init__(
        self,
        source: Source,
        *,
        cluster_network: bool,
        prefix: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pods: Reflector[ClusterPod] = Reflector(source, PODS, kept_pod, clock=clock)
        self.nads: Reflector[Nad] = Reflector(source, NADS, parse_nad, clock=clock)
        self.podvifs: Reflector[PodVif] = Reflector(source, PODVIFS, parse_podvif, clock=clock)
        self._cluster_network = cluster_network
        self._prefix = prefix
        self._clock = clock
        self._notes: dict[Key, _Note] = {}
        self._nads: dict[str, Nad] | None = None
        self._wake: Callable[[Key], None] | None = None
        self.pods.on_change(self._changed)
        self.podvifs.on_change(self._podvifs_changed)
        self.nads.on_change(self._nads_changed)

    async def run(self) -> None:
        """Follow the API server for ever."""
        await asyncio.gather(self.pods.run(), self.nads.run(), self.podvifs.run())

    async def listed(self) -> None:
        """Return when pods and PodVifs are known; a cluster may have no NetworkAttachmentDefinitions at all."""
        await self.pods.listed()
        await self.podvifs.listed()

    def trouble(self) -> str | None:
        """Why what is seen may be old, or None."""
        return self.pods.trouble or self.podvifs.trouble

    def on_change(self, wake: Callable[[Key], None] | None) -> None:
        """Have `wake` called with each key whose facts may have changed; None for nobody."""
        self._wake = wake

    # -- what is known -------------------------------------------------------------------------------------------------

    def all_keys(self) -> set[Key]:
        """All pods that may have to be served, and all PodVifs."""
        return {*self.pods.objects, *self.podvifs.objects, *self._notes}

    def podvif(self, key: Key) -> PodVif | None:
        """The newest PodVif of this name that is known."""
        cached, note = self.podvifs.get(key), self._notes.get(key)
        if note is None:
            return cached
        if note.podvif is None:
            return cached if cached and cached.uid != note.uid else None
        if cached and _version(cached) >= _version(note.podvif):
            return cached
        return note.podvif

    def facts(self, key: Key) -> Facts:
        """All of one namespace and name."""
        pod = self.pods.get(key)
        return Facts(pod, self.podvif(key), self.wanted(pod) if pod else ())

    def wanted(self, pod: ClusterPod) -> tuple[WantedInterface, ...] | PodvifError:
        """What a pod asks for, or why it cannot be served."""
        if NETWORKS in pod.annotations and self.nads.trouble and not self.nads.objects:
            return Retry(f"the pod's networks cannot be looked up: {self.nads.trouble}")
        if self._nads is None:
            self._nads = {str(key): nad for key, nad in self.nads.objects.items()}
        try:
            return wanted_interfaces(pod, self._nads, cluster_network=self._cluster_network, prefix=self._prefix)
        except PodvifError as error:
            return error

    def uids(self) -> frozenset[str]:
        """UIDs of all pods that may have ports, and of those that PodVifs are of."""
        notes = (note.podvif for note in self._notes.values() if note.podvif)
        podvifs = [*self.podvifs.objects.values(), *notes]
        return frozenset({pod.uid for pod in self.pods.objects.values()} | {podvif.spec.pod_uid for podvif in podvifs})

    # -- what is noted -------------------------------------------------------------------------------------------------

    def note(self, key: Key, podvif: PodVif) -> None:
        """A PodVif as the API server has just answered with it."""
        gone = podvif.deleting and not podvif.finalizers
        self._notes[key] = _Note(self._clock(), podvif.uid, None if gone else podvif)
        self._drop_note(key)

    def note_gone(self, key: Key, uid: str) -> None:
        """The API server has said that the PodVif of this uid is no more."""
        self._notes[key] = _Note(self._clock(), uid, None)
        self._drop_note(key)

    async def read_again(self, key: Key, api: Getter) -> None:
        """Read a PodVif anew: it is not as it was thought to be."""
        document = await api.get(PODVIFS, key)
        if document is not None:
            self.note(key, parse_podvif(document))
        elif known := self.podvif(key):
            self.note_gone(key, known.uid)

    def drop_old_notes(self) -> None:
        """Believe the cache where it ought to have caught up long ago."""
        if self.podvifs.trouble is None:
            old = self._clock() - NOTE_SECONDS
            for key in [key for key, note in self._notes.items() if note.at <= old]:
                del self._notes[key]

    def _drop_note(self, key: Key) -> None:
        """A note that the cache has caught up with has done its work."""
        note, cached = self._notes.get(key), self.podvifs.get(key)
        if note is None:
            return
        if note.podvif is None:
            caught_up = cached is None or cached.uid != note.uid
        else:
            caught_up = cached is not None and _version(cached) >= _version(note.podvif)
        if caught_up:
            del self._notes[key]

    # -- what has changed ----------------------------------------------------------------------------------------------

    def _changed(self, keys: frozenset[Key]) -> None:
        if self._wake is not None:
            for key in keys:
                self._wake(key)

    def _podvifs_changed(self, keys: frozenset[Key]) -> None:
        for key in keys:
            self._drop_note(key)
        self._changed(keys)

    def _nads_changed(self, keys: frozenset[Key]) -> None:
        self._nads = None
        self._changed(frozenset(self._who_names({str(key) for key in keys})))

    def _who_names(self, attachments: set[str]) -> Iterator[Key]:
        for key, pod in self.pods.objects.items():
            if NETWORKS in pod.annotations and attachments & attachments_of(pod):
                yield key


def _version(podvif: PodVif) -> int:
    """Versions of one kind can be compared as numbers (Kubernetes API Concepts, "Resource versions", since 1.35)."""
    return int(podvif.resource_version or 0)
