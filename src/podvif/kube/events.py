"""Events: what a person reads under `kubectl describe`.

Law: the same thing said again of the same object is one Event whose series grows, whoever of the replicas says it and
however often they are started: its name is made of what is said.  An Event is a courtesy: one that cannot be written is
logged, and nothing fails by it.  The API server keeps Events for an hour, and forbids to change their note
(events.k8s.io/v1), so a note must not have in it what changes each time.
"""

import datetime as dt
import enum
import hashlib
import logging
from typing import Protocol

import msgspec

from podvif.errors import PodvifError
from podvif.kube.client import Outcome
from podvif.kube.resources import EVENTS, Document, Key, Resource

_log = logging.getLogger(__name__)
_TRIES = 4
NOTE_MAX = 1024
"""Bytes of a note (the API server's validation)."""


class Api(Protocol):
    """What a recorder needs of an API server."""

    async def get(self, resource: Resource, key: Key) -> Document | None:
        """One object."""

    async def create(self, resource: Resource, document: Document, manager: str) -> Document | Outcome:
        """Make an object."""

    async def merge(self, resource: Resource, key: Key, document: Document, manager: str) -> Document | Outcome:
        """Patch an object."""


class Level(enum.Enum):
    """How it concerns a person."""

    NORMAL = "Normal"
    WARNING = "Warning"


class Regarding(msgspec.Struct, frozen=True):
    """The object that an Event is about."""

    resource: Resource
    key: Key
    uid: str


class Recorder:
    """Writes Events.

    Args:
        api: the API server.
        controller: who says it, for instance `podvif.io/controller`.
        instance: which of its processes.
    """

    def __init__(self, api: Api, controller: str, instance: str) -> None:
        self._api = api
        self._controller = controller
        self._instance = instance

    async def record(self, regarding: Regarding, level: Level, reason: str, action: str, note: str) -> None:
        """Say something of an object, or say it again.

        Args:
            regarding: the object.
            level: whether somebody should act on it.
            reason: why, one word in CamelCase, for machines.
            action: what was being done, one word in CamelCase.
            note: a sentence; cut off at NOTE_MAX bytes.
        """
        note = note.encode()[:NOTE_MAX].decode(errors="ignore")
        said = repr((regarding.uid, level.value, reason, action, note, self._controller))
        name = f"{regarding.key.name[:200]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        key = Key(regarding.key.namespace or "default", name)
        document = {
            "metadata": {"namespace": key.namespace, "name": key.name},
            "eventTime": _now(),
            "type": level.value,
            "reason": reason,
            "action": action,
            "note": note,
            "regarding": _reference(regarding),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
        }
        try:
            await self._write(key, document)
        except PodvifError as error:
            _log.warning("no Event %s of %s: %s", reason, regarding.key, error)

    async def _write(self, key: Key, document: Document) -> None:
        for _ in range(_TRIES):  # others may write the same one, and the server may drop it between two steps
            if (there := await self._api.get(EVENTS, key)) is None:
                if await self._api.create(EVENTS, document, self._controller) is not Outcome.EXISTS:
                    return
                continue
            count = (there.get("series") or {}).get("count", 1) + 1
            patch = {
                "metadata": {"resourceVersion": there["metadata"]["resourceVersion"]},
                "series": {"count": count, "lastObservedTime": _now()},
            }
            if not isinstance(await self._api.merge(EVENTS, key, patch, self._controller), Outcome):
                return


def _reference(regarding: Regarding) -> Document:
    reference = {
        "apiVersion": regarding.resource.api_version,
        "kind": regarding.resource.kind,
        "name": regarding.key.name,
        "namespace": regarding.key.namespace,
        "uid": regarding.uid,
    }
    return {name: value for name, value in reference.items() if value}


def _now() -> str:
    """As metav1.MicroTime has it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
