"""One leader among the replicas, by a Lease (coordination.k8s.io/v1).

Law: who leads has stopped before anybody else may begin.  A leadership lasts `renew_deadline` from the moment when the last
renewal that succeeded was *sent*; others take the lease `duration` after they have *seen* that renewal, which is later.  All
by monotonic clocks of one's own: the times in the Lease are for people.  So a leader that is cut off, whose API server hangs
or whose process was stopped for a while knows by itself that it is none any more.  The rules and the times are client-go's
(tools/leaderelection).
"""

import asyncio
import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from podvif.errors import Bug, Refused, Retry
from podvif.kube.client import Outcome
from podvif.kube.resources import LEASES, Document, Key, Resource

_log = logging.getLogger(__name__)
_MANAGER = "podvif-elector"
_TRIES = 3


class Api(Protocol):
    """What an elector needs of an API server."""

    async def get(self, resource: Resource, key: Key) -> Document | None:
        """One object."""

    async def create(self, resource: Resource, document: Document, manager: str) -> Document | Outcome:
        """Make an object."""

    async def merge(self, resource: Resource, key: Key, document: Document, manager: str) -> Document | Outcome:
        """Patch an object."""


class Timing(msgspec.Struct, frozen=True):
    """Seconds, each several times the next.

    Attributes:
        duration: how long the others wait after the last renewal that they saw.
        renew_deadline: how long a leader leads on after its last renewal.
        retry: between two attempts to renew, or to get the lease.
    """

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > 1.2 * self.retry > 0 or self.duration < 1:
            raise Refused(
                f"leader election with {self.duration:g}/{self.renew_deadline:g}/{self.retry:g} s is not safe",
                "the lease has to outlast the renew deadline, and that one a few retries; the lease is 1 s at least",
            )


class Elector:
    """One candidate.

    Args:
        api: the API server.
        key: the Lease.
        identity: of this very process: another one, or the same program started again, has another.
        timing: seconds.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        api: Api,
        key: Key,
        identity: str,
        timing: Timing = Timing(),  # noqa: B008  frozen
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._key = key
        self._identity = identity
        self._timing = timing
        self._clock = clock
        self._until = float("-inf")
        self._seen: Document = {}
        self._seen_at = float("-inf")
        self.holder = ""
        """Who had the lease when it was last looked at; for people."""

    @property
    def leading(self) -> bool:
        """Whether this process may act: ask before each write."""
        return self._clock() < self._until

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Stand for election until `lead` returns; while elected, `lead` runs, and is cancelled when the leadership ends.

        When this is cancelled itself, the lease is given back after `lead` has ended.

        Raises:
            Bug: `lead` did not end in time after it was cancelled: the process has to go, somebody else may lead now.
            Exception: what `lead` raised, after the lease was given back.
        """
        while True:
            await self._acquire()
            _log.info("%s leads", self._identity)
            leading = asyncio.ensure_future(lead())
            try:
                await self._renew_while(leading)
                ended_by_itself = leading.done()
            finally:
                await self._end(leading)
            if ended_by_itself:
                return await leading
            if not leading.cancelled() and (error := leading.exception()) is not None:
                raise error
            _log.warning("%s leads no more: %s", self._identity, self.holder or "the lease could not be renewed")

    async def _acquire(self) -> None:
        while not await self._try_to("get"):  # noqa: ASYNC110  the others say nothing when they stop
            await asyncio.sleep(self._timing.retry * (1 + 1.2 * random.random()))  # noqa: S311  jitter, no secret

    async def _renew_while(self, leading: asyncio.Future[None]) -> None:
        """Renew until `leading` has ended or the leadership has."""
        while self.leading:
            pause = min(self._timing.retry, self._until - self._clock())
            await asyncio.wait([leading], timeout=max(0.0, pause))
            if leading.done():
                return
            # A request that hangs must not outlast the leadership.
            renewal: asyncio.Future[Any] = asyncio.ensure_future(self._try_to("renew"))
            try:
                await asyncio.wait(
                    [leading, renewal],
                    timeout=max(0.0, self._until - self._clock()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                await _cancelled(renewal)
            if leading.done():
                return

    async def _end(self, leading: asyncio.Future[None]) -> None:
        """Stop what leads, in the time that is left until others may begin, and give the lease back if it still is ours."""
        grace = self._timing.duration - self._timing.renew_deadline
        leading.cancel()
        done, _ = await asyncio.wait([leading], timeout=max(0.0, self._until - self._clock()) + grace)
        if not done:
            raise Bug(f"the leader {self._identity} did not stop within {grace:g} s after it had lost the lease")
        if self.leading:
            self._until = float("-inf")
            await self._release()

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(self._timing.renew_deadline / 2):
                await self._give_back()
        except (Retry, Refused, TimeoutError) as error:
            why = str(error) or "no answer"
            _log.warning("the lease %s could not be given back, it runs out by itself: %s", self._key, why)

    async def _give_back(self) -> None:
        lease: Document | None = self._seen
        for _ in range(_TRIES):
            lease = lease or await self._api.get(LEASES, self._key)
            if lease is None or lease.get("spec", {}).get("holderIdentity") != self._identity:
                return
            spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
            patch = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": spec}
            if not isinstance(await self._api.merge(LEASES, self._key, patch, _MANAGER), Outcome):
                return
            lease = None  # a renewal of ours that was cancelled has come through all the same

    async def _try_to(self, what: str) -> bool:
        """One attempt to get or keep the lease; whether it is ours now."""
        try:
            async with asyncio.timeout(self._timing.renew_deadline):
                return await self._get_or_renew()
        except (Retry, Refused, TimeoutError) as error:
            _log.warning("%s could not %s the lease %s: %s", self._identity, what, self._key, str(error) or "no answer")
            return False

    async def _get_or_renew(self) -> bool:
        if not self.leading or not self._seen:
            if (found := await self._api.get(LEASES, self._key)) is None:
                return await self._make()
            self._look_at(found)
        spec = self._seen.get("spec", {})
        holder = spec.get("holderIdentity") or ""
        runs_out = self._seen_at + spec.get("leaseDurationSeconds", self._timing.duration)
        if holder and holder != self._identity and self._clock() < runs_out:
            self._until = float("-inf")
            return False
        return await self._write(holder, spec)

    async def _make(self) -> bool:
        sent = self._clock()
        spec = self._spec() | {"acquireTime": _now(), "leaseTransitions": 0}
        document = {"metadata": {"namespace": self._key.namespace, "name": self._key.name}, "spec": spec}
        made = await self._api.create(LEASES, document, _MANAGER)
        return self._took(made, sent)

    async def _write(self, holder: str, spec: Document) -> bool:
        sent = self._clock()
        wanted = self._spec()
        if holder != self._identity:
            wanted |= {"acquireTime": _now(), "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
        patch = {"metadata": {"resourceVersion": self._seen["metadata"]["resourceVersion"]}, "spec": wanted}
        return self._took(await self._api.merge(LEASES, self._key, patch, _MANAGER), sent)

    def _took(self, answer: Document | Outcome, sent: float) -> bool:
        if isinstance(answer, Outcome):
            self._seen = {}  # somebody was faster: look again
            return False
        self._look_at(answer)
        self._until = sent + self._timing.renew_deadline
        return self.leading

    def _look_at(self, lease: Document) -> None:
        """Note the lease, and when it was first seen as it is now."""
        self.holder = lease.get("spec", {}).get("holderIdentity") or ""
        if lease.get("spec") != self._seen.get("spec"):
            self._seen_at = self._clock()
        self._seen = lease

    def _spec(self) -> Document:
        # Others wait for what stands here, in whole seconds: never less than what we count on.
        seconds = -int(-self._timing.duration // 1)
        return {"holderIdentity": self._identity, "leaseDurationSeconds": seconds, "renewTime": _now()}


async def _cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])


def _now() -> str:
    """As metav1.MicroTime has it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
