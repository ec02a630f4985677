"""Neutron, asked in a few worker threads: ports made once, however often they are asked for.

Law: two equal requests at a time are one, and a port whose answer was lost is looked for, and not asked for again before Neutron
has had the time to finish it.  Nothing else is looked for before it is made, since that would cost each port a second request:
who may have asked for it in an earlier life lists the device's ports first.  keystoneauth's exceptions end here: what comes
out is Retry or Refused with the server's own words.
"""

import asyncio
import datetime as dt
import functools
import ipaddress
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import requests
from keystoneauth1 import exceptions as ksa
from urllib3 import exceptions as urllib3

from podvif.errors import Bug, Refused, Retry
from podvif.model import NeutronNetwork, NeutronPort, NeutronSubnet, PortRequest
from podvif.neutron import documents
from podvif.neutron.access import Access
from podvif.neutron.documents import Answer, Document

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

SETTLE = 10.0
"""Seconds after a lost answer in which Neutron may still be making the port; it takes less than one when it is well."""

PAGE = 500
"""Ports a page; Neutron needs about 0.7 ms for each."""

_TAGS_IN_POST = "tag-ports-during-bulk-creation"
_BINDING = "binding"


class Neutron:
    """One Neutron; every method belongs to the event loop's thread.

    Args:
        access: where it is.
        clock: seconds, for life times.
        now: seconds since the epoch, for people.
        settle: seconds that a request without an answer is waited for.
    """

    def __init__(
        self,
        access: Access,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        settle: float = SETTLE,
    ) -> None:
        self.device_owner = access.device_owner
        self._access = access
        self._clock = clock
        self._now = now
        self._settle = settle
        self._threads = ThreadPoolExecutor(access.concurrency, thread_name_prefix="neutron")
        self._facts: dict[tuple[str, str], tuple[float, asyncio.Future[Any]]] = {}
        self._creating: dict[PortRequest, asyncio.Future[NeutronPort]] = {}
        self._unanswered: dict[PortRequest, float] = {}
        self._unreachable_since: float | None = None
        self._trouble: str | None = None
        self._may_tag = True

    async def close(self) -> None:
        """Let go of the threads and the connections; what is under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def trouble(self) -> str | None:
        """Since when and why Neutron cannot be asked, as the last request found it; None when it answered."""
        return self._trouble

    # -- ports ---------------------------------------------------------------------------------------------------------

    async def ports_of(self, device_id: str) -> tuple[NeutronPort, ...]:
        """Our ports of one device, in order of their ids.

        Raises:
            Retry, Refused: as every method here.
        """
        about = f"the ports of device {device_id} cannot be listed"
        return await self._list_ports(about, {"device_id": device_id, "device_owner": self.device_owner})

    async def our_ports(self, tag: str) -> tuple[NeutronPort, ...]:
        """All ports with our device_owner and this tag, those of other users of the same device_owner left out."""
        ports = await self._list_ports("our ports cannot be listed", {"device_owner": self.device_owner})
        return tuple(port for port in ports if tag in port.tags)

    async def port(self, port_id: str) -> NeutronPort | None:
        """One port; None when there is none of that id."""
        try:
            answer = await self._call("GET", f"/ports/{port_id}", f"port {port_id} cannot be read")
        except _AnsweredError as error:
            if error.answer.status == HTTPStatus.NOT_FOUND:
                return None
            raise error.judged() from error
        return documents.parse_port(answer["port"])

    async def create_port(self, request: PortRequest) -> NeutronPort:
        """The port that was asked for: made now, or found where the answer to this client's last request for it was lost.

        It may be unbound, or bound in vain: Neutron says so and does not call it an error.
        A caller that is cancelled takes nothing back: the request goes on, and the next caller joins it.

        Args:
            request: what is asked for; that no former client has made it, the caller knows (`ports_of`).

        Raises:
            Retry: Neutron cannot be asked, an earlier request may still be under way, or something is used up.
            Refused: Neutron will not make such a port, or it could not be found again by its tags.
            Bug: it is of another device_owner.
        """
        if why := documents.why_not_marks(request):
            raise Refused(f"port {request.name} could not be found again: {why}", "mend the tags that are configured")
        if request.device_owner != self.device_owner:
            raise Bug(f"port {request.name} has device_owner {request.device_owner}, not {self.device_owner}")
        running = self._creating.get(request)
        if running is None:
            running = self._creating[request] = asyncio.ensure_future(self._create(request))
            running.add_done_callback(functools.partial(self._created, request))
        return await asyncio.shield(running)

    async def delete_port(self, port_id: str) -> None:
        """Delete a port; one that is gone is fine."""
        try:
            await self._call("DELETE", f"/ports/{port_id}", f"port {port_id} cannot be deleted")
        except _AnsweredError as error:
            if error.answer.status != HTTPStatus.NOT_FOUND:
                raise error.judged() from error

    async def bind_port(self, port_id: str, host_id: str) -> NeutronPort:
        """Bind a port to a host, again if that failed before; the answer may say that it has failed once more."""
        about = f"port {port_id} cannot be bound to {host_id}"
        answer = await self._asked("PUT", f"/ports/{port_id}", about, body={"port": {"binding:host_id": host_id}})
        return documents.parse_port(answer["port"])

    async def _list_ports(self, about: str, filters: Mapping[str, str]) -> tuple[NeutronPort, ...]:
        ports: dict[str, NeutronPort] = {}
        marker: dict[str, str] = {}
        while True:
            page = {"limit": PAGE, "sort_key": "id", "sort_dir": "asc"}
            answer = await self._asked("GET", "/ports", about, query={**filters, **page, **marker})
            found = [documents.parse_port(document) for document in answer["ports"]]
            ports |= {port.id: port for port in found}
            # A server may have a page size of its own, smaller than ours: the link says whether there is more.
            more = any(link.get("rel") == "next" for link in answer.get("ports_links") or ())
            if not found or not more:
                return tuple(ports.values())
            marker = {"marker": found[-1].id}

    async def _create(self, request: PortRequest) -> NeutronPort:
        if request in self._unanswered and (found := await self._made(request)):
            return found
        waits_until = self._unanswered.get(request, 0.0)
        if self._clock() < waits_until:
            raise Retry(
                f"port {request.name}: Neutron's answer was lost, and what it was asked for may still come",
                f"it is looked for again, and after {waits_until - self._clock():.0f} s made anew",
            )
        self._unanswered.pop(request, None)
        fixed_ips = await self._fixed_ips(request)
        tags = self._may_tag and _TAGS_IN_POST in await self.extensions()
        about = f"port {request.name} cannot be created"
        try:
            answer = await self._call(
                "POST", "/ports", about, body=documents.render_port(request, fixed_ips, tags=tags)
            )
        except _NoAnswer as error:
            if error.sent:
                self._unanswered[request] = self._clock() + self._settle
            raise
        except _AnsweredError as error:
            if tags and error.answer.status == HTTPStatus.FORBIDDEN and ":tags" in error.answer.words:
                # Neutron's defaults let `member` tag a port, and `service` not: our marks stand in the description as well.
                _LOG.warning("ports are made without tags: %s", error.answer.words)
                self._may_tag = False
                return await self._create(request)
            # It may be our own port that has the address: made by a request whose answer was lost.
            if error.answer.type in documents.IN_USE and (found := await self._made(request)):
                return found
            raise error.judged() from error
        if "binding:vif_type" not in answer["port"]:
            await self.delete_port(answer["port"]["id"])
            raise Refused(f"{about}: {_UNREADABLE}", _ROLE)
        return documents.parse_port(answer["port"])

    def _created(self, request: PortRequest, done: "asyncio.Future[NeutronPort]") -> None:
        del self._creating[request]
        _heard(done)

    async def _made(self, request: PortRequest) -> NeutronPort | None:
        found = [port for port in await self.ports_of(request.device_id) if documents.is_it(port, request)]
        if found:
            self._unanswered.pop(request, None)
        return found[0] if found else None

    async def _fixed_ips(self, request: PortRequest) -> Sequence[Document]:
        """Each address in the subnet that it belongs to, and an address of Neutron's choice in every other subnet."""
        if not request.subnet_ids:
            return [{"ip_address": ip} for ip in request.ips]
        subnets = [await self.subnet(subnet) for subnet in request.subnet_ids]
        homes = {ip: _home(ip, subnets) for ip in request.ips}
        for ip, home in homes.items():
            if home is None:
                ranges = ", ".join(subnet.cidr for subnet in subnets)
                raise Refused(
                    f"port {request.name}: address {ip} is not in {ranges}", "ask for an address of the subnet"
                )
        fixed: list[Document] = [{"subnet_id": home, "ip_address": ip} for ip, home in homes.items()]
        return [*fixed, *({"subnet_id": subnet.id} for subnet in subnets if subnet.id not in homes.values())]

    # -- facts ---------------------------------------------------------------------------------------------------------

    async def subnet(self, subnet_id: str) -> NeutronSubnet:
        """A subnet's facts, believed for `facts_lifetime` seconds.

        Raises:
            Refused: there is no such subnet.
        """
        return await self._fact("subnet", subnet_id, documents.parse_subnet)

    async def network(self, network_id: str) -> NeutronNetwork:
        """A network's facts, believed for `facts_lifetime` seconds.

        Raises:
            Refused: there is no such network.
        """
        return await self._fact("network", network_id, documents.parse_network)

    async def extensions(self) -> frozenset[str]:
        """Aliases of what this Neutron can do beyond the core."""

        async def read() -> frozenset[str]:
            answer = await self._asked("GET", "/extensions", "Neutron's extensions cannot be listed")
            return frozenset(extension["alias"] for extension in answer["extensions"])

        return await self._cached(("extensions", ""), read)

    async def find_subnet(self, name_or_id: str) -> NeutronSubnet:
        """The one subnet of that id or name.

        Raises:
            Refused: there is none, or more than one.
        """
        return await self.subnet(await self._find("subnet", name_or_id, None))

    async def find_network(self, name_or_id: str) -> NeutronNetwork:
        """The one network of that id or name.

        Raises:
            Refused: there is none, or more than one.
        """
        return await self.network(await self._find("network", name_or_id, None))

    async def find_security_group(self, name_or_id: str, project_id: str | None = None) -> str:
        """UUID of the one security group of that id or name; each project has one that is called `default`.

        Raises:
            Refused: there is none, or more than one.
        """
        return await self._find("security-group", name_or_id, project_id)

    async def _find(self, kind: str, name_or_id: str, project_id: str | None) -> str:
        collection = f"/{kind}s"
        word = kind.replace("-", " ")
        about = f"{word} {name_or_id} cannot be looked for"
        whose = {"project_id": project_id} if project_id else {}
        for key in ("id", "name") if _is_uuid(name_or_id) else ("name",):
            answer = await self._asked("GET", collection, about, query={key: name_or_id, "fields": "id", **whose})
            match [document["id"] for document in answer[kind.replace("-", "_") + "s"]]:
                case []:
                    continue
                case [one]:
                    return str(one)
                case several:
                    raise Refused(
                        f"{len(several)} {word}s are called {name_or_id}: {', '.join(several)}", "name one by its id"
                    )
        raise Refused(f"{word} {name_or_id} not found", f"name a {word} that exists and that the credentials may see")

    async def _fact(self, kind: str, name: str, parse: Callable[[Document], _T]) -> _T:
        async def read() -> _T:
            try:
                answer = await self._call("GET", f"/{kind}s/{name}", f"{kind} {name} cannot be read")
            except _AnsweredError as error:
                if error.answer.status == HTTPStatus.NOT_FOUND:
                    hint = f"name a {kind} that exists and that the credentials may see"
                    raise Refused(f"{kind} {name} not found", hint) from error
                raise error.judged() from error
            return parse(answer[kind])

        return await self._cached((kind, name), read)

    async def _cached(self, key: tuple[str, str], read: Callable[[], Awaitable[_T]]) -> _T:
        """A fact that is young enough; those who ask for it while it is being read wait for the same answer."""
        until, known = self._facts.get(key, (0.0, None))
        if known is None or (known.done() and (self._clock() >= until or known.cancelled() or known.exception())):
            known = asyncio.ensure_future(read())
            known.add_done_callback(_heard)
            self._facts[key] = (self._clock() + self._access.facts_lifetime, known)
        return await asyncio.shield(known)

    # -- may we --------------------------------------------------------------------------------------------------------

    async def why_not_allowed(self, network_id: str = "") -> str | None:
        """What the credentials lack for what the controller does, one sentence; None when nothing is missing.

        Nothing is made: a port is asked for in a subnet that does not exist, and Neutron's policy speaks before Neutron finds
        that out.  Policy may depend on whose the network is: `network_id` should be the one that pods use, any by default.

        Raises:
            Retry: Neutron cannot be asked.
        """
        try:
            if _BINDING not in await self.extensions():
                return "Neutron has no port binding (extension binding): its core plug-in cannot tell a port's vif_type"
            network = network_id or await self._any_network()
            if network is None:
                return "the credentials see no network: create one, share it with their project, or give them the role `service`"
            for extra, what in (({}, "create ports"), ({"binding:host_id": "podvif"}, "set binding:host_id")):
                if words := await self._why_not_create(network, extra):
                    return f"the credentials may not {what}: {words}; {_ROLE}"
            answer = await self._asked("GET", "/ports", "ports cannot be listed", query={"limit": 1})
        except Refused as error:
            return f"{error.message}; {error.remedy}"
        unreadable = [port["id"] for port in answer["ports"] if "binding:vif_type" not in port]
        return f"{_UNREADABLE}; {_ROLE}" if unreadable else None

    async def _any_network(self) -> str | None:
        answer = await self._asked("GET", "/networks", "networks cannot be listed", query={"limit": 1, "fields": "id"})
        return next((str(network["id"]) for network in answer["networks"]), None)

    async def _why_not_create(self, network_id: str, extra: Document) -> str | None:
        nowhere = {
            "network_id": network_id,
            "device_owner": self.device_owner,
            "fixed_ips": [{"subnet_id": str(uuid.uuid4())}],
            **extra,
        }
        about = "the credentials cannot be tried"
        try:
            await self._call("POST", "/ports", about, body={"port": nowhere})
        except _AnsweredError as error:
            if error.answer.status == HTTPStatus.FORBIDDEN:
                return error.answer.words
            if error.answer.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:
                raise error.judged() from error
        return None

    # -- the wire ------------------------------------------------------------------------------------------------------

    async def _asked(
        self,
        method: str,
        path: str,
        about: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Document | None = None,
    ) -> Document:
        """As `_call`, with an answer that says no already judged."""
        try:
            return await self._call(method, path, about, query=query, body=body)
        except _AnsweredError as error:
            raise error.judged() from error

    async def _call(
        self,
        method: str,
        path: str,
        about: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Document | None = None,
    ) -> Document:
        """One request; its answer's document.

        Raises:
            _AnsweredError: Neutron said no.
            _NoAnswer: there was no answer.
        """
        loop = asyncio.get_running_loop()
        call = functools.partial(self._request, method, path, query, body)
        try:
            status, text = await loop.run_in_executor(self._threads, call)
        except ksa.ConnectFailure as error:
            raise self._lost(about, error) from error
        except ksa.HttpError as error:  # ours do not raise: this is the identity service's
            raise _identity(about, error) from error
        except (ksa.ClientException, requests.RequestException) as error:
            raise Refused(f"{about}: {_line(error)}", "mend [neutron]: endpoint, region and credentials") from error
        self._unreachable_since = self._trouble = None
        if status >= HTTPStatus.BAD_REQUEST:
            raise _AnsweredError(documents.parse_failure(status, text), about)
        if not text:
            return {}
        try:
            document = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise Refused(
                f"{about}: what answers is not Neutron: {text[:80]!r}", "mend endpoint_override in [neutron]"
            ) from error
        return dict(document)

    def _request(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: Document | None
    ) -> tuple[int, str]:
        """In a worker thread."""
        adapter = self._access.adapter
        endpoint = str(adapter.get_endpoint() or "").rstrip("/")
        if not endpoint:
            raise ksa.EndpointNotFound("the catalogue has no endpoint of the service network")
        answer = adapter.session.request(
            endpoint.removesuffix("/v2.0") + "/v2.0" + path,
            method,
            params=dict(query) if query else None,
            json=body,
            auth=adapter.auth,
            headers={"Accept": "application/json"},
            user_agent="podvif",
            timeout=self._access.request_timeout,
            raise_exc=False,
            # keystoneauth would send a request again whose connection broke after it was sent: a second port.
            connect_retries=0,
            status_code_retries=0,
        )
        return answer.status_code, answer.text

    def _lost(self, about: str, error: ksa.ConnectFailure) -> "_NoAnswer":
        since = self._unreachable_since = self._unreachable_since or self._now()
        text = dt.datetime.fromtimestamp(since, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._trouble = f"Neutron unreachable since {text}: {_innermost(error)}"
        return _NoAnswer(f"{about}: {self._trouble}", sent=_was_sent(error))


_UNREADABLE = "the credentials may not read binding:vif_type and binding:vif_details of ports"
_ROLE = "give them the role `service` (or `admin`)"


class _NoAnswer(Retry):
    """Neutron did not answer; `sent` says whether it may have got the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message, "see that Neutron's API runs and can be reached")
        self.sent = sent


class _AnsweredError(Exception):
    """Neutron said no; not for outside of this module."""

    def __init__(self, answer: Answer, about: str) -> None:
        super().__init__(about, answer)
        self.answer = answer
        self._about = about

    def judged(self) -> Retry | Refused:
        return documents.judge(self.answer, self._about)


def _was_sent(error: ksa.ConnectFailure) -> bool:
    """Whether the other end may have got the request: only a connection that never came to be is certain."""
    cause: BaseException | None = error
    while cause is not None:
        reasons: list[BaseException | None] = [
            cause,
            *(argument for argument in cause.args if isinstance(argument, BaseException)),
        ]
        reasons += [reason.reason for reason in reasons if isinstance(reason, urllib3.MaxRetryError)]
        never = (urllib3.NewConnectionError, urllib3.ConnectTimeoutError, requests.exceptions.ConnectTimeout)
        if any(isinstance(reason, never) for reason in reasons):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def _innermost(error: ksa.ConnectFailure) -> str:
    """Where to, and the first reason of all: four libraries have each put theirs around it."""
    reason: BaseException = error
    while (under := reason.__cause__ or reason.__context__) is not None:
        reason = under
    words = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    where = _line(error).partition(": ")[0]
    return where if words in where else f"{where}: {words}"


def _identity(about: str, error: ksa.HttpError) -> Retry | Refused:
    message = f"{about}: the identity service answered {error.http_status}: {_line(error)}"
    if error.http_status in {401, 403, 404}:
        return Refused(message, "mend the credentials in [neutron]")
    return Retry(message, "see the identity service's log")


def _heard(done: "asyncio.Future[Any]") -> None:
    """Take notice of how it ended: those who asked may all have gone."""
    if not done.cancelled():
        done.exception()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


def _home(ip: str, subnets: Sequence[NeutronSubnet]) -> str | None:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    return next((subnet.id for subnet in subnets if address in ipaddress.ip_network(subnet.cidr)), None)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
