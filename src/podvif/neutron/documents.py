"""Neutron's JSON documents: what we ask, what it says, and whose turn it is when it says no.

Law: pure; every reading of a document is here.  A port is ours by marks that come into being together with it: its tags where
Neutron takes tags in the request that creates a port, and always its description, so that no crash leaves a port that
nobody knows.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from podvif import errors
from podvif.errors import Refused, Retry
from podvif.model import FixedIp, NeutronNetwork, NeutronPort, NeutronSubnet, PortRequest, Route

Document = Mapping[str, Any]

_MARKS = "podvif:"
_SAFE = "/:=@+"
"""Characters of a tag that stand in the description as they are, beside letters, digits and `-._~`."""

_TEXT_MAX = 255
"""Characters of a name or a description (neutron_lib.db.constants)."""

_AVAILABLE = "free some, or widen the subnet's allocation pools"

FAILURES: dict[str, tuple[type[Retry] | type[Refused], str]] = {
    "OverQuota": (Retry, "raise the project's quota, or delete ports that nobody needs"),
    "IpAddressGenerationFailure": (Retry, f"the subnet has no free address: {_AVAILABLE}"),
    "IpAddressGenerationFailureNoMatchingSubnet": (Refused, "the network has no subnet that serves this kind of port"),
    "IpAddressInUse": (Retry, "ask for another address, or wait until it is free"),
    "IpAddressAlreadyAllocated": (Retry, "ask for another address, or wait until it is free"),
    "MacAddressInUse": (Retry, "ask for another MAC, or wait until the port that has it is gone"),
    "NetworkNotFound": (Refused, "name a network that exists and that the credentials may see"),
    "SubnetNotFound": (Refused, "name a subnet that exists and that the credentials may see"),
    "SecurityGroupNotFound": (Refused, "name security groups that exist and that the credentials may see"),
    "PolicyNotAuthorized": (Refused, "give the credentials the role `service` (or `admin`)"),
    "InvalidIpForNetwork": (Refused, "ask for an address of a subnet of that network"),
    "InvalidIpForSubnet": (Refused, "ask for an address of that subnet"),
    "PortSecurityAndIPRequiredForSecurityGroups": (
        Refused,
        "the network has no port security: leave security groups out, or switch it on",
    ),
}
"""By Neutron's own type of error; what is not here is judged by its HTTP status."""

IN_USE = frozenset({"IpAddressInUse", "IpAddressAlreadyAllocated", "MacAddressInUse"})
"""Somebody has what was asked for: perhaps our own port, whose answer was lost."""


def parse_port(document: Document) -> NeutronPort:
    """A port; what the credentials may not read, or the server does not know, is at its default."""
    described = str(document.get("description") or "")
    marks = map(unquote, described.removeprefix(_MARKS).split()) if described.startswith(_MARKS) else ()
    return NeutronPort(
        id=document["id"],
        network_id=document["network_id"],
        mac=str(document["mac_address"]).lower(),
        name=document.get("name") or "",
        device_id=document.get("device_id") or "",
        device_owner=document.get("device_owner") or "",
        fixed_ips=tuple(FixedIp(ip["subnet_id"], ip["ip_address"]) for ip in document.get("fixed_ips") or ()),
        status=document.get("status") or "",
        host_id=document.get("binding:host_id") or "",
        vif_type=document.get("binding:vif_type") or "unbound",
        vif_details=dict(document.get("binding:vif_details") or {}),
        tags=frozenset([*(document.get("tags") or ()), *marks]),
        revision=int(document.get("revision_number") or 0),
        port_security=bool(document.get("port_security_enabled", True)),
        created=document.get("created_at") or "",
    )


def parse_subnet(document: Document) -> NeutronSubnet:
    """A subnet."""
    routes = tuple(Route(route["destination"], route["nexthop"]) for route in document.get("host_routes") or ())
    return NeutronSubnet(
        id=document["id"],
        network_id=document["network_id"],
        cidr=document["cidr"],
        gateway=document.get("gateway_ip") or None,
        routes=routes,
        nameservers=tuple(document.get("dns_nameservers") or ()),
    )


def parse_network(document: Document) -> NeutronNetwork:
    """A network.

    Raises:
        Refused: Neutron does not say its MTU.
    """
    mtu = document.get("mtu")
    if not mtu:
        raise Refused(
            f"Neutron network {document['id']} has no mtu",
            "Neutron's extension net-mtu is missing: it has been there since 2015",
        )
    return NeutronNetwork(id=document["id"], mtu=int(mtu), subnet_ids=tuple(document.get("subnets") or ()))


def why_not_marks(request: PortRequest) -> str | None:
    """Why the port could not be known by its marks, or None when it can."""
    if not request.tags:
        return "it has no tags"
    if bad := [tag for tag in request.tags if not tag or "," in tag]:
        return f"its tag {bad[0]!r} has a comma, or is empty"
    if len(_description(request)) > _TEXT_MAX:
        return f"its tags are longer than {_TEXT_MAX} characters together"
    return None


def is_it(port: NeutronPort, request: PortRequest) -> bool:
    """Whether `port` is what an earlier, equal request has made."""
    return (
        port.device_id == request.device_id
        and port.device_owner == request.device_owner
        and port.network_id == request.network_id
        and port.tags >= frozenset(request.tags)
    )


def render_port(request: PortRequest, fixed_ips: Sequence[Document], *, tags: bool) -> Document:
    """The body of the request that creates a port; `tags`: Neutron takes them in it."""
    body: dict[str, Any] = {
        "network_id": request.network_id,
        "name": request.name[:_TEXT_MAX],
        "description": _description(request),
        "device_id": request.device_id,
        "device_owner": request.device_owner,
        "binding:host_id": request.host_id,
        "binding:vnic_type": "normal",
        "admin_state_up": True,
    }
    if fixed_ips:
        body["fixed_ips"] = list(fixed_ips)
    if request.mac is not None:
        body["mac_address"] = request.mac
    if request.security_groups is not None:
        body["security_groups"] = list(request.security_groups)
    if request.project_id is not None:
        body["project_id"] = request.project_id
    if tags:
        body["tags"] = list(request.tags)
    return {"port": body}


def _description(request: PortRequest) -> str:
    return " ".join([_MARKS, *(quote(tag, safe=_SAFE) for tag in request.tags)])


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer that says no.

    Attributes:
        status: HTTP status.
        type: Neutron's type of error, or empty.
        words: the server's own words, one line.
    """

    status: int
    type: str
    words: str


def parse_failure(status: int, text: str) -> Answer:
    """Read the body of an answer that says no; proxies and middleware have forms of their own."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        document = None
    kind, words = "", text
    match document:
        case {"NeutronError": {"message": message, **rest}}:
            kind, words = str(rest.get("type") or ""), str(message)
        case {"NeutronError": message} | {"error": {"message": message}} | {"message": message}:
            words = str(message)
        case _:
            pass
    return Answer(status, kind, " ".join(words.split())[:500] or f"HTTP status {status}")


def judge(answer: Answer, subject: str) -> Retry | Refused:
    """The error to raise; `subject` says what was tried, as "port x of pod a/b cannot be created"."""
    message = f"{subject}: {answer.words}"
    if answer.type in FAILURES:
        family, remedy = FAILURES[answer.type]
        return family(message, remedy) if family is Retry else Refused(message, remedy, code=errors.INVALID_CONFIG)
    match answer.status:
        case 401:
            return Refused(message, "mend the credentials in [neutron]: they were not accepted")
        case 403:
            return Refused(message, "give the credentials the role `service` (or `admin`)")
        case 408 | 409 | 412 | 423 | 425 | 429:
            return Retry(message)
        case status if status >= 500:
            return Retry(f"{subject}: Neutron answered {status}: {answer.words}", "see the log of Neutron's server")
        case _:
            return Refused(f"{subject}: Neutron answered {answer.status}: {answer.words}")
