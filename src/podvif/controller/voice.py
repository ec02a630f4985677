"""What a person reads under `kubectl describe pod`: why a pod waits, and that it waits no more.

Law: the same thing is said once, and again only before Kubernetes forgets it; nobody is told of a pod that has what it needs.
This is the one place where an error becomes an event.
"""

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from podvif.controller.cluster import Facts, bound_condition
from podvif.core.pods import BOUND, Fail
from podvif.kube.events import Level, Regarding
from podvif.kube.resources import PODS, PODVIFS, Key

AGAIN = 1800.0
"""Seconds after which what has not changed is said again: the API server keeps events for an hour."""

ACTION = "GivePorts"
"""What was being done, for the event."""


class Recorder(Protocol):
    """Writes events (`podvif.kube.events.Recorder`)."""

    async def record(self, regarding: Regarding, level: Level, reason: str, action: str, note: str) -> None:
        """Say something of an object."""


class Said(msgspec.Struct, frozen=True):
    """What was said last of a pod, and when."""

    uid: str
    reason: str
    note: str
    at: float


class Voice:
    """Says it."""

    def __init__(
        self, recorder: Recorder, leading: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recorder = recorder
        self._leading = leading
        self._clock = clock

    async def fails(self, key: Key, facts: Facts, fail: Fail, before: Said | None) -> Said | None:
        """Say why a pod waits, or a PodVif whose pod is gone; what was said last of it now."""
        about = _regarding(key, facts)
        if about is None or (facts.pod and _is_bound(facts)) or not self._leading():
            return before
        note = " ".join(f"{fail.error.message}; {fail.error.remedy}".split()).removesuffix(";")
        said = Said(about.uid, fail.reason, note, self._clock())
        the_same = before and (before.uid, before.reason, before.note) == (said.uid, said.reason, said.note)
        if before and the_same and said.at < before.at + AGAIN:
            return before
        await self._recorder.record(about, Level.WARNING, fail.reason, ACTION, note)
        return said

    async def is_well(self, key: Key, facts: Facts, before: Said | None) -> None:
        """Say that a pod has its ports, if it was said before that it had to wait."""
        about = _regarding(key, facts)
        if before and self._leading() and about and about.uid == before.uid and _is_bound(facts):
            await self._recorder.record(about, Level.NORMAL, BOUND, ACTION, "all its Neutron ports are bound")


def _regarding(key: Key, facts: Facts) -> Regarding | None:
    if facts.pod:
        return Regarding(PODS, key, facts.pod.uid)
    return Regarding(PODVIFS, key, facts.podvif.uid) if facts.podvif else None


def _is_bound(facts: Facts) -> bool:
    condition = bound_condition(facts.podvif) if facts.podvif else None
    return condition is not None and condition.status == "True"
