"""One pod at a time: observe, decide, act, until there is nothing left to do; and when to look again.

Law: `core.pods.next_action` decides, and nothing else.  A look is worth its price only when what it depends on has changed or
a back-off is over, so the facts of the last decision are remembered, and nothing more; a controller that begins anew knows
nothing and is right.  This is the one place where an unforeseen exception is caught.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from podvif.controller.cluster import Facts, Signature, signature
from podvif.controller.neutron_vif import DeposedError, Walk
from podvif.controller.tally import Tally
from podvif.controller.voice import Said, Voice
from podvif.core.pods import ACTIONS_MAX, UNREACHABLE, Action, Fail, SeenPod, next_action
from podvif.core.ports import PortDefaults
from podvif.daemon.log import CONTEXT
from podvif.errors import Bug, PodvifError, Retry, result_of
from podvif.kube.reflector import Backoff
from podvif.kube.resources import Key
from podvif.podvifs import PodVif

_LOG = logging.getLogger(__name__)

SLOW = 300.0
"""Seconds after which something is tried again that somebody has to change; a change of it is seen at once."""

SECOND = 15.0
"""Seconds after which it is tried a second time: a Neutron that has just been started refuses for a moment what it allows
(measured: the first creation after the start of its API, "disallowed by policy")."""


class Known(Protocol):
    """What is known of a pod (`podvif.controller.cluster.Cluster`)."""

    def facts(self, key: Key) -> Facts:
        """All of one namespace and name."""


class Driver(Protocol):
    """Observes and acts (`podvif.controller.neutron_vif.NeutronPodVIFDriver`)."""

    async def observe(self, walk: Walk, facts: Facts) -> SeenPod:
        """What a decision needs."""

    async def do(self, walk: Walk, podvif: PodVif | None, action: Action) -> None:
        """One action."""


@dataclass(slots=True)
class _Standing:
    """How it stands with one pod.

    Attributes:
        decided: what the last decision stood on.
        failures: in a row, of one family.
        family: theirs.
        due: a round has found something to do.
        over: a back-off is over.
        waits_for_neutron: the last look failed because Neutron was away.
        timer: of the back-off.
        said: the last event.
        told: what the log has of it.
    """

    decided: Signature | None = None
    failures: int = 0
    family: str = ""
    due: bool = False
    over: bool = False
    waits_for_neutron: bool = False
    timer: asyncio.TimerHandle | None = None
    said: Said | None = None
    told: str = ""


@dataclass
class _End:
    """How a walk ended, and what its last decision stood on."""

    facts: Facts = field(default_factory=Facts)
    fail: Fail | None = None


class Converge:
    """All pods.

    Args:
        driver: observes and acts.
        cluster: the caches.
        voice: says why a pod waits.
        defaults: [neutron_defaults] as far as they are known.
        tally: counts.
        wake: has a key looked at soon.
        retry_max: seconds that a pod waits at most for another try.
        clock: seconds.
        chance: of the back-off's jitter, in [0, 1).
    """

    def __init__(
        self,
        driver: Driver,
        cluster: Known,
        voice: Voice,
        *,
        defaults: Callable[[], PortDefaults],
        tally: Tally,
        wake: Callable[[Key], None],
        retry_max: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._driver = driver
        self._cluster = cluster
        self._defaults = defaults
        self._voice = voice
        self._tally = tally
        self._wake = wake
        self._backoff = Backoff(first=1.0, most=retry_max)
        self._clock = clock
        self._chance = chance
        self._standings: dict[Key, _Standing] = {}
        self._stopping = False

    @property
    def waiting(self) -> int:
        """How many pods wait for another try."""
        return sum(standing.timer is not None for standing in self._standings.values())

    def stop(self) -> None:
        """End each walk after the act that is under way, and begin none."""
        self._stopping = True
        for standing in self._standings.values():
            _cancel(standing)

    def look_anew(self, key: Key) -> None:
        """Have a pod looked at although nothing that Kubernetes says of it has changed; one that waits goes on waiting."""
        standing = self._standings.setdefault(key, _Standing())
        if standing.timer is None:
            standing.due = True
            self._wake(key)

    def settled(self, key: Key, facts: Facts) -> None:
        """A pod was found to be as it should be, without a look: until something changes none is needed."""
        standing = self._standings.setdefault(key, _Standing())
        if standing.decided is None:
            standing.decided = signature(facts)

    async def look(self, key: Key) -> None:
        """Bring one pod to where it shall be, as far as that can be done now."""
        if self._stopping:
            return
        facts = self._cluster.facts(key)
        standing = self._standings.setdefault(key, _Standing())
        changed = signature(facts) != standing.decided
        over, due = standing.over, standing.due and standing.timer is None  # a round shortens no back-off
        standing.over = standing.due = False
        if not (changed or over or due):
            return
        if facts.pod is None and facts.podvif is None:
            _cancel(standing)
            del self._standings[key]
            return
        _cancel(standing)
        again = over and not changed
        if changed:
            standing.failures = 0
        token = CONTEXT.set({"pod": str(key)})
        began = self._clock()
        try:
            end = await self._walk(key, again=again)
            await self._note(key, standing, end, began)
        except DeposedError:
            return
        finally:
            CONTEXT.reset(token)

    async def _walk(self, key: Key, *, again: bool) -> _End:
        """Act until nothing is left to do, or something is in the way; whatever that is, it comes out as a failure."""
        end = _End()
        try:
            end.fail = await self._act(Walk(key), end, again=again)
        except PodvifError as error:
            end.fail = Fail(error, "Bug" if isinstance(error, Bug) else "ApiFailed")
        except DeposedError:
            raise
        except Exception as error:  # noqa: BLE001  one pod's bug must not be the end of all others
            _LOG.error("a bug", exc_info=error)
            end.fail = Fail(Bug(f"{type(error).__name__}: {error}", "it is in the controller's log"), "Bug")
        return end

    async def _act(self, walk: Walk, end: _End, *, again: bool) -> Fail | None:
        """The loop; `again`: what has failed before is tried once more."""
        for _ in range(ACTIONS_MAX):
            if self._stopping:
                raise DeposedError
            end.facts = self._cluster.facts(walk.key)
            seen = await self._driver.observe(walk, end.facts)
            found = next_action(seen, self._defaults())
            if found is None:
                return None
            actions: tuple[Action, ...] = found.again if isinstance(found, Fail) else (found,)
            if isinstance(found, Fail):
                if not (again and actions):
                    return found
                again = False
            for action in actions:
                await self._driver.do(walk, seen.podvif, action)
        raise Bug(f"pod {walk.key} is not settled after {ACTIONS_MAX} actions")

    async def _note(self, key: Key, standing: _Standing, end: _End, began: float) -> None:
        """Remember what was decided on, and say and wait for what is in the way."""
        standing.decided = signature(end.facts)
        fail, waited = end.fail, standing.waits_for_neutron
        standing.waits_for_neutron = fail is not None and fail.reason == UNREACHABLE
        if waited and not standing.waits_for_neutron:
            self._neutron_is_back()
        self._tally.looked(result_of(fail.error if fail else None), self._clock() - began)
        if fail is None:
            standing.failures, standing.told = 0, ""
            said, standing.said = standing.said, None
            if said:
                await self._voice.is_well(key, end.facts, said)
            return
        family = result_of(fail.error)
        standing.failures = standing.failures + 1 if family == standing.family else 1
        standing.family = family
        delay = SECOND if standing.failures == 1 else SLOW
        if isinstance(fail.error, Retry):
            delay = self._backoff.delay(standing.failures, self._chance())
        standing.timer = asyncio.get_running_loop().call_later(delay, self._due, key)
        level = logging.DEBUG if standing.told == fail.error.message else logging.WARNING
        _LOG.log(level, "%s: %s; next look in %.1f s", fail.reason, fail.error, delay)
        standing.told = fail.error.message
        standing.said = await self._voice.fails(key, end.facts, fail, standing.said)

    def _neutron_is_back(self) -> None:
        """A pod that has waited for Neutron has had its answer, so the others need not wait for their turns."""
        for key, standing in self._standings.items():
            if standing.waits_for_neutron:
                standing.waits_for_neutron = False
                if standing.timer is not None:
                    _cancel(standing)
                    self._due(key)

    def _due(self, key: Key) -> None:
        standing = self._standings[key]
        standing.timer = None
        standing.over = True
        self._wake(key)


def _cancel(standing: _Standing) -> None:
    if standing.timer is not None:
        standing.timer.cancel()
        standing.timer = None
