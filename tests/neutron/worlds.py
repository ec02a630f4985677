"""Two Neutrons under one contract: the fake in memory, and podvif's client on a real one.

Law: a case speaks to `neutron` as the controller does, and to the world as an administrator or a broken wire would; it does
not know which of the two it has.
"""

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from podvif.lab.neutron import PrivateNeutron
from podvif.model import NeutronNetwork, NeutronPort, NeutronSubnet, PortRequest
from podvif.neutron import access, documents
from podvif.neutron.client import Neutron as Adapter
from tests.fakes.neutron import FakeCloud, FakeNeutron
from tests.neutron.proxy import Wire

OWNER = "compute:kuryr"
TAG = "podvif-tests"


class Neutron(Protocol):
    """All that podvif needs of Neutron."""

    async def ports_of(self, device_id: str) -> tuple[NeutronPort, ...]: ...

    async def our_ports(self, tag: str) -> tuple[NeutronPort, ...]: ...

    async def port(self, port_id: str) -> NeutronPort | None: ...

    async def create_port(self, request: PortRequest) -> NeutronPort: ...

    async def delete_port(self, port_id: str) -> None: ...

    async def bind_port(self, port_id: str, host_id: str) -> NeutronPort: ...

    async def subnet(self, subnet_id: str) -> NeutronSubnet: ...

    async def network(self, network_id: str) -> NeutronNetwork: ...

    async def find_subnet(self, name_or_id: str) -> NeutronSubnet: ...

    async def find_security_group(self, name_or_id: str, project_id: str | None = None) -> str: ...

    async def why_not_allowed(self, network_id: str = "") -> str | None: ...

    async def close(self) -> None: ...

    def trouble(self) -> str | None: ...


async def port_of(neutron: Neutron, request: PortRequest) -> NeutronPort:
    """The port as the controller gets it: found among the device's, else made."""
    found = [port for port in await neutron.ports_of(request.device_id) if documents.is_it(port, request)]
    return found[0] if found else await neutron.create_port(request)


class World:
    """A Neutron with a network, and what happens to it.

    Attributes:
        neutron: podvif's side, with the role `service`.
        network, subnet: UUIDs of what there is.
        host: the node whose agent lives.
        time: what the client's clock says; a case may move it on.
    """

    neutron: Neutron
    network: str
    subnet: str
    host = "podvif-host"

    def __init__(self) -> None:
        self.time = 1000.0

    def clock(self) -> float:
        """Seconds, for life times."""
        return self.time

    def request(self, ifname: str = "eth0", device: str | None = None, **more: Any) -> PortRequest:
        """A port for a pod that nobody has had before, or for `device`."""
        about: dict[str, Any] = {"network_id": self.network, "host_id": self.host, "subnet_ids": (self.subnet,)}
        about |= {"tags": (TAG, f"{TAG}-{ifname}"), "name": f"default/pod {ifname}"}
        return PortRequest(device_id=device or str(uuid.uuid4()), device_owner=OWNER, **(about | more))

    # What happens to it; each world has its own way.

    def client(self, user: str = "service") -> Neutron:
        """A client that remembers nothing, as after a crash."""
        raise NotImplementedError

    def make_network(self, cidr: str, name: str = "", *, port_security: bool = False, **subnet: Any) -> tuple[str, str]:
        """The administrator makes a network with a subnet."""
        raise NotImplementedError

    def add_subnet(self, network: str, cidr: str, name: str = "", **about: Any) -> str:
        """The administrator adds a subnet."""
        raise NotImplementedError

    def set_nameserver(self, subnet: str, address: str) -> None:
        """The administrator gives a subnet a name server."""
        raise NotImplementedError

    def all_ports(self) -> list[NeutronPort]:
        """Every port, as the administrator sees it."""
        raise NotImplementedError

    def foreign_port(self, **about: Any) -> str:
        """Somebody else makes a port; its UUID."""
        raise NotImplementedError

    def limit_ports(self, count: int | None) -> None:
        """The project may have so many ports."""
        raise NotImplementedError

    async def go_down(self) -> None:
        """Connections are refused."""
        raise NotImplementedError

    async def come_back(self) -> None:
        """Connections are taken again."""
        raise NotImplementedError

    def lose_answer(self) -> None:
        """The answer to the next request that creates gets lost."""
        raise NotImplementedError

    def hang(self) -> None:
        """Requests are not answered from now on."""
        raise NotImplementedError


class FakeWorld(World):
    """The fake Neutron."""

    def __init__(self) -> None:
        super().__init__()
        self.cloud = FakeCloud()
        self.network, self.subnet = self.cloud.make_network("10.20.0.0/24", "default-subnet")
        self.neutron = self.client()

    def client(self, user: str = "service") -> Neutron:
        return FakeNeutron(self.cloud, user, clock=self.clock)

    def make_network(self, cidr: str, name: str = "", *, port_security: bool = False, **subnet: Any) -> tuple[str, str]:
        return self.cloud.make_network(cidr, name, port_security=port_security, **_fake_terms(subnet))

    def add_subnet(self, network: str, cidr: str, name: str = "", **about: Any) -> str:
        return self.cloud.add_subnet(network, cidr, name, **_fake_terms(about))

    def set_nameserver(self, subnet: str, address: str) -> None:
        old = self.cloud.subnets[subnet]
        self.cloud.subnets[subnet] = msgspec.structs.replace(old, nameservers=(address,))

    def all_ports(self) -> list[NeutronPort]:
        return list(self.cloud.all_ports.values())

    def foreign_port(self, **about: Any) -> str:
        made = NeutronPort(id=str(uuid.uuid4()), network_id=self.network, mac="fa:16:3e:ff:00:01", **about)
        self.cloud.add_port(made)
        return made.id

    def limit_ports(self, count: int | None) -> None:
        self.cloud.quota = count

    async def go_down(self) -> None:
        self.cloud.down = True

    async def come_back(self) -> None:
        self.cloud.down = False

    def lose_answer(self) -> None:
        self.cloud.lose_answers += 1

    def hang(self) -> None:
        self.cloud.hang = True


def _fake_terms(subnet: dict[str, Any]) -> dict[str, Any]:
    document = {"id": "", "network_id": "", "cidr": "", **subnet}
    parsed = documents.parse_subnet(document)
    about: dict[str, Any] = {"routes": parsed.routes, "nameservers": parsed.nameservers}
    return about | ({"gateway": parsed.gateway} if "gateway_ip" in subnet else {})


class RealWorld(World):
    """podvif's client, through a wire of the test's own, on a real Neutron."""

    _cidrs: Iterator[int] = itertools.count(20)

    def __init__(self, lab: PrivateNeutron, wire: Wire, folder: Path) -> None:
        super().__init__()
        self.lab = lab
        self.wire = wire
        self._folder = folder
        self._clients: list[Neutron] = []
        self.network, self.subnet = lab.network(f"10.{next(self._cidrs)}.0.0/24", name="default-subnet")
        self.neutron = self.client()

    def client(self, user: str = "service") -> Neutron:
        options = self.lab.options(user) | {"endpoint": self.wire.url, "endpoint_override": self.wire.url}
        file = self._folder / f"{user}.conf"
        lines = [f"{key} = {value}" for key, value in (options | {"request_timeout": "20"}).items()]
        file.write_text("\n".join(["[neutron]", *lines]))
        made = Adapter(access.load([str(file)]), clock=self.clock)
        self._clients.append(made)
        return made

    async def close(self) -> None:
        """End the clients, and leave no port and no network for the next case."""
        for client in self._clients:
            await client.close()
        await asyncio.to_thread(self._clear)

    def _clear(self) -> None:
        self.lab.remove_ports()
        self.limit_ports(None)
        for network in self.lab.ask("GET", "/networks?fields=id")["networks"]:
            self.lab.ask("DELETE", f"/networks/{network['id']}")

    def make_network(self, cidr: str, name: str = "", *, port_security: bool = False, **subnet: Any) -> tuple[str, str]:
        return self.lab.network(cidr, port_security=port_security, name=name, **subnet)

    def add_subnet(self, network: str, cidr: str, name: str = "", **about: Any) -> str:
        made = self.lab.create(
            "subnet", network_id=network, cidr=cidr, ip_version=4, name=name, enable_dhcp=False, **about
        )
        return str(made["id"])

    def set_nameserver(self, subnet: str, address: str) -> None:
        self.lab.ask("PUT", f"/subnets/{subnet}", {"subnet": {"dns_nameservers": [address]}})

    def all_ports(self) -> list[NeutronPort]:
        return [documents.parse_port(port) for port in self.lab.ask("GET", "/ports")["ports"]]

    def foreign_port(self, **about: Any) -> str:
        return str(self.lab.create("port", network_id=self.network, **about)["id"])

    def limit_ports(self, count: int | None) -> None:
        self.lab.ask("PUT", "/quotas/services", {"quota": {"port": -1 if count is None else count}})

    async def go_down(self) -> None:
        await self.wire.cut()

    async def come_back(self) -> None:
        await self.wire.join()

    def lose_answer(self) -> None:
        self.wire.lose_answers += 1

    def hang(self) -> None:
        self.wire.hang = True
