"""What podvif relies on when it asks Neutron, on the fake and on the real one."""

import asyncio
import re
import uuid
from typing import Any

import pytest

from podvif.errors import Refused, Retry
from podvif.model import Route
from tests.neutron.worlds import OWNER, TAG, World, port_of

MAC = "02:00:00:00:5a:01"


async def test_create(world: World) -> None:
    """A port has what was asked for, and is bound to the host in the same answer."""
    request = world.request()
    port = await world.neutron.create_port(request)
    assert (port.device_id, port.device_owner, port.name) == (request.device_id, OWNER, request.name)
    assert (port.host_id, port.network_id) == (world.host, world.network)
    assert port.tags >= set(request.tags)
    assert [ip.subnet_id for ip in port.fixed_ips] == [world.subnet]
    assert re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", port.mac)
    assert (port.vif_type, port.status) == ("vhostuser", "DOWN")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", port.created)
    assert port.vif_details["vhostuser_mode"] == "server"
    assert port.vif_details["bridge_name"] == "br-int"
    assert port.vif_details["datapath_type"] == "netdev"
    assert [one.id for one in world.all_ports()] == [port.id]


async def test_create_after_crash(world: World) -> None:
    """A controller that knows nothing finds the port of the one before it, by its marks."""
    request = world.request()
    port = await world.neutron.create_port(request)
    assert (await port_of(world.neutron, request)).id == port.id
    assert (await port_of(world.client(), request)).id == port.id
    assert len(world.all_ports()) == 1


async def test_create_at_once(world: World) -> None:
    """Equal requests at the same time make one port."""
    request = world.request()
    ports = await asyncio.gather(*(world.neutron.create_port(request) for _ in range(3)))
    assert len({port.id for port in ports}) == len(world.all_ports()) == 1


async def test_create_cancelled(world: World) -> None:
    """A caller that gives up leaves no second port behind: the next one gets the first."""
    request = world.request()
    first = asyncio.ensure_future(world.neutron.create_port(request))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await world.neutron.create_port(request)
    assert len(world.all_ports()) == 1


async def test_answer_lost(world: World) -> None:
    """When the answer is lost, the port that was made all the same is found, and there is no second one."""
    request = world.request()
    world.lose_answer()
    with pytest.raises(Retry, match="unreachable since"):
        await world.neutron.create_port(request)
    (made,) = world.all_ports()
    assert (await world.neutron.create_port(request)).id == made.id
    assert len(world.all_ports()) == 1


async def test_answer_lost_and_crash(world: World) -> None:
    """When the answer is lost and the controller dies, the next one finds the port."""
    request = world.request()
    world.lose_answer()
    with pytest.raises(Retry):
        await world.neutron.create_port(request)
    (made,) = world.all_ports()
    assert (await port_of(world.client(), request)).id == made.id


async def test_answer_lost_and_port_gone(world: World) -> None:
    """After a lost answer nothing is made anew until Neutron has had its time; then it is."""
    request = world.request()
    world.lose_answer()
    with pytest.raises(Retry):
        await world.neutron.create_port(request)
    (made,) = world.all_ports()
    await world.neutron.delete_port(made.id)
    with pytest.raises(Retry, match="may still come"):
        await world.neutron.create_port(request)
    world.time += 60
    assert (await world.neutron.create_port(request)).id != made.id


async def test_mac_of_our_own(world: World) -> None:
    """A port with a MAC that was asked for is found again after a lost answer, and not taken for somebody else's."""
    request = world.request(mac=MAC)
    world.lose_answer()
    with pytest.raises(Retry, match="unreachable since"):
        await world.neutron.create_port(request)
    assert (await world.neutron.create_port(request)).mac == MAC


async def test_down(world: World) -> None:
    """While Neutron is down the error says since when, the same each time; afterwards the port is made at once."""
    request = world.request()
    await world.go_down()
    since = set()
    for _ in range(2):
        with pytest.raises(Retry) as failed:
            await world.neutron.create_port(request)
        since |= set(re.findall(r"unreachable since (\S+Z)", failed.value.message))
    assert len(since) == 1
    assert since.pop() in str(world.neutron.trouble())
    await world.come_back()
    assert (await world.neutron.create_port(request)).vif_type == "vhostuser"
    assert world.neutron.trouble() is None


async def test_down_at_start(world: World) -> None:
    """A client that starts while Neutron is down says so, and works once it is there."""
    await world.go_down()
    client = world.client()
    with pytest.raises(Retry, match="unreachable since"):
        await client.why_not_allowed()
    await world.come_back()
    assert await client.why_not_allowed() is None


async def test_two_interfaces(world: World) -> None:
    """Two interfaces of one pod are two ports, told apart by their tags."""
    first = world.request("eth0")
    second = world.request("eth1", first.device_id)
    ports = [await port_of(world.neutron, request) for request in (first, second, first)]
    assert len({port.id for port in ports}) == 2
    assert {port.id for port in await world.neutron.ports_of(first.device_id)} == {port.id for port in ports}


async def test_no_tags(world: World) -> None:
    """A port that could not be found again is not made."""
    with pytest.raises(Refused, match="no tags"):
        await world.neutron.create_port(world.request(tags=()))


async def test_others_are_not_ours(world: World) -> None:
    """Ports of another owner, and those of another user of the same owner, are none of ours."""
    request = world.request()
    ours = await world.neutron.create_port(request)
    other = str(uuid.uuid4())
    world.foreign_port(device_id=request.device_id, device_owner="compute:nova")
    world.foreign_port(device_id=other, device_owner=OWNER)
    assert [port.id for port in await world.neutron.our_ports(TAG)] == [ours.id]
    assert [port.id for port in await world.neutron.ports_of(request.device_id)] == [ours.id]


async def test_read(world: World) -> None:
    """A port can be read by its id until it is gone."""
    port = await world.neutron.create_port(world.request())
    assert await world.neutron.port(port.id) == port
    await world.neutron.delete_port(port.id)
    assert await world.neutron.port(port.id) is None


async def test_delete_twice(world: World) -> None:
    """Deleting a port that is gone, or never was, succeeds."""
    port = await world.neutron.create_port(world.request())
    await world.neutron.delete_port(port.id)
    await world.neutron.delete_port(port.id)
    await world.neutron.delete_port(str(uuid.uuid4()))
    assert world.all_ports() == []


async def test_delete_while_down(world: World) -> None:
    """A delete that did not arrive is to be repeated, and then succeeds."""
    port = await world.neutron.create_port(world.request())
    await world.go_down()
    with pytest.raises(Retry, match="unreachable since"):
        await world.neutron.delete_port(port.id)
    await world.come_back()
    await world.neutron.delete_port(port.id)
    assert world.all_ports() == []


async def test_mac_taken(world: World) -> None:
    """A MAC that another port has is refused for now, with Neutron's words."""
    port = await world.neutron.create_port(world.request(mac=MAC))
    assert port.mac == MAC
    with pytest.raises(Retry, match=rf"(?i){MAC}.*in use"):
        await world.neutron.create_port(world.request(mac=MAC))
    await world.neutron.delete_port(port.id)
    assert (await world.neutron.create_port(world.request(mac=MAC))).mac == MAC


async def test_address(world: World) -> None:
    """An address that was asked for is given; to a second port it is refused for now."""
    address = (await world.neutron.subnet(world.subnet)).cidr.replace(".0/24", ".77")
    port = await world.neutron.create_port(world.request(ips=(address,)))
    assert [ip.address for ip in port.fixed_ips] == [address]
    with pytest.raises(Retry, match=address):
        await world.neutron.create_port(world.request(ips=(address,)))


async def test_address_elsewhere(world: World) -> None:
    """An address of no such subnet is refused, with the subnet's range."""
    with pytest.raises(Refused, match=r"192\.0\.2\.7"):
        await world.neutron.create_port(world.request(ips=("192.0.2.7",)))
    with pytest.raises(Refused, match=r"192\.0\.2\.7"):
        await world.neutron.create_port(world.request(ips=("192.0.2.7",), subnet_ids=()))
    assert world.all_ports() == []


async def test_no_free_address(world: World) -> None:
    """A subnet that is used up says so, and serves again when an address is free."""
    network, subnet = world.make_network("10.9.0.0/30")
    about: dict[str, Any] = {"network_id": network, "subnet_ids": (subnet,)}
    port = await world.neutron.create_port(world.request(**about))
    with pytest.raises(Retry, match="No more IP addresses") as failed:
        await world.neutron.create_port(world.request(**about))
    assert "no free address" in failed.value.remedy
    await world.neutron.delete_port(port.id)
    await world.neutron.create_port(world.request(**about))


async def test_quota(world: World) -> None:
    """A quota that is used up is to be waited for, with Neutron's words."""
    world.limit_ports(1)
    await world.neutron.create_port(world.request())
    with pytest.raises(Retry, match=r"(?i)quota exceeded"):
        await world.neutron.create_port(world.request())


async def test_unknown_things(world: World) -> None:
    """An unknown network, subnet or security group is refused by name."""
    nowhere = str(uuid.uuid4())
    secure, subnet = world.make_network("10.3.0.0/24", port_security=True)
    for about in (
        {"network_id": nowhere, "subnet_ids": ()},
        {"subnet_ids": (nowhere,)},
        {"network_id": secure, "subnet_ids": (subnet,), "security_groups": (nowhere,)},
    ):
        with pytest.raises(Refused, match=nowhere):
            await world.neutron.create_port(world.request(**about))
    for look in (world.neutron.subnet, world.neutron.network):
        with pytest.raises(Refused, match=f"{nowhere} not found"):
            await look(nowhere)
    assert world.all_ports() == []


async def test_security_groups_without_port_security(world: World) -> None:
    """Security groups on a network without port security are refused, with what to do."""
    with pytest.raises(Refused, match=r"(?i)port security must be enabled") as failed:
        await world.neutron.create_port(world.request(security_groups=(str(uuid.uuid4()),)))
    assert "leave security groups out" in failed.value.remedy


async def test_binding_failed(world: World) -> None:
    """A host without an agent gives a port with binding_failed, which can be bound later."""
    port = await world.neutron.create_port(world.request(host_id="nowhere"))
    assert (port.vif_type, port.vif_details) == ("binding_failed", {})
    assert (await world.neutron.bind_port(port.id, "nowhere")).vif_type == "binding_failed"
    bound = await world.neutron.bind_port(port.id, world.host)
    assert (bound.vif_type, bound.host_id, bound.id) == ("vhostuser", world.host, port.id)


async def test_two_subnets(world: World) -> None:
    """A port has an address of each subnet that was asked for, the one asked for in its own."""
    second = world.add_subnet(world.network, "10.8.0.0/24")
    both = (world.subnet, second)
    port = await world.neutron.create_port(world.request(subnet_ids=both, ips=("10.8.0.9",)))
    assert {ip.subnet_id for ip in port.fixed_ips} == set(both)
    assert "10.8.0.9" in {ip.address for ip in port.fixed_ips}


async def test_facts(world: World) -> None:
    """A subnet's range, gateway, routes and name servers, and the network's MTU, are as they were made."""
    routes = [{"destination": "10.1.0.0/16", "nexthop": "10.7.0.5"}]
    network, subnet = world.make_network("10.7.0.0/24", host_routes=routes, dns_nameservers=["10.7.0.53"])
    found = await world.neutron.subnet(subnet)
    assert (found.cidr, found.gateway, found.network_id) == ("10.7.0.0/24", "10.7.0.1", network)
    assert found.routes == (Route("10.1.0.0/16", "10.7.0.5"),)
    assert found.nameservers == ("10.7.0.53",)
    about = await world.neutron.network(network)
    assert (about.mtu, about.subnet_ids) == (1442, (subnet,))


async def test_no_gateway(world: World) -> None:
    """A subnet without a gateway has none; one of IPv6 has its range."""
    _, bare = world.make_network("10.6.0.0/24", gateway_ip=None)
    assert (await world.neutron.subnet(bare)).gateway is None
    _, six = world.make_network("fd00:6::/64")
    assert (await world.neutron.subnet(six)).cidr == "fd00:6::/64"


async def test_facts_are_believed(world: World) -> None:
    """A fact is asked for once in its life time, and anew after it."""
    assert (await world.neutron.subnet(world.subnet)).nameservers == ()
    world.set_nameserver(world.subnet, "192.0.2.53")
    assert (await world.neutron.subnet(world.subnet)).nameservers == ()
    world.time += 301
    assert (await world.neutron.subnet(world.subnet)).nameservers == ("192.0.2.53",)


async def test_find(world: World) -> None:
    """A subnet is found by its id and by its name, if it is the only one of that name."""
    found = await world.neutron.find_subnet("default-subnet")
    assert found.id == world.subnet
    assert await world.neutron.find_subnet(world.subnet) == found
    with pytest.raises(Refused, match="subnet nothing not found"):
        await world.neutron.find_subnet("nothing")
    with pytest.raises(Refused, match="not found"):
        await world.neutron.find_security_group("nothing")
    world.make_network("10.5.0.0/24", "default-subnet")
    with pytest.raises(Refused, match="2 subnets are called default-subnet"):
        await world.neutron.find_subnet("default-subnet")


async def test_allowed(world: World) -> None:
    """The role `service` may do all that is needed, and finding that out makes no port."""
    assert await world.neutron.why_not_allowed() is None
    assert world.all_ports() == []


async def test_not_allowed(world: World) -> None:
    """An account without the role is told what it may not do and which role it needs, at start and at a create."""
    client = world.client("member")
    why = await client.why_not_allowed()
    assert why is not None
    assert "may not set binding:host_id" in why
    assert "`service`" in why
    with pytest.raises(Refused, match="binding:host_id"):
        await client.create_port(world.request())
    assert world.all_ports() == []


async def test_not_accepted(world: World) -> None:
    """Credentials that are not accepted are refused as such."""
    client = world.client("nobody")
    why = await client.why_not_allowed()
    assert why is not None
    assert "requires authentication" in why
    with pytest.raises(Refused, match="requires authentication"):
        await client.create_port(world.request())
