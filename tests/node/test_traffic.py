"""Packets of real DPDK applications that know nothing but their pod's files.

Law: two applications share a core here, so a test says that packets arrive, or that they do not while they do elsewhere at
the same time; it never speaks of a rate.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from podvif.lab import ovs as lab_ovs
from podvif.lab import testpmd
from podvif.lab.hugepages import hugepages
from podvif.lab.process import LabError
from podvif.lab.sandbox import Sandbox
from podvif.lab.testpmd import Testpmd
from tests.node.support import MODES, Attached, Node

Boxes = Callable[[], Sandbox]
modes = pytest.mark.parametrize("mode", MODES)

MANY = 5000
"""Packets, after which nobody can say that only the first ones came through."""

EVERYBODY = "ff:ff:ff:ff:ff:ff"

JUMBO_PAGES = 128
"""Hugepages that vswitchd takes for a port with an MTU of 9000 once an application is connected."""


@pytest.fixture(scope="module", autouse=True)
def pages() -> Iterator[None]:
    """Hugepages for three applications, and for what vswitchd takes for their ports."""
    with hugepages(3 * (testpmd.PAGES + lab_ovs.PAGES_PER_PORT)):
        yield


class Applications:
    """Starts an application of a pod: it gets the pod's shell file, and its network namespace to run in."""

    def __init__(self, node: Node, folder: Path, stack: ExitStack) -> None:
        self._node, self._folder, self._stack = node, folder, stack

    def start(self, pod: Attached, *, to: str = "", extra: tuple[str, ...] = (), forward: str = "") -> Testpmd:
        """Start one that receives, or sends to a MAC."""
        env = self._node.mount_point / f"{pod.box.container_id}.env"
        kind = forward or ("txonly" if to else "rxonly")
        application = Testpmd(env, self._folder, netns=pod.box.name, forward=kind, eth_peer=to, extra=extra)
        return self._stack.enter_context(application)


@pytest.fixture
def applications(node: Node, folder: Path) -> Iterator[Applications]:
    with ExitStack() as stack:
        yield Applications(node, folder, stack)


@modes
def test_packets_arrive(node: Node, boxes: Boxes, applications: Applications, mode: str) -> None:
    """What one pod's application sends arrives at the other's, and goes on while the daemon is killed and started again."""
    with node.attached(node.network(mode), boxes()) as sender, node.attached(node.network(mode), boxes()) as receiver:
        rx = applications.start(receiver)
        applications.start(sender, to=receiver.mac)
        arrived = rx.wait_for_rx(packets=MANY).rx_packets
        node.daemon.kill()
        node.daemon.start()
        for each in (sender, receiver):
            assert node.cni("CHECK", each.checking, each.box).code == 0
        rx.wait_for_rx(packets=arrived + MANY)


def test_packets_arrive_between_the_modes(node: Node, boxes: Boxes, applications: Applications) -> None:
    """A pod in server mode and one in client mode reach each other, in both directions."""
    with (
        node.attached(node.network("server"), boxes()) as one,
        node.attached(node.network("client"), boxes()) as other,
    ):
        first = applications.start(one, to=other.mac, forward="flowgen")
        second = applications.start(other, to=one.mac, forward="flowgen")
        first.wait_for_rx(packets=MANY)
        second.wait_for_rx(packets=MANY)


def test_one_application_with_two_interfaces(node: Node, box: Sandbox, applications: Applications) -> None:
    """An application that takes all interfaces of its pod from the shell file reaches the one from the other."""
    with (
        node.attached(node.network("client"), box, "eth0") as one,
        node.attached(node.network("client", name="second"), box, "net1") as other,
    ):
        # testpmd sends out of one port what it would have received on the other.
        application = applications.start(one, to=other.mac, forward="flowgen", extra=(f"--eth-peer=1,{one.mac}",))
        application.wait_for_rx(packets=MANY, port=0)
        application.wait_for_rx(packets=MANY, port=1)


@modes
def test_vlans(node: Node, boxes: Boxes, applications: Applications, mode: str) -> None:
    """A broadcast in VLAN 100 arrives at another pod in VLAN 100, and meanwhile not at one in VLAN 200."""
    with ExitStack() as stack:
        sender, inside, outside = (
            stack.enter_context(node.attached(node.network(mode, vlan=vlan), boxes())) for vlan in (100, 100, 200)
        )
        control, silent = applications.start(inside), applications.start(outside)
        node.ovs.wait_for_link(outside.port)
        applications.start(sender, to=EVERYBODY)
        control.wait_for_rx(packets=MANY)
        rounds = silent.wait_for(lambda screen: screen.rounds > 0, 20, "figures of the silent one").rounds
        silent.wait_for(lambda screen: screen.rounds > rounds, 20, "figures from after the packets")
        assert silent.statistics().rx_packets == 0


@modes
def test_two_queues(node: Node, box: Sandbox, applications: Applications, mode: str) -> None:
    """With queues=2 testpmd takes --rxq=2 --txq=2 and OVS has two queues; with queues=1 testpmd refuses them."""
    wanted = ("--rxq=2", "--txq=2", "--nb-cores=1")
    with node.attached(node.network(mode, queues=2), box) as attached:
        applications.start(attached, extra=wanted).wait_for_ports()
        node.ovs.wait_for_link(attached.port)
        # Two vrings to a queue pair.
        node.ovs.vsctl("wait-until", "Interface", attached.port, "status:num_of_vrings=4")
    with node.attached(node.network(mode, queues=1), box, "net1") as attached:
        refusing = applications.start(attached, extra=wanted)
        with pytest.raises(LabError, match="testpmd ended"):
            refusing.wait_for_ports()


@modes
def test_jumbo_frames(node: Node, boxes: Boxes, applications: Applications, mode: str) -> None:
    """With mtu=9000 frames of 9000 bytes arrive."""
    large = ("--mbuf-size=10240", "--total-num-mbufs=4096", "--max-pkt-len=9018")
    with hugepages(2 * (testpmd.PAGES + JUMBO_PAGES)), ExitStack() as stack:
        sender, receiver = (stack.enter_context(node.attached(node.network(mode, mtu=9000), boxes())) for _ in range(2))
        rx = applications.start(receiver, extra=large)
        applications.start(sender, to=receiver.mac, extra=(*large, "--txpkts=9000"))
        rx.wait_for_rx(packets=MANY)
        assert node.column("Interface", receiver.port, "mtu") == "9000"


@modes
def test_del_under_a_running_application(node: Node, box: Sandbox, applications: Applications, mode: str) -> None:
    """DEL while the application runs leaves nothing, and neither does the application when it ends afterwards."""
    attached = node.add(node.network(mode), box)
    application = applications.start(attached)
    application.wait_for_ports()
    node.ovs.wait_for_link(attached.port)
    node.delete(attached)
    assert node.leftovers() == []
    application.stop()
    assert node.leftovers() == []


def test_an_application_that_was_killed(node: Node, box: Sandbox, applications: Applications) -> None:
    """In server mode a killed application leaves its socket behind; it is cleared away, and a new one starts."""
    with node.attached(node.network("server"), box) as attached:
        first = applications.start(attached)
        first.wait_for_ports()
        node.ovs.wait_for_link(attached.port)
        first.child.kill()
        node.ovs.wait_for_link(attached.port, "down")
        while attached.socket.exists():  # the test's time-out is the bound
            node.cni("CHECK", attached.checking, box)
        applications.start(attached).wait_for_ports()
        node.ovs.wait_for_link(attached.port)
