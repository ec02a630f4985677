"""One API server: the requests that podvif makes of it.

Law: whatever the library or the network does comes out of here as `Retry`, `Refused` or an `Outcome`; no request lasts longer
than its deadline, and no watch is longer silent than its window and that deadline.  lightkube gives the configuration, the
credentials and the connection; paths and answers are dealt with here.  Its watch splits lines at every line end of Unicode,
which JSON texts may have in them, asks for no bookmarks, and lets a refused connection through its own error handling.
"""

import asyncio
import contextlib
import enum
import logging
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import msgspec
import yaml
from lightkube import ConfigError, KubeConfig
from lightkube.config.client_adapter import AsyncClient, ConnectionParams

from podvif.errors import Bug, Refused, Retry
from podvif.kube.resources import Document, Key, Resource, Where

EVERYTHING = Where()

SECONDS = 10.0
"""How long a request may take in all."""

PAGE = 500
"""Objects to a page of a list, as client-go has it."""


class Outcome(enum.Enum):
    """What a request comes to that is neither done nor an error: the object is not as the caller thinks."""

    MISSING = "missing"
    """There is no such object."""
    EXISTS = "exists"
    """There is one of that name already."""
    CONFLICT = "conflict"
    """It is another one, or of another version, or another manager owns the field."""


class ExpiredError(Retry):
    """The version to go on from is forgotten (410 Gone): list again."""


class UnknownError(Retry):
    """The server does not know who asks (401): the token has run out, or its account is gone."""


class Page(msgspec.Struct, frozen=True):
    """A part of a list; `version` is the list's, which a watch goes on from."""

    items: tuple[Document, ...]
    version: str


class Change(enum.Enum):
    """What a watch says of an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    """Nothing but a newer version to go on from."""


class Event(msgspec.Struct, frozen=True):
    """One line of a watch."""

    change: Change
    document: Document


class _Request(msgspec.Struct, frozen=True):
    """One request; `what` is what it is in a message."""

    what: str
    method: str
    path: str
    params: dict[str, str] = {}
    body: Document | None = None
    kind: str = "application/json"


class _Line(msgspec.Struct):
    type: str
    object: dict[str, Any]


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    more: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: tuple[dict[str, Any], ...] = ()


class _Cause(msgspec.Struct):
    field: str = ""


class _Details(msgspec.Struct):
    name: str = ""
    causes: tuple[_Cause, ...] = ()


class _Status(msgspec.Struct):
    """metav1.Status, which the server answers in place of an object."""

    message: str = ""
    reason: str = ""
    details: _Details = msgspec.field(default_factory=_Details)


class Kube:
    """An API server; close it in the end.

    Args:
        kubeconfig: path of a kubeconfig file, whose current context is used.  Empty: the pod's service account if there is
            one, else what KUBECONFIG names, else ~/.kube/config.
        seconds: deadline of a request; a watch may be silent for so much longer than its window.

    Raises:
        Refused: there is no usable configuration.
    """

    def __init__(self, kubeconfig: str = "", *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would have a line for each request
        try:
            # The library reads the file as it comes: what is no kubeconfig shows as whatever Python then says.
            config = KubeConfig.from_file(kubeconfig) if kubeconfig else KubeConfig.from_env()
            single = config.get()
            if single is None:
                raise ConfigError("it has no current context")  # noqa: TRY301  one way out for all its faults
            self.server = single.cluster.server
            self._http = AsyncClient(single, ConnectionParams(timeout=httpx2.Timeout(seconds)))
        except (ConfigError, OSError, LookupError, AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
            raise Refused(
                f"the configuration for the Kubernetes API {kubeconfig or 'of the environment'} cannot be used: {error}",
                "set [kubernetes] kubeconfig to a kubeconfig file, or run in a pod with a service account",
            ) from error

    async def close(self) -> None:
        """End all connections."""
        await self._http.aclose()

    async def pages(self, resource: Resource, where: Where = EVERYTHING) -> AsyncIterator[Page]:
        """List objects, page by page: all pages are of one version.

        Raises:
            ExpiredError: the list took so long that its version is forgotten: begin again.
            Retry: the server cannot be asked now, or does not serve the kind.
            Refused: it forbids it.
        """
        what = f"list {resource}"
        params = _selectors(where) | {"limit": str(PAGE)}
        while True:
            answer = await self._send(_Request(what, "GET", _path(resource, where.namespace), params))
            with _translated(what, self.server):
                read = msgspec.json.decode(_checked(answer), type=_List)
            yield Page(read.items, read.metadata.resource_version)
            if not read.metadata.more:
                return
            params["continue"] = read.metadata.more

    async def watch(
        self, resource: Resource, version: str, where: Where = EVERYTHING, *, window: float = 60.0
    ) -> AsyncIterator[Event]:
        """What has changed since a version, as it comes; ends quietly after `window` seconds.

        Raises:
            ExpiredError: the version is forgotten.
            Retry: the stream broke, or was silent for too long.
            Refused: it is forbidden.
        """
        params = _selectors(where) | {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",  # else a rare event's version is forgotten long before the next one
            "timeoutSeconds": str(max(1, int(window))),
        }
        timeout = httpx2.Timeout(self._seconds, read=window + self._seconds)  # the server ends it
        what = f"watch {resource}"
        with _translated(what, self.server):
            request = self._http.build_request("GET", _path(resource, where.namespace), params=params, timeout=timeout)
            async with asyncio.timeout(self._seconds):
                answer = await self._http.send(request, stream=True)
            try:
                if answer.is_error:
                    await answer.aread()
                    _checked(answer)
                async for line in _lines(answer.aiter_bytes()):
                    yield _event(line)
            finally:
                await answer.aclose()

    async def get(self, resource: Resource, key: Key) -> Document | None:
        """One object, or None."""
        found = await self._ask(_Request(f"get {resource} {key}", "GET", _path(resource, key.namespace, key)))
        return None if isinstance(found, Outcome) else found

    async def create(self, resource: Resource, document: Document, manager: str) -> Document | Outcome:
        """Make an object; EXISTS when there is one, MISSING when its namespace is not there.

        Args:
            resource: the kind.
            document: with metadata.name, and metadata.namespace if the kind has one.
            manager: field manager.
        """
        key = Key(document["metadata"].get("namespace", ""), document["metadata"]["name"])
        what = f"create {resource} {key}"
        path, params = _path(resource, key.namespace), {"fieldManager": manager}
        made = await self._ask(_Request(what, "POST", path, params, _typed(resource, document)))
        if made is Outcome.CONFLICT:  # of something else that the admission counts, a quota
            raise Retry(f"cannot {what}: another request was faster", "it is tried again")
        return made

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
        """Server-side apply: these fields, and no other, are what `manager` says of the object.

        An object that is not there is made, unless metadata.uid says which one is meant (CONFLICT) or `status` (MISSING).

        Args:
            resource: the kind.
            key: the object.
            document: the fields; metadata.resourceVersion in them is a precondition (CONFLICT).
            manager: field manager; what it applied before and leaves out now goes.
            status: by the status subresource, which does not look at metadata.uid.
            force: take fields over from other managers; else their ownership is a CONFLICT.
        """
        _check_precondition(resource, document, status=status)
        path = _path(resource, key.namespace, key, status=status)
        params = {"fieldManager": manager, "force": str(force).lower()}
        named = {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
        body = _typed(resource, document) | {"metadata": {**document.get("metadata", {}), **named}}
        kind = "application/apply-patch+yaml"
        return await self._ask(_Request(f"apply {resource} {key}", "PATCH", path, params, body, kind))

    async def merge(
        self, resource: Resource, key: Key, document: Document, manager: str, *, status: bool = False
    ) -> Document | Outcome:
        """JSON merge patch; metadata.resourceVersion and metadata.uid in it are preconditions (CONFLICT).

        The status of a custom resource looks at no uid.
        """
        _check_precondition(resource, document, status=status)
        path = _path(resource, key.namespace, key, status=status)
        kind = "application/merge-patch+json"
        params = {"fieldManager": manager}
        return await self._ask(_Request(f"patch {resource} {key}", "PATCH", path, params, document, kind))

    async def delete(self, resource: Resource, key: Key, *, uid: str = "", version: str = "") -> Outcome | None:
        """Delete an object; it is gone, or goes when its finalizers have.

        Args:
            resource: the kind.
            key: the object.
            uid: only the object that has it, else CONFLICT.
            version: only while it has this resourceVersion, else CONFLICT.
        """
        conditions = {name: value for name, value in {"uid": uid, "resourceVersion": version}.items() if value}
        body: Document = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": conditions,
        }
        path = _path(resource, key.namespace, key)
        done = await self._ask(_Request(f"delete {resource} {key}", "DELETE", path, body=body))
        return done if isinstance(done, Outcome) else None

    async def _ask(self, request: _Request) -> Document | Outcome:
        answer = await self._send(request)
        if answer.is_error and (outcome := _outcome(answer)) is not None:
            return outcome
        with _translated(request.what, self.server):
            return msgspec.json.decode(_checked(answer), type=dict[str, Any])

    async def _send(self, request: _Request) -> httpx2.Response:
        content = None if request.body is None else msgspec.json.encode(request.body)
        headers = {} if request.body is None else {"Content-Type": request.kind}
        with _translated(request.what, self.server):
            async with asyncio.timeout(self._seconds):
                return await self._http.request(
                    request.method, request.path, params=request.params, content=content, headers=headers
                )


def _checked(answer: httpx2.Response) -> bytes:
    answer.raise_for_status()
    return answer.content


def _path(resource: Resource, namespace: str, key: Key | None = None, *, status: bool = False) -> str:
    parts = ["apis", resource.group] if resource.group else ["api"]
    parts.append(resource.version)
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(resource.plural)
    if key is not None:
        parts.append(key.name)
    if status:
        parts.append("status")
    # A name may come from a pod's annotation: it must not lead to another path.
    if any(part in {"", ".", ".."} for part in parts):
        raise Refused(f"{resource} {key or namespace}: no object can be called that", "correct the name")
    return "/".join(urllib.parse.quote(part, safe="") for part in parts)


def _check_precondition(resource: Resource, document: Document, *, status: bool) -> None:
    metadata = document.get("metadata", {})
    if status and not resource.builtin and "uid" in metadata and "resourceVersion" not in metadata:
        raise Bug(
            "the status subresource does not look at metadata.uid: the status would reach another object of that name",
            "give metadata.resourceVersion as well",
        )


def _selectors(where: Where) -> dict[str, str]:
    selectors = {"labelSelector": where.labels, "fieldSelector": where.fields}
    return {name: selector for name, selector in selectors.items() if selector}


def _typed(resource: Resource, document: Document) -> Document:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **document}


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream; what is left of one when the stream ends was cut off and does not count."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


def _event(line: bytes) -> Event:
    read = msgspec.json.decode(line, type=_Line)
    if read.type != "ERROR":
        return Event(Change(read.type), read.object)
    status = msgspec.convert(read.object, _Status)
    if read.object.get("code") == 410:
        raise ExpiredError(f"the version to watch from is forgotten: {status.message}", "it is listed again")
    raise Retry(f"the watch ended: {status.message}", "it is begun again")


def _status(answer: httpx2.Response) -> _Status:
    """The server's own words, whatever answered."""
    try:
        return msgspec.json.decode(answer.content, type=_Status)
    except msgspec.DecodeError:
        return _Status(answer.text.strip()[:200])


def _outcome(answer: httpx2.Response) -> Outcome | None:
    status = _status(answer)
    match answer.status_code, status.reason:
        case 404, _ if status.details.name:  # else it is the kind that is not there
            return Outcome.MISSING
        case 409, "AlreadyExists":
            return Outcome.EXISTS
        case 409, _:
            return Outcome.CONFLICT
        case 422, _ if any(cause.field == "metadata.uid" for cause in status.details.causes):
            return Outcome.CONFLICT  # how the server says that the object is another one than was meant
    return None


@contextlib.contextmanager
def _translated(what: str, server: str) -> Iterator[None]:
    """The door: whatever the library raises becomes ours."""
    try:
        yield
    except httpx2.HTTPStatusError as error:
        raise _of_status(what, server, error.response) from error
    except ConfigError as error:
        raise Refused(f"cannot {what} at {server}: {error}", "look at the credentials of the kubeconfig") from error
    except msgspec.DecodeError as error:
        raise Retry(f"cannot {what}: {server} answered what is no JSON: {error}", "look what answers there") from error
    except TimeoutError as error:
        raise Retry(
            f"cannot {what}: {server} does not answer in time", "look at the API server and at the way to it"
        ) from error
    except (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError, OSError) as error:
        words = str(error) or type(error).__name__
        raise Retry(f"cannot {what}: {server}: {words}", "look at the API server and at the way to it") from error


def _of_status(what: str, server: str, answer: httpx2.Response) -> Retry | Refused:
    message = f"cannot {what} at {server}: {_status(answer).message} ({answer.status_code})"
    match answer.status_code:
        case 410:
            return ExpiredError(message, "it is listed again")
        case 401:
            return UnknownError(message, "look at the credentials: the token may have run out")
        case 403:
            return Refused(message, "give the service account that right, as deploy/ has it")
        case 404:
            return Retry(message, "see that the kind's CRD is installed and its namespace is there")
        case 400 | 405 | 413 | 415 | 422:
            return Refused(message, "look at the object: the API server's own words say what is wrong")
    return Retry(message, "the API server is busy or not ready: it is tried again")
