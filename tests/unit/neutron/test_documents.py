"""Neutron's documents: what is read in them, and whose turn it is when it says no."""

from typing import Any

import msgspec
import pytest

from podvif.errors import Refused, Retry
from podvif.model import FixedIp, NeutronPort, PortRequest, Route
from podvif.neutron import documents

REQUEST = PortRequest("net", "node-1", "uid-1", "compute:kuryr", "default/pod eth0", tags=("podvif", "podvif-eth0"))

PORT: dict[str, Any] = {
    "id": "60f9ed24-422f-4910-9aa2-602b1dfaacde",
    "name": "default/pod eth0",
    "network_id": "net",
    "mac_address": "FA:16:3E:81:5E:52",
    "status": "DOWN",
    "device_id": "uid-1",
    "device_owner": "compute:kuryr",
    "fixed_ips": [{"subnet_id": "sub", "ip_address": "10.10.1.63"}],
    "description": "podvif: podvif podvif-eth0",
    "binding:host_id": "node-1",
    "binding:vif_type": "vhostuser",
    "binding:vif_details": {"vhostuser_mode": "server", "bridge_name": "br-int"},
    "port_security_enabled": False,
    "tags": [],
    "revision_number": 3,
    "created_at": "2026-11-23T21:44:45Z",
}


def test_port() -> None:
    """A port's document, as Neutron 29 writes it, is read whole."""
    assert documents.parse_port(PORT) == NeutronPort(
        id=PORT["id"],
        network_id="net",
        mac="fa:16:3e:81:5e:52",
        name="default/pod eth0",
        device_id="uid-1",
        device_owner="compute:kuryr",
        fixed_ips=(FixedIp("sub", "10.10.1.63"),),
        status="DOWN",
        host_id="node-1",
        vif_type="vhostuser",
        vif_details={"vhostuser_mode": "server", "bridge_name": "br-int"},
        tags=frozenset({"podvif", "podvif-eth0"}),
        revision=3,
        created="2026-11-23T21:44:45Z",
        port_security=False,
    )


def test_port_of_a_poor_account() -> None:
    """Where the account may not read the binding, and where fields are null, the port is unbound and empty."""
    poor = {
        key: None for key in PORT if key.startswith("binding:") or key in {"fixed_ips", "description", "tags", "name"}
    }
    port = documents.parse_port(PORT | poor)
    assert (port.vif_type, port.vif_details, port.fixed_ips, port.tags) == ("unbound", {}, (), frozenset())


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"description": "", "tags": ["podvif", "podvif-eth0", "more"]}, True),
        ({"description": "", "tags": ["podvif"]}, False),
        ({"description": "podvif: podvif podvif-eth1"}, False),
        ({"description": "says podvif: podvif podvif-eth0"}, False),
        ({"device_id": "uid-2"}, False),
        ({"device_owner": "compute:nova"}, False),
        ({"network_id": "other"}, False),
    ],
)
def test_is_it(change: dict[str, Any], *, same: bool) -> None:
    """A port is the one asked for by its device, owner, network and marks, be they tags or in its description."""
    assert documents.is_it(documents.parse_port(PORT | change), REQUEST) is same


def test_what_is_rendered_is_found() -> None:
    """The port that a request creates is the one that it finds, with tags in the request and without."""
    wanted = msgspec.structs.replace(REQUEST, tags=("podvif", "podvif-if=eth0", "cost centre 7%", "größe"))
    for tags in (True, False):
        body = documents.render_port(wanted, [], tags=tags)["port"]
        made = documents.parse_port({"id": "x", "mac_address": "x", **body})
        assert made.tags == set(wanted.tags)
        assert documents.is_it(made, wanted)
        assert ("tags" in body) is tags


def test_rendered() -> None:
    """What was asked for stands in the request, and what was not does not."""
    bare = documents.render_port(REQUEST, [], tags=False)["port"]
    assert {"fixed_ips", "mac_address", "security_groups", "project_id"} & set(bare) == set()
    wishes = msgspec.structs.replace(
        REQUEST, mac="02:00:00:00:00:01", security_groups=(), project_id="p", name="n" * 300
    )
    body = documents.render_port(wishes, [{"subnet_id": "s"}], tags=False)["port"]
    assert body["mac_address"] == "02:00:00:00:00:01"
    assert body["security_groups"] == []
    assert body["project_id"] == "p"
    assert body["fixed_ips"] == [{"subnet_id": "s"}]
    assert len(body["name"]) == 255


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ((), "no tags"),
        (("a,b",), "a comma"),
        (("",), "is empty"),
        (("x" * 200, "y" * 60), "longer than 255"),
        (("podvif",), None),
    ],
)
def test_why_not_marks(tags: tuple[str, ...], why: str | None) -> None:
    """Tags by which a port could not be found again are refused with the reason."""
    found = documents.why_not_marks(msgspec.structs.replace(REQUEST, tags=tags))
    assert (why is None and found is None) or (why is not None and found is not None and why in found)


def test_subnet() -> None:
    """A subnet's document is read, a gateway of null as none."""
    document = {
        "id": "s",
        "network_id": "n",
        "cidr": "10.0.0.0/24",
        "gateway_ip": None,
        "dns_nameservers": ["10.0.0.53"],
    }
    routes = [{"destination": "10.1.0.0/16", "nexthop": "10.0.0.5"}]
    subnet = documents.parse_subnet(document | {"host_routes": routes})
    assert (subnet.gateway, subnet.routes, subnet.nameservers) == (
        None,
        (Route("10.1.0.0/16", "10.0.0.5"),),
        ("10.0.0.53",),
    )


def test_network_without_mtu() -> None:
    """A network whose MTU Neutron does not say is refused: a guess would lose packets."""
    assert documents.parse_network({"id": "n", "mtu": 9000, "subnets": ["s"]}).mtu == 9000
    with pytest.raises(Refused, match="network n has no mtu"):
        documents.parse_network({"id": "n"})


@pytest.mark.parametrize(
    ("status", "text", "family", "words"),
    [
        (
            409,
            '{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded", "detail": ""}}',
            Retry,
            "Quota exceeded",
        ),
        (409, '{"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more"}}', Retry, "No more"),
        (409, '{"NeutronError": {"type": "MacAddressInUse", "message": "in use"}}', Retry, "in use"),
        (
            404,
            '{"NeutronError": {"type": "SubnetNotFound", "message": "Subnet s could not"}}',
            Refused,
            "Subnet s could not",
        ),
        (403, '{"NeutronError": {"type": "PolicyNotAuthorized", "message": "disallowed"}}', Refused, "disallowed"),
        (403, '{"message": "no"}', Refused, "no"),
        (401, '{"error": {"code": 401, "message": "The request requires authentication."}}', Refused, "requires auth"),
        (412, '{"NeutronError": {"type": "RevisionNumberConstraintFailed", "message": "revision"}}', Retry, "revision"),
        (409, '{"NeutronError": {"type": "Unheard", "message": "conflict"}}', Retry, "conflict"),
        (
            400,
            '{"NeutronError": {"type": "HTTPBadRequest", "message": "Invalid input"}}',
            Refused,
            "400: Invalid input",
        ),
        (400, '{"NeutronError": "Invalid input for mac"}', Refused, "Invalid input for mac"),
        (500, "Internal Server Error", Retry, "500: Internal Server Error"),
        (503, "<html>\n <b>busy</b></html>", Retry, "503: <html> <b>busy</b></html>"),
        (429, "", Retry, "HTTP status 429"),
        (404, "[" * 9999, Refused, "404: "),
    ],
)
def test_no(status: int, text: str, family: type[Exception], words: str) -> None:
    """An answer that says no becomes the family whose turn it is, with subject and the server's own words."""
    error = documents.judge(documents.parse_failure(status, text), "port x cannot be created")
    assert type(error) is family
    assert error.message.startswith("port x cannot be created: ")
    assert words in error.message
