"""A Neutron in memory that behaves: networks, addresses, quotas, policy, binding by host, and a wire that can fail.

Law: it runs the same contract as the real one (tests/neutron/test_contract.py), and says no with Neutron's own types of error
and words.  `FakeCloud` is the server, for everybody; `FakeNeutron` is one client of it, with the methods of
`podvif.neutron.client.Neutron`.
"""

import asyncio
import datetime as dt
import ipaddress
import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from podvif.errors import Refused, Retry
from podvif.model import FixedIp, NeutronNetwork, NeutronPort, NeutronSubnet, PortRequest
from podvif.neutron import documents
from podvif.neutron.documents import Answer

MAY_BIND = frozenset({"admin", "service"})


class _SaidNo(Exception):  # noqa: N818  it is an answer
    def __init__(self, status: int, kind: str, words: str) -> None:
        super().__init__(words)
        self.answer = Answer(status, kind, words)


@dataclass
class FakeCloud:
    """The server.

    Attributes:
        hosts: mode by host whose agent lives; a port for another host ends in binding_failed.
        quota: ports that may be there, None for no limit.
        down: nobody can connect.
        lose_answers: so many answers to requests that create get lost from now on.
        hang: requests are never answered.
        before_act: called with the name of each request before it is done; raise from it to make it fail.
        requests: names of the requests that arrived, in order.
    """

    hosts: dict[str, str] = field(default_factory=lambda: {"podvif-host": "server"})
    quota: int | None = None
    down: bool = False
    lose_answers: int = 0
    hang: bool = False
    before_act: Callable[[str], None] = lambda _: None
    requests: list[str] = field(default_factory=list)
    networks: dict[str, NeutronNetwork] = field(default_factory=dict)
    subnets: dict[str, NeutronSubnet] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    security_groups: dict[str, str] = field(default_factory=dict)
    all_ports: dict[str, NeutronPort] = field(default_factory=dict)
    secure: set[str] = field(default_factory=set)
    _serial: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    # -- what an administrator does ------------------------------------------------------------------------------------

    def make_network(
        self, cidr: str, name: str = "", *, mtu: int = 1442, port_security: bool = False, **subnet: Any
    ) -> tuple[str, str]:
        """A network with a subnet; their UUIDs."""
        network = str(uuid.uuid4())
        if port_security:
            self.secure.add(network)
        self.networks[network] = NeutronNetwork(network, mtu)
        return network, self.add_subnet(network, cidr, name, **subnet)

    def add_subnet(self, network: str, cidr: str, name: str = "", **about: Any) -> str:
        """One more subnet; its UUID."""
        first = str(next(ipaddress.ip_network(cidr).hosts()))
        made = NeutronSubnet(str(uuid.uuid4()), network, cidr, **({"gateway": first} | about))
        self.subnets[made.id] = made
        self.names[made.id] = name
        old = self.networks[network]
        self.networks[network] = msgspec.structs.replace(old, subnet_ids=(*old.subnet_ids, made.id))
        return made.id

    def add_port(self, port: NeutronPort) -> None:
        """Somebody else's port."""
        self.all_ports[port.id] = port

    # -- what it does --------------------------------------------------------------------------------------------------

    def create(self, request: PortRequest, fixed: list[tuple[str | None, str | None]], user: str) -> NeutronPort:
        network = self.networks.get(request.network_id)
        if network is None:
            raise _SaidNo(404, "NetworkNotFound", f"Network {request.network_id} could not be found.")
        if user not in MAY_BIND:
            raise _SaidNo(403, "PolicyNotAuthorized", "rule:create_port:binding:host_id is disallowed by policy")
        if request.security_groups and network.id not in self.secure:
            words = "Port security must be enabled and port must have an IP address in order to use security groups."
            raise _SaidNo(400, "PortSecurityAndIPRequiredForSecurityGroups", words)
        for group in request.security_groups or ():
            if group not in self.security_groups:
                raise _SaidNo(404, "SecurityGroupNotFound", f"Security group {group} does not exist.")
        if self.quota is not None and len(self.all_ports) >= self.quota:
            raise _SaidNo(409, "OverQuota", "Quota exceeded for resources: ['port'].")
        if request.mac in {port.mac for port in self.all_ports.values() if port.network_id == network.id}:
            words = f"Unable to complete operation for network {network.id}. The mac address {request.mac} is in use."
            raise _SaidNo(409, "MacAddressInUse", words)
        ips: list[FixedIp] = []
        for subnet_id, ip in fixed or [(None, None)]:
            ips += self._address(network, subnet_id, ip)
        port_id = str(uuid.uuid4())
        serial = next(self._serial)
        made = NeutronPort(
            id=port_id,
            network_id=network.id,
            mac=request.mac or f"fa:16:3e:{serial >> 16 & 255:02x}:{serial >> 8 & 255:02x}:{serial & 255:02x}",
            name=request.name,
            device_id=request.device_id,
            device_owner=request.device_owner,
            fixed_ips=tuple(ips),
            status="DOWN",
            tags=frozenset(request.tags),
            revision=1,
            created=dt.datetime.fromtimestamp(serial, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            port_security=network.id in self.secure,
        )
        self.all_ports[port_id] = self.bound(made, request.host_id)
        return self.all_ports[port_id]

    def bound(self, port: NeutronPort, host: str) -> NeutronPort:
        """The port as Neutron binds it to a host."""
        mode = self.hosts.get(host)
        details: dict[str, Any] = {}
        if mode is not None:
            details = {
                "port_filter": False,
                "vhostuser_mode": mode,
                "vhostuser_ovs_plug": True,
                "vhostuser_socket": f"/var/run/openvswitch/vhu{port.id}"[: len("/var/run/openvswitch/") + 14],
                "bridge_name": "br-int",
                "datapath_type": "netdev",
            }
        kind = "vhostuser" if mode else "binding_failed"
        return msgspec.structs.replace(
            port, host_id=host, vif_type=kind, vif_details=details, revision=port.revision + 1
        )

    def _address(self, network: NeutronNetwork, subnet_id: str | None, ip: str | None) -> list[FixedIp]:
        candidates = [self.subnets[known] for known in network.subnet_ids if subnet_id in {None, known}]
        taken = {fixed.address for port in self.all_ports.values() for fixed in port.fixed_ips}
        if ip is not None:
            for subnet in candidates:
                if ipaddress.ip_address(ip) in ipaddress.ip_network(subnet.cidr):
                    if ip in taken | {subnet.gateway}:
                        words = f"IP address {ip} already allocated in subnet {subnet.id}"
                        raise _SaidNo(409, "IpAddressAlreadyAllocated", words)
                    return [FixedIp(subnet.id, ip)]
            words = f"IP address {ip} is not a valid IP for any of the subnets on the specified network."
            raise _SaidNo(400, "InvalidIpForNetwork", words)
        for subnet in candidates:
            for host in ipaddress.ip_network(subnet.cidr).hosts():
                if str(host) not in taken and str(host) != subnet.gateway:
                    return [FixedIp(subnet.id, str(host))]
        raise _SaidNo(409, "IpAddressGenerationFailure", f"No more IP addresses available on network {network.id}.")


class FakeNeutron:
    """One client.

    Args:
        cloud: the server.
        user: admin, service, member, reader, or one who does not exist.
        settle, clock: as the real client's.
    """

    def __init__(
        self,
        cloud: FakeCloud,
        user: str = "service",
        *,
        device_owner: str = "compute:kuryr",
        settle: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        lifetime: float = 300.0,
    ) -> None:
        self.cloud = cloud
        self.user = user
        self.device_owner = device_owner
        self._settle = settle
        self._clock = clock
        self._lifetime = lifetime
        self._creating: dict[PortRequest, asyncio.Future[NeutronPort]] = {}
        self._unanswered: dict[PortRequest, float] = {}
        self._facts: dict[str, tuple[float, Any]] = {}
        self._since: float | None = None
        self._trouble: str | None = None

    async def close(self) -> None:
        pass

    def trouble(self) -> str | None:
        return self._trouble

    async def _arrives(self, name: str, about: str) -> None:
        self.cloud.before_act(name)
        await asyncio.sleep(0)
        if self.cloud.down:
            raise self._unreachable(about, "Connection refused")
        if self.cloud.hang:
            raise self._unreachable(about, "timed out")
        self.cloud.requests.append(name)
        self._since = self._trouble = None
        if self.user not in {"admin", "service", "member", "reader"}:
            raise documents.judge(Answer(401, "", "The request you have made requires authentication."), about)

    def _unreachable(self, about: str, words: str) -> Retry:
        self._since = self._since or time.time()
        since = dt.datetime.fromtimestamp(self._since, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._trouble = f"Neutron unreachable since {since}: {words}"
        return Retry(f"{about}: {self._trouble}", "see that Neutron's API runs")

    async def ports_of(self, device_id: str) -> tuple[NeutronPort, ...]:
        await self._arrives("ports_of", f"the ports of device {device_id} cannot be listed")
        return tuple(port for port in await self._ours() if port.device_id == device_id)

    async def our_ports(self, tag: str) -> tuple[NeutronPort, ...]:
        await self._arrives("our_ports", "our ports cannot be listed")
        return tuple(port for port in await self._ours() if tag in port.tags)

    async def _ours(self) -> list[NeutronPort]:
        ports = sorted(self.cloud.all_ports.values(), key=lambda port: port.id)
        return [port for port in ports if port.device_owner == self.device_owner]

    async def port(self, port_id: str) -> NeutronPort | None:
        await self._arrives("port", f"port {port_id} cannot be read")
        return self.cloud.all_ports.get(port_id)

    async def create_port(self, request: PortRequest) -> NeutronPort:
        if why := documents.why_not_marks(request):
            raise Refused(f"port {request.name} could not be found again: {why}")
        running = self._creating.get(request)
        if running is None:
            running = self._creating[request] = asyncio.ensure_future(self._create(request))
            running.add_done_callback(lambda _: self._creating.pop(request))
            running.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return await asyncio.shield(running)

    async def _create(self, request: PortRequest) -> NeutronPort:
        if request in self._unanswered:
            found = [port for port in await self.ports_of(request.device_id) if documents.is_it(port, request)]
            if found:
                self._unanswered.pop(request, None)
                return found[0]
        if self._clock() < self._unanswered.get(request, 0.0):
            raise Retry(f"port {request.name}: Neutron's answer was lost, and what it was asked for may still come")
        fixed: list[tuple[str | None, str | None]] = [(None, ip) for ip in request.ips]
        if request.subnet_ids:
            fixed = await self._fixed(request)
        about = f"port {request.name} cannot be created"
        await self._arrives("create_port", about)
        try:
            made = self.cloud.create(request, fixed, self.user)
        except _SaidNo as no:
            raise documents.judge(no.answer, about) from no
        if self.cloud.lose_answers:
            self.cloud.lose_answers -= 1
            self._unanswered[request] = self._clock() + self._settle
            raise self._unreachable(about, "Remote end closed connection without response")
        return made

    async def _fixed(self, request: PortRequest) -> list[tuple[str | None, str | None]]:
        subnets = [await self.subnet(subnet) for subnet in request.subnet_ids]
        fixed: list[tuple[str | None, str | None]] = []
        for ip in request.ips:
            homes = [one.id for one in subnets if ipaddress.ip_address(ip) in ipaddress.ip_network(one.cidr)]
            if not homes:
                raise Refused(f"port {request.name}: address {ip} is not in {', '.join(one.cidr for one in subnets)}")
            fixed.append((homes[0], ip))
        named = {subnet for subnet, _ in fixed}
        return [*fixed, *((one.id, None) for one in subnets if one.id not in named)]

    async def delete_port(self, port_id: str) -> None:
        await self._arrives("delete_port", f"port {port_id} cannot be deleted")
        self.cloud.all_ports.pop(port_id, None)

    async def bind_port(self, port_id: str, host_id: str) -> NeutronPort:
        about = f"port {port_id} cannot be bound to {host_id}"
        await self._arrives("bind_port", about)
        if port_id not in self.cloud.all_ports:
            raise documents.judge(Answer(404, "PortNotFound", f"Port {port_id} could not be found."), about)
        self.cloud.all_ports[port_id] = self.cloud.bound(self.cloud.all_ports[port_id], host_id)
        return self.cloud.all_ports[port_id]

    async def subnet(self, subnet_id: str) -> NeutronSubnet:
        found: NeutronSubnet = await self._fact("subnet", subnet_id, self.cloud.subnets)
        return found

    async def network(self, network_id: str) -> NeutronNetwork:
        found: NeutronNetwork = await self._fact("network", network_id, self.cloud.networks)
        return found

    async def _fact(self, kind: str, name: str, known: dict[str, Any]) -> Any:
        until, value = self._facts.get(name, (0.0, None))
        if value is None or self._clock() >= until:
            await self._arrives(kind, f"{kind} {name} cannot be read")
            if name not in known:
                raise Refused(f"{kind} {name} not found", f"name a {kind} that exists")
            value = known[name]
            self._facts[name] = (self._clock() + self._lifetime, value)
        return value

    async def find_subnet(self, name_or_id: str) -> NeutronSubnet:
        await self._arrives("find", f"subnet {name_or_id} cannot be looked for")
        ids = [one for one, name in self.cloud.names.items() if name_or_id in {one, name}]
        return await self.subnet(self._one("subnet", name_or_id, ids))

    async def find_security_group(self, name_or_id: str, project_id: str | None = None) -> str:
        await self._arrives("find", f"security group {name_or_id} cannot be looked for")
        ids = [one for one, name in self.cloud.security_groups.items() if name_or_id in {one, name}]
        return self._one("security group", name_or_id, ids)

    @staticmethod
    def _one(word: str, name: str, ids: list[str]) -> str:
        if not ids:
            raise Refused(f"{word} {name} not found", f"name a {word} that exists")
        if len(ids) > 1:
            raise Refused(f"{len(ids)} {word}s are called {name}: {', '.join(ids)}", "name one by its id")
        return ids[0]

    async def why_not_allowed(self, network_id: str = "") -> str | None:
        try:
            await self._arrives("why_not_allowed", "Neutron's extensions cannot be listed")
        except Refused as error:
            return error.message
        if self.user in MAY_BIND:
            return None
        return "the credentials may not set binding:host_id; give them the role `service` (or `admin`)"
