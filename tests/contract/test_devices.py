"""What podvif relies on in network devices; each case runs on the kernel's and on the fake, so that the fake tells the truth."""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from podvif.errors import Refused, Retry
from podvif.host import veth
from podvif.lab import programs
from podvif.lab.process import LabError, output
from podvif.lab.sandbox import sandbox
from podvif.model import Pair, Route
from podvif.node.veth import Devices
from tests.contract.conftest import not_here
from tests.fakes.devices import FakeDevices


class World:
    """Devices, and a namespace of a pod.

    Attributes:
        devices: podvif's side.
        namespace: the pod's, by path.
    """

    def __init__(self, devices: Devices, namespace: str) -> None:
        self.devices = devices
        self.namespace = namespace

    def pair(self, **changes: object) -> Pair:
        """A pair that nobody has had before."""
        values = {
            "host": f"tap{secrets.token_hex(4)}-ab",
            "host_mac": "fe:01:02:03:04:05",
            "namespace": self.namespace,
            "ifname": "eth0",
            "mac": "02:01:02:03:04:05",
            "mtu": 1400,
        }
        return Pair(**values | changes)  # type: ignore[arg-type]  # the case says what

    # What others do; each world has its own way.

    def delete(self, pair: Pair) -> None:
        """Somebody deletes the host end."""
        raise NotImplementedError

    def give_address(self, pair: Pair, address: str) -> None:
        """The pod gives its end another address."""
        raise NotImplementedError

    def make_bridge(self, name: str) -> None:
        """Somebody makes a Linux bridge on the host."""
        raise NotImplementedError


class FakeWorld(World):
    """The fake devices."""

    def __init__(self) -> None:
        self.fake = FakeDevices()
        super().__init__(self.fake, "/var/run/netns/pod")

    def delete(self, pair: Pair) -> None:
        self.fake.delete(pair.host)

    def give_address(self, pair: Pair, address: str) -> None:
        found = self.fake.look_into(pair.namespace, pair.ifname)
        assert found
        self.fake.change(pair.ifname, pair.namespace, addresses=found.addresses | {address})

    def make_bridge(self, name: str) -> None:
        self.fake.add(name)


class RealWorld(World):
    """The kernel's, in a namespace of the lab."""

    def __init__(self, stack: ExitStack) -> None:
        self._box = stack.enter_context(sandbox())
        self._stack = stack
        super().__init__(veth, str(self._box.netns))

    def pair(self, **changes: object) -> Pair:
        made = super().pair(**changes)
        self._stack.callback(self._delete, made.host)
        return made

    def _delete(self, name: str) -> None:
        if found := veth.look_at(name):
            veth.remove(name, found.index)

    def delete(self, pair: Pair) -> None:
        output([programs.ip(), "link", "delete", pair.host])

    def give_address(self, pair: Pair, address: str) -> None:
        output([programs.ip(), "-n", self._box.name, "addr", "add", address, "dev", pair.ifname])

    def make_bridge(self, name: str) -> None:
        output([programs.ip(), "link", "add", name, "type", "bridge"])
        self._stack.callback(self._delete, name)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.node)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Devices, fake or real."""
    if request.param == "fake":
        yield FakeWorld()
        return
    if os.geteuid() != 0:
        not_here("network devices need root")
    with ExitStack() as stack:
        try:
            made = RealWorld(stack)
        except LabError as error:
            not_here(str(error))
        yield made


def test_nothing_there(world: World) -> None:
    """A device that is not there is None, on the host and in the pod."""
    assert world.devices.look_at("tap-nobody") is None
    assert world.devices.look_into(world.namespace, "eth0") is None


def test_make(world: World) -> None:
    """A pair is there as a whole, its ends know each other; both are down, and leave checksums out as the kernel makes them."""
    pair = world.pair()
    world.devices.make(pair)

    host, pod = world.devices.look_at(pair.host), world.devices.look_into(world.namespace, "eth0")
    assert host
    assert pod
    assert (host.mac, host.mtu, host.up, host.peer, host.master) == (pair.host_mac, 1400, False, pod.index, None)
    assert (pod.mac, pod.mtu, pod.up, pod.peer, pod.checksums_left_out) == (pair.mac, 1400, False, host.index, True)
    assert not pod.addresses | pod.routes


def test_host_name_is_taken(world: World) -> None:
    """Where the host end's name is taken nothing is made, and what has it stays."""
    pair = world.pair()
    world.devices.make(pair)
    before = world.devices.look_at(pair.host)

    with pytest.raises(Refused, match="File exists"):
        world.devices.make(world.pair(host=pair.host, ifname="eth1"))

    assert world.devices.look_at(pair.host) == before
    assert world.devices.look_into(world.namespace, "eth1") is None


def test_name_in_the_pod_is_taken(world: World) -> None:
    """Where the interface's name is taken nothing is made, and what has it stays."""
    world.devices.make(world.pair())
    before, second = world.devices.look_into(world.namespace, "eth0"), world.pair()

    with pytest.raises(Refused, match="File exists"):
        world.devices.make(second)

    assert world.devices.look_at(second.host) is None
    assert world.devices.look_into(world.namespace, "eth0") == before


def test_set_up(world: World) -> None:
    """Both ends get what they lack, checksums filled in among it; a repeat changes nothing."""
    pair = world.pair()
    world.devices.make(pair)
    addresses = ("10.1.0.5/24", "fd00::5/64")
    routes = (Route("0.0.0.0/0", "10.1.0.1"), Route("10.9.0.0/16", "10.1.0.2", priority=7, mtu=1300, table=100))
    for _ in range(2):
        world.devices.set_up(pair, addresses, routes)

        pod = world.devices.look_into(world.namespace, "eth0")
        assert pod
        assert (pod.up, pod.checksums_left_out) == (True, False)
        assert set(addresses) <= pod.addresses
        assert {("0.0.0.0/0", "10.1.0.1", 254), ("10.9.0.0/16", "10.1.0.2", 100)} <= pod.routes


def test_set_up_changes(world: World) -> None:
    """MAC and MTU of a pair that somebody has changed are as wanted afterwards, and what the pod has added stays."""
    pair = world.pair()
    world.devices.make(pair)
    world.devices.set_up(pair, ("10.1.0.5/24",), ())
    world.give_address(pair, "192.0.2.1/24")
    changed = world.pair(host=pair.host, mac="02:00:00:00:00:42", mtu=1450)

    world.devices.set_up(changed, ("10.1.0.5/24",), ())

    host, pod = world.devices.look_at(pair.host), world.devices.look_into(world.namespace, "eth0")
    assert host
    assert pod
    assert (host.mtu, pod.mac, pod.mtu) == (1450, "02:00:00:00:00:42", 1450)
    assert {"10.1.0.5/24", "192.0.2.1/24"} <= pod.addresses


def test_unreachable_gateway(world: World) -> None:
    """A route whose gateway is in none of the subnets is refused with its destination."""
    pair = world.pair()
    world.devices.make(pair)

    with pytest.raises(Refused, match=r"the route to 10\.9\.0\.0/16 cannot be made: Network is unreachable"):
        world.devices.set_up(pair, ("10.1.0.5/24",), (Route("10.9.0.0/16", "192.0.2.1"),))


def test_set_up_nothing(world: World) -> None:
    """A pair that is gone cannot be set up: worth a repeat."""
    with pytest.raises(Retry, match="is gone"):
        world.devices.set_up(world.pair(), (), ())


def test_remove(world: World) -> None:
    """Both ends go together, and gone already is fine; a device that has another number stays."""
    pair = world.pair()
    world.devices.make(pair)
    host = world.devices.look_at(pair.host)
    assert host
    world.devices.remove(pair.host, host.index + 1000)
    assert world.devices.look_at(pair.host)

    for _ in range(2):
        world.devices.remove(pair.host, host.index)
        assert world.devices.look_at(pair.host) is None
        assert world.devices.look_into(world.namespace, "eth0") is None


def test_made_again(world: World) -> None:
    """A device that is made again under its name has another number."""
    pair = world.pair()
    world.devices.make(pair)
    before = world.devices.look_at(pair.host)
    world.delete(pair)
    world.devices.make(pair)

    after = world.devices.look_at(pair.host)
    assert before
    assert after
    assert after.index != before.index


def test_join(world: World) -> None:
    """The host end is in the Linux bridge it was put into, also at a repeat; without a bridge it is worth another try."""
    pair, bridge = world.pair(), f"qbr{secrets.token_hex(4)}"
    world.devices.make(pair)
    with pytest.raises(Retry, match="is gone"):
        world.devices.join(pair.host, bridge)
    world.make_bridge(bridge)

    for _ in range(2):
        world.devices.join(pair.host, bridge)
        host = world.devices.look_at(pair.host)
        assert host
        assert host.master == bridge


def test_namespace_is_gone(world: World) -> None:
    """Where the pod's namespace is gone nothing is made and nothing seen: worth a repeat."""
    gone = world.pair(namespace="/var/run/netns/podvif-nobody")
    if isinstance(world, FakeWorld):
        world.fake.lose_namespace(gone.namespace)

    with pytest.raises(Retry, match="No such file or directory"):
        world.devices.make(gone)
    with pytest.raises(Retry, match="No such file or directory"):
        world.devices.look_into(gone.namespace, "eth0")
    assert world.devices.look_at(gone.host) is None
