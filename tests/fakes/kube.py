"""A Kubernetes API server in memory that behaves: versions, watches, preconditions, finalizers, field managers.

Law: it runs the same contract as the real one (tests/kube/test_contract.py).  It validates nothing: that is the CRD's job,
and the real server's.  Documents are copied on the way in and out, as over a wire.
"""

import asyncio
import copy
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from podvif.errors import Retry
from podvif.kube.client import EVERYTHING, Change, Event, ExpiredError, Outcome, Page
from podvif.kube.resources import PODS, Document, Key, Resource, Where, key_of

MAPS = {"interfaces": "name", "conditions": "type", "containers": "name"}
"""Lists that are maps, and what their key is called (x-kubernetes-list-type: map)."""

Path = tuple[Any, ...]


@dataclass
class _Stored:
    document: Document
    managed: dict[str, set[Path]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Written:
    version: int
    resource: Resource
    before: Document | None
    after: Document | None


class FakeKube:
    """One API server.

    Attributes:
        page: objects to a page of a list.
        before: called with the verb, the kind and the key before each request but watches; raise from it to make it fail.
        requests: verbs and kinds of all requests so far, `create pods`.
    """

    def __init__(self, *, page: int = 2) -> None:
        self.page = page
        self.before: Callable[[str, Resource, Key | None], None] = lambda *_: None
        self.requests: list[str] = []
        self._objects: dict[Resource, dict[Key, _Stored]] = {}
        self._version = 1000
        self._forgotten = 0
        self._log: list[_Written] = []
        self._news = asyncio.Event()
        self._away: str | None = None
        self._answers = asyncio.Event()
        self._answers.set()

    # -- what podvif asks for ------------------------------------------------------------------------------------------

    async def close(self) -> None:
        pass

    async def pages(self, resource: Resource, where: Where = EVERYTHING) -> AsyncIterator[Page]:
        await self._begin("list", resource)
        version = str(self._version)
        found = [copy.deepcopy(stored.document) for _, stored in sorted(self._of(resource).items())]
        matching = [document for document in found if _matches(document, where)]
        for start in range(0, max(1, len(matching)), self.page):
            yield Page(tuple(matching[start : start + self.page]), version)
            await self._begin("list", resource)

    async def watch(
        self, resource: Resource, version: str, where: Where = EVERYTHING, *, window: float = 60.0
    ) -> AsyncIterator[Event]:
        await self._reachable(f"watch {resource}")
        if int(version) < self._forgotten:
            raise ExpiredError(f"the version to watch from is forgotten: {version}")
        position = next((i for i, item in enumerate(self._log) if item.version > int(version)), len(self._log))
        deadline = asyncio.get_running_loop().time() + window
        while True:
            if self._away is not None:
                raise Retry(f"cannot watch {resource}: {self._away}")
            while position < len(self._log):
                written = self._log[position]
                position += 1
                if written.resource == resource and (event := _event(written, where)) is not None:
                    yield event
            news = self._news
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                return

    async def get(self, resource: Resource, key: Key) -> Document | None:
        await self._begin("get", resource, key)
        stored = self._of(resource).get(key)
        return copy.deepcopy(stored.document) if stored else None

    async def create(self, resource: Resource, document: Document, manager: str) -> Document | Outcome:
        key = key_of(document)
        await self._begin("create", resource, key)
        if key in self._of(resource):
            return Outcome.EXISTS
        stored = self._new(resource, key)
        body = {name: part for name, part in document.items() if name != "status"}
        return self._write(resource, key, stored, _merged(stored.document, _without_server_fields(body)))

    async def apply(
        self,
        resource: Resource,
        key: Key,
        document: Document,
        manager: str,
        *,
        status: bool = False,
        force: bool = True,
    ) -> Document | Outcome:
        await self._begin("apply", resource, key)
        stored = self._of(resource).get(key)
        if stored is None and status:
            return Outcome.MISSING
        if _is_another(resource, document, stored, status=status):
            return Outcome.CONFLICT
        stored = stored or self._new(resource, key)
        after = copy.deepcopy(stored.document)
        wanted = dict(_leaves(_of_part(resource, _without_server_fields(document), status=status)))
        for other, paths in stored.managed.items():
            if other != manager and (theirs := [p for p in paths & wanted.keys() if _at(after, p) != wanted[p]]):
                if not force:
                    return Outcome.CONFLICT
                stored.managed[other] = paths - set(theirs)
        owner = f"{manager} of the status" if status else manager
        others = set().union(*(paths for other, paths in stored.managed.items() if other != owner))
        for path in sorted(stored.managed.get(owner, set()) - wanted.keys() - others, key=_names_its_element):
            _remove(after, path)
        for path, value in wanted.items():
            _put(after, path, value)
        stored.managed[owner] = set(wanted)
        return self._write(resource, key, stored, after)

    async def merge(
        self, resource: Resource, key: Key, document: Document, manager: str, *, status: bool = False
    ) -> Document | Outcome:
        await self._begin("merge", resource, key)
        stored = self._of(resource).get(key)
        if stored is None:
            return Outcome.MISSING
        if _is_another(resource, document, stored, status=status):
            return Outcome.CONFLICT
        body = _of_part(resource, _without_server_fields(document), status=status)
        return self._write(resource, key, stored, _merged(stored.document, body))

    async def delete(self, resource: Resource, key: Key, *, uid: str = "", version: str = "") -> Outcome | None:
        await self._begin("delete", resource, key)
        stored = self._of(resource).get(key)
        if stored is None:
            return Outcome.MISSING
        metadata = stored.document["metadata"]
        if uid not in {"", metadata["uid"]} or version not in {"", metadata["resourceVersion"]}:
            return Outcome.CONFLICT
        after = copy.deepcopy(stored.document)
        after["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
        self._write(resource, key, stored, after)
        return None

    # -- what happens to it --------------------------------------------------------------------------------------------

    def lose(self, why: str = "connection refused") -> None:
        """It cannot be reached: open watches break."""
        self._away = why
        self._wake()

    def regain(self) -> None:
        """It can be reached again."""
        self._away = None

    def hang(self) -> None:
        """It takes requests and does not answer."""
        self._answers.clear()

    def resume(self) -> None:
        """It answers again, also what it has not answered yet."""
        self._answers.set()

    def forget(self) -> None:
        """All versions but the newest are forgotten, and open watches break."""
        self._forgotten = self._version
        self.lose()
        self.regain()

    def finish(self, resource: Resource, key: Key) -> None:
        """An object that is being deleted goes, as a pod does when its kubelet has stopped it."""
        stored = self._of(resource)[key]
        assert "deletionTimestamp" in stored.document["metadata"]
        self._gone(resource, key, stored.document)

    def objects(self, resource: Resource) -> dict[Key, Document]:
        """All objects of a kind, for a test to look at."""
        return {key: copy.deepcopy(stored.document) for key, stored in self._of(resource).items()}

    # -- its inside ----------------------------------------------------------------------------------------------------

    def _of(self, resource: Resource) -> dict[Key, _Stored]:
        return self._objects.setdefault(resource, {})

    async def _begin(self, verb: str, resource: Resource, key: Key | None = None) -> None:
        self.requests.append(f"{verb} {resource}")
        await self._reachable(f"{verb} {resource}")
        self.before(verb, resource, key)

    async def _reachable(self, what: str) -> None:
        if self._away is not None:
            raise Retry(f"cannot {what}: {self._away}")
        await self._answers.wait()

    def _new(self, resource: Resource, key: Key) -> _Stored:
        metadata: Document = {"name": key.name, "uid": f"{secrets.token_hex(4)}-0000-4000-8000-{secrets.token_hex(6)}"}
        metadata |= {"namespace": key.namespace} if key.namespace else {}
        metadata |= {"generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
        return _Stored({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata})

    def _write(self, resource: Resource, key: Key, stored: _Stored, after: Document) -> Document:
        before = stored.document if key in self._of(resource) else None
        if before == after:
            return copy.deepcopy(after)
        metadata = after["metadata"]
        if before is not None and before.get("spec") != after.get("spec"):
            metadata["generation"] += 1
        if "deletionTimestamp" in metadata and not metadata.get("finalizers") and not _stays(resource, after):
            self._gone(resource, key, before)
            return copy.deepcopy(after)
        self._log_write(resource, before, after)
        stored.document = after
        self._of(resource)[key] = stored
        return copy.deepcopy(after)

    def _gone(self, resource: Resource, key: Key, before: Document | None) -> None:
        self._log_write(resource, before, None)
        del self._of(resource)[key]

    def _log_write(self, resource: Resource, before: Document | None, after: Document | None) -> None:
        self._version += 1
        if after is not None:
            after["metadata"]["resourceVersion"] = str(self._version)
        self._log.append(_Written(self._version, resource, copy.deepcopy(before), copy.deepcopy(after)))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _stays(resource: Resource, document: Document) -> bool:
    """A pod that was scheduled goes when its kubelet says so."""
    return resource == PODS and bool(document.get("spec", {}).get("nodeName"))


def _event(written: _Written, where: Where) -> Event | None:
    """What a watch with a selector makes of a write: who leaves it is deleted, who enters it is added."""
    before = written.before is not None and _matches(written.before, where)
    after = written.after is not None and _matches(written.after, where)
    if after and written.after is not None:
        return Event(Change.MODIFIED if before else Change.ADDED, copy.deepcopy(written.after))
    if before and written.before is not None:
        gone = copy.deepcopy(written.before)
        gone["metadata"]["resourceVersion"] = str(written.version)
        return Event(Change.DELETED, gone)
    return None


def _matches(document: Document, where: Where) -> bool:
    metadata = document["metadata"]
    if where.namespace not in {"", metadata.get("namespace", "")}:
        return False
    labels = metadata.get("labels") or {}
    if not all(labels.get(name) == value for name, value in _pairs(where.labels)):
        return False
    return all(str(_at(document, tuple(name.split("."))) or "") == value for name, value in _pairs(where.fields))


def _pairs(selector: str) -> Iterator[tuple[str, str]]:
    for term in filter(None, selector.split(",")):
        name, _, value = term.partition("=")
        yield name, value


def _is_another(resource: Resource, document: Document, stored: _Stored | None, *, status: bool) -> bool:
    """Whether the object is not the one, or not of the version, that a request names; a custom status looks at no uid."""
    given = document.get("metadata", {})
    guarded = resource.builtin or not status
    assert guarded or "uid" not in given or "resourceVersion" in given, "metadata.uid guards no status"
    there = stored.document["metadata"] if stored else {}
    names = ("resourceVersion", "uid") if guarded else ("resourceVersion",)
    return any(given.get(name, there.get(name)) != there.get(name) for name in names)


def _without_server_fields(document: Document) -> Document:
    body = copy.deepcopy(document)
    for name in ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp"):
        body.get("metadata", {}).pop(name, None)
    return body


def _of_part(resource: Resource, document: Document, *, status: bool) -> Document:
    """What a request may change: the status by its subresource, the rest without it."""
    part = {name: part for name, part in document.items() if (name == "status") == status}
    if status and resource.builtin and "annotations" in document.get("metadata", {}):
        part["metadata"] = {"annotations": document["metadata"]["annotations"]}
    return part


def _merged(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that has no fields of its own; elements of map-lists are fields called by their key."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, (*path, name))
    elif isinstance(value, list | tuple) and value and path[-1] in MAPS:
        for item in value:
            yield from _leaves(item, (*path, (MAPS[path[-1]], item[MAPS[path[-1]]])))
    else:
        yield path, value


def _names_its_element(path: Path) -> bool:
    """Whether it is the key of a map-list's element, by which its other fields are found."""
    return len(path) > 1 and isinstance(path[-2], tuple) and path[-2][0] == path[-1]


def _step(container: Any, step: Any) -> Any:
    if isinstance(step, tuple):
        return next((item for item in container if item.get(step[0]) == step[1]), None)
    return container.get(step)


def _at(document: Any, path: Path) -> Any:
    for step in path:
        if document is None:
            return None
        document = _step(document, step)
    return document


def _put(document: Any, path: Path, value: Any) -> None:
    for step, following in itertools.pairwise(path):
        part = _step(document, step)
        if part is None:
            part = [] if isinstance(following, tuple) else {}
            if isinstance(step, tuple):
                document.append(part)
            else:
                document[step] = part
        document = part
    document[path[-1]] = copy.deepcopy(value)


def _remove(document: Any, path: Path) -> None:
    """Remove a field, and what is empty without it."""
    for length in range(len(path), 0, -1):
        parent, step = _at(document, path[: length - 1]), path[length - 1]
        if parent is None:
            continue
        if isinstance(step, tuple):
            parent[:] = [item for item in parent if item and item.get(step[0]) != step[1]]
        else:
            parent.pop(step, None)
        if parent:
            return
