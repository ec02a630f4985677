"""A cache of one kind of objects that follows the API server.

Law: the cache is what the server had at one moment, or later: a list of one version, and every change since, in order.
Whatever breaks the stream (410 Gone, a connection, a silence) leads to a new list after a jittered wait, and the difference
to what was there is told like any change, so that an object that was deleted meanwhile is not kept for ever.  Subscribers
get keys, never events: what an object is now is read here.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

import msgspec

from podvif.errors import PodvifError, Refused, Retry
from podvif.kube.client import EVERYTHING, Change, Event, ExpiredError, Page
from podvif.kube.resources import Document, Key, Resource, Where, key_of

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Source(Protocol):
    """What a reflector needs of an API server."""

    def pages(self, resource: Resource, where: Where = ...) -> AsyncIterator[Page]:
        """A list."""

    def watch(
        self, resource: Resource, version: str, where: Where = ..., *, window: float = ...
    ) -> AsyncIterator[Event]:
        """The changes since a version."""


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait after the n-th failure in a row: seconds, doubled each time, jittered by half.

    Attributes:
        first: after the first one.
        most: never longer.
    """

    first: float = 0.2
    most: float = 30.0

    def delay(self, failures: int, chance: float) -> float:
        """The wait; `chance` is in [0, 1)."""
        return float(min(self.most, self.first * 2 ** min(failures - 1, 20)) * (0.5 + chance / 2))


class Reflector(Generic[T]):
    """The cache; `run` keeps it.

    Args:
        source: the API server.
        resource: the kind.
        convert: what is kept of an object: None for nothing.  An object that it refuses is logged and not kept.
        where: which objects.
        window: seconds that a watch lasts before it is renewed; one that is silent for longer is given up.
        backoff: how long to wait after failures.
        clock: seconds, monotonic.

    Attributes:
        trouble: why it is not in sync, in words; None while it is.
        out_of_sync_since: when it last heard of the server before that, by `clock`; None while it is in sync.
    """

    def __init__(
        self,
        source: Source,
        resource: Resource,
        convert: Callable[[Document], T | None],
        where: Where = EVERYTHING,
        *,
        window: float = 60.0,
        backoff: Backoff = Backoff(),  # noqa: B008  frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._resource = resource
        self._convert = convert
        self._where = where
        self._window = window
        self._backoff = backoff
        self._clock = clock
        self._objects: dict[Key, T] = {}
        self._subscribers: list[Callable[[frozenset[Key]], None]] = []
        self._waiters: dict[Key, set[asyncio.Future[None]]] = {}
        self._in_sync = asyncio.Event()
        self._lost_sync = asyncio.Event()
        self._lost_sync.set()
        self._listed = asyncio.Event()
        self._heard = clock()
        self._failures = 0
        self.trouble: str | None = f"{resource} are not listed yet"
        self.out_of_sync_since: float | None = self._heard

    # -- what it knows -------------------------------------------------------------------------------------------------

    @property
    def objects(self) -> Mapping[Key, T]:
        """All objects; a view, not a copy."""
        return MappingProxyType(self._objects)

    def get(self, key: Key) -> T | None:
        """One object, or None."""
        return self._objects.get(key)

    def on_change(self, call: Callable[[frozenset[Key]], None]) -> None:
        """Have `call` called with the keys whose objects came, changed or went."""
        self._subscribers.append(call)

    async def changed(self, key: Key) -> None:
        """Return when the object of this key comes, changes or goes."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, set()).add(future)
        try:
            await future
        finally:
            waiting = self._waiters.get(key, set())
            waiting.discard(future)
            if not waiting:
                self._waiters.pop(key, None)

    @property
    def is_listed(self) -> bool:
        """Whether everything has been listed once."""
        return self._listed.is_set()

    async def listed(self) -> None:
        """Return when everything has been listed once: before that a missing key means nothing."""
        await self._listed.wait()

    async def in_sync(self) -> None:
        """Return when the list is done and the changes are being followed."""
        await self._in_sync.wait()

    async def out_of_sync(self) -> None:
        """Return when the changes are not being followed."""
        await self._lost_sync.wait()

    # -- how it comes to know it ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the server for ever."""
        while True:
            try:
                version = await self._list()
                while True:
                    version = await self._follow(version)
            except ExpiredError as error:
                self._lost(error)
                if self._failures == 1:  # the server answers: the list need not wait
                    continue
            except (Retry, Refused) as error:
                self._lost(error)
            await asyncio.sleep(self._backoff.delay(self._failures, random.random()))  # noqa: S311  jitter, no secret

    async def _list(self) -> str:
        version = ""
        listed: dict[Key, T] = {}
        async for page in self._source.pages(self._resource, self._where):
            self._heard = self._clock()
            version = page.version
            for document in page.items:
                if (value := self._kept(document)) is not None:
                    listed[key_of(document)] = value
        before = self._objects
        self._objects = listed
        self._listed.set()
        self._tell(key for key in before.keys() | listed.keys() if before.get(key) != listed.get(key))
        # A list that no watch follows is old at once, but its objects are true, and who waits for them need not wait on.
        self._regained()
        return version

    async def _follow(self, version: str) -> str:
        """Take in changes until the watch ends; the version to go on from."""
        began = self._clock()
        quiet = True
        async for event in self._source.watch(self._resource, version, self._where, window=self._window):
            self._heard = self._clock()
            self._failures = 0
            quiet = False
            version = event.document["metadata"]["resourceVersion"]
            if event.change is not Change.BOOKMARK:
                self._take(event)
        self._heard = self._clock()
        if quiet and self._heard - began < self._window / 2:
            raise Retry(
                f"the watch of {self._resource} ended before its time", "look at what is between here and there"
            )
        self._failures = 0
        return version

    def _take(self, event: Event) -> None:
        key = key_of(event.document)
        before = self._objects.get(key)
        after = None if event.change is Change.DELETED else self._kept(event.document)
        if after is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = after
        if before != after:
            self._tell([key])

    def _kept(self, document: Document) -> T | None:
        try:
            return self._convert(document)
        except PodvifError as error:
            _log.warning("%s %s is left out: %s", self._resource, key_of(document), error)
            return None

    def _tell(self, keys: Iterable[Key]) -> None:
        told = frozenset(keys)
        if not told:
            return
        for key in told:
            for future in self._waiters.get(key, set()):
                if not future.done():
                    future.set_result(None)
        for call in self._subscribers:
            call(told)

    def _lost(self, error: PodvifError) -> None:
        self._failures += 1
        if self.out_of_sync_since is None or self._failures == 1:  # the first try may fail, and was never in sync
            self.out_of_sync_since = self.out_of_sync_since or self._heard
            _log.warning("%s are out of sync: %s", self._resource, error)
        self.trouble = str(error)
        self._in_sync.clear()
        self._lost_sync.set()

    def _regained(self) -> None:
        if self.trouble is not None:
            _log.info("%s are in sync: %d objects", self._resource, len(self._objects))
        self.trouble = self.out_of_sync_since = None
        self._in_sync.set()
        self._lost_sync.clear()
