"""Kernel ports on a netdev bridge: real devices in real namespaces, real sockets of the kernel talking over them.

Law: traffic is TCP and UDP, never only ICMP, which passes where checksums are left out.  The daemon runs in vswitchd's network
namespace, as on a node.  What a test made is looked for with the machine's own tools when it ends.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podvif import names, settings
from podvif.host import netns, veth
from podvif.lab import ovs as lab_ovs
from podvif.lab import programs
from podvif.lab.hugepages import hugepages
from podvif.lab.ovs import PrivateOvs
from podvif.lab.process import output
from podvif.lab.sandbox import Sandbox, inside, sandbox
from podvif.lab.testpmd import PAGES, Testpmd
from podvif.model import Attachment
from podvif.node import surroundings
from podvif.node.checks import State
from tests.fakes.values import entry, kernel_vif
from tests.node.support import SOON, Attached, Config, Node, refused, wait_for

Boxes = Callable[[], Sandbox]

MANY = 1 << 20
"""Bytes of a conversation: more than the first window."""

MTU = 1500

HYBRID = Path(__file__).with_name("hybrid_node.py")


@pytest.fixture(scope="module")
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateOvs]:
    """A switch whose vswitchd runs in a network namespace with a name, where it may be killed and the devices stay."""
    with (
        sandbox() as home,
        hugepages(lab_ovs.PAGES),
        PrivateOvs(tmp_path_factory.mktemp("v"), netns=home.name) as switch,
    ):
        yield switch


@pytest.fixture(scope="module")
def standing(ovs: PrivateOvs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The daemon in that namespace; it sweeps soon."""
    node = Node(ovs, tmp_path_factory.mktemp("n"), more={"node": {"resync_interval": "1", "sweep_grace": "1"}})
    with node.running():
        yield node


@pytest.fixture
def node(standing: Node) -> Iterator[Node]:
    """The standing node; the test has to leave nothing on it, no device either."""
    yield standing
    standing.finish()
    assert devices(standing) == []


def network(node: Node, **keys: Any) -> Config:
    """A configuration that asks for a veth."""
    return node.network(**{"portType": "veth", "vhostuserMode": None, **keys})


def devices(node: Node) -> list[str]:
    """The devices of kernel ports in the switch's namespace."""
    listed = json.loads(output([programs.ip(), "-n", node.ovs.netns, "-json", "link", "show"]))
    return [link["ifname"] for link in listed if link["ifname"][:3] in {"tap", "qbr", "qvb", "qvo"}]


def host_end(box: Sandbox, ifname: str = "eth0") -> str:
    """The name of the host end of an interface of a sandbox."""
    return names.host_device(names.port_id(Attachment(box.container_id, ifname)))


def ip(where: str, *arguments: str) -> Any:
    """What `ip -json` says in a namespace."""
    text = output([programs.ip(), "-n", where, "-json", *arguments])
    return json.loads(text) if text.strip() else []


def in_namespace(box: Sandbox, make: Callable[[], socket.socket]) -> socket.socket:
    """A socket of a sandbox: it goes on belonging to it wherever it is used."""
    made = netns.inside(str(box.netns), make)
    made.settimeout(SOON)
    return made


def tcp(one: Attached, other: Attached, seconds: float = SOON) -> None:
    """A conversation from one to the other: every byte arrives, and the answer comes back."""
    sent = os.urandom(1024) * (MANY // 1024)
    family = socket.AF_INET6 if ":" in other.address else socket.AF_INET

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(TimeoutError), listening, listening.accept()[0] as link:
            link.settimeout(SOON)
            digest, left = hashlib.sha256(), len(sent)
            while left and (data := link.recv(1 << 16)):
                digest.update(data)
                left -= len(data)
            link.sendall(digest.digest())

    listening = in_namespace(other.box, lambda: socket.create_server((other.address, 0), family=family))
    listening.settimeout(seconds)
    server = threading.Thread(target=serve, args=(listening,))
    server.start()
    try:
        where = listening.getsockname()[:2]
        with in_namespace(one.box, lambda: socket.create_connection(where, seconds)) as link:
            link.sendall(sent)
            assert link.recv(64) == hashlib.sha256(sent).digest()
    finally:
        server.join(SOON)


def udp(one: Attached, other: Attached, size: int = 64) -> None:
    """A datagram from one to the other that nobody may cut into pieces."""
    with (
        in_namespace(other.box, lambda: _bound(other.address)) as receiving,
        in_namespace(one.box, lambda: _bound(one.address)) as sending,
    ):
        sending.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: don't fragment
        text = os.urandom(size)
        sending.sendto(text, receiving.getsockname())
        assert receiving.recv(1 << 16) == text


def _bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 0))
    return made


def ping(box: Sandbox, address: str, size: int = 56) -> None:
    """An ICMP echo that is answered; asked again while nothing comes."""
    body = struct.pack("!BBHHH", 8, 0, 0, 0x1234, 1) + bytes(size)
    words = struct.unpack(f"!{len(body) // 2}H", body)
    folded = sum(words) % 0xFFFF
    asked = body[:2] + struct.pack("!H", 0xFFFF - folded) + body[4:]
    with in_namespace(box, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as raw:
        raw.settimeout(1)
        for _ in range(int(SOON)):
            raw.sendto(asked, (address, 0))
            with contextlib.suppress(TimeoutError):
                answer, (who, _) = raw.recvfrom(1 << 16)
                if who == address and answer[20] == 0:
                    return
    raise AssertionError(f"{address} does not answer")


@pytest.fixture
def pair(node: Node, boxes: Boxes) -> Iterator[tuple[Attached, Attached]]:
    """Two pods with a veth each."""
    with node.attached(network(node), boxes()) as one, node.attached(network(node), boxes()) as other:
        yield one, other


# -- what there is -----------------------------------------------------------------------------------------------------


def test_traffic(pair: tuple[Attached, Attached]) -> None:
    """Two pods with veths talk TCP and UDP, both ways, and datagrams of the full MTU pass whole."""
    one, other = pair
    tcp(one, other)
    tcp(other, one)
    udp(one, other)
    udp(other, one, MTU - 28)


def test_jumbo(node: Node, boxes: Boxes) -> None:
    """With an MTU of 9000 datagrams of that size pass whole."""
    big = network(node, mtu=9000)
    with node.attached(big, boxes()) as one, node.attached(big, boxes()) as other:
        udp(one, other, 9000 - 28)
        tcp(one, other)


def test_vlan(node: Node, boxes: Boxes) -> None:
    """Pods in one VLAN talk."""
    tagged = network(node, vlan=100)
    with node.attached(tagged, boxes()) as one, node.attached(tagged, boxes()) as other:
        tcp(one, other)
        assert node.column("Port", host_end(one.box), "tag") == "100"


def test_host_is_apart(node: Node, box: Sandbox) -> None:
    """The node's own kernel, which sees the frames of a host end too, takes none of them: nothing passes beside OVS."""
    home = Sandbox(node.ovs.netns, "")
    output([programs.ip(), "-n", home.name, "link", "set", "lo", "up"])
    output([programs.ip(), "-n", home.name, "addr", "add", "10.200.0.1/32", "dev", "lo"])
    with (
        node.attached(network(node), box) as attached,
        in_namespace(home, lambda: _bound("10.200.0.1")) as receiving,
        in_namespace(box, lambda: _bound(attached.address)) as sending,
    ):
        [host] = ip(home.name, "addr", "show", "dev", host_end(box))
        assert host["addr_info"] == []
        # Whoever knows the MAC needs no answer to ARP.
        there = ["10.200.0.1", "lladdr", host["address"], "dev", "eth0"]
        output([programs.ip(), "-n", box.name, "route", "add", "10.200.0.1", "dev", "eth0"])
        output([programs.ip(), "-n", box.name, "neigh", "add", *there])
        sending.sendto(b"anybody there?", receiving.getsockname())
        receiving.settimeout(2)
        with pytest.raises(TimeoutError):
            receiving.recv(64)


def test_what_the_pod_has(node: Node, box: Sandbox) -> None:
    """The answer and the pod agree: host end and pod end, MAC, MTU, address, gateway and routes; checksums are filled in."""
    addresses = {**node.host_local("10.9.8.0/24"), "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.99.0.0/16"}]}
    config = network(node, mtu=1400, ipam=addresses, mac="02:00:00:00:00:42")
    with node.attached(config, box) as attached:
        device = host_end(box)
        near, far = attached.result["interfaces"]
        assert near == {"name": device, "mac": names.host_mac(Attachment(box.container_id, "eth0")), "mtu": 1400}
        assert far == {"name": "eth0", "mac": "02:00:00:00:00:42", "mtu": 1400, "sandbox": str(box.netns)}
        assert [item["interface"] for item in attached.result["ips"]] == [1]

        [link] = ip(box.name, "link", "show", "dev", "eth0")
        assert (link["address"], link["mtu"], link["operstate"]) == ("02:00:00:00:00:42", 1400, "UP")
        [host] = ip(node.ovs.netns, "link", "show", "dev", device)
        assert (host["mtu"], host["operstate"]) == (1400, "UP")
        [shown] = ip(box.name, "-4", "addr", "show", "dev", "eth0")
        assert [(one["local"], one["prefixlen"]) for one in shown["addr_info"]] == [(attached.address, 24)]
        gateway = attached.result["ips"][0]["gateway"]
        routes = {route["dst"]: route.get("gateway") for route in ip(box.name, "route", "show")}
        assert routes == {"default": gateway, "10.99.0.0/16": gateway, "10.9.8.0/24": None}

        assert node.cni("CHECK", attached.checking, box).code == 0
        [row] = node.status()["attachments"]
        assert (row["mode"], row["port"], row["link"], row["trouble"]) == ("veth", device, "connected", None)
        assert not list(node.mount_point.iterdir())


def test_ipv6(node: Node, boxes: Boxes) -> None:
    """An IPv6 address works at once, also where the runtime has turned IPv6 off in the sandbox."""
    both = {"type": "host-local", "dataDir": str(node.leases), "ranges": [[{"subnet": "fd00:77::/64"}]]}
    one, other = boxes(), boxes()
    output([*inside(one.name), "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"])
    with node.attached(network(node, ipam=both), one) as near, node.attached(network(node, ipam=both), other) as far:
        tcp(near, far)


def test_without_addresses(node: Node, box: Sandbox) -> None:
    """Without IPAM the interface is up and has no address."""
    with node.attached(network(node, ipam=None), box) as attached:
        assert "ips" not in attached.result
        [link] = ip(box.name, "addr", "show", "dev", "eth0")
        assert (link["operstate"], [one["family"] for one in link["addr_info"]]) == ("UP", ["inet6"])  # its link-local
        assert node.cni("CHECK", attached.checking, box).code == 0


def test_beside_a_socket(node: Node, box: Sandbox) -> None:
    """A pod may have both kinds; its files tell of the socket alone, and either goes without the other."""
    with node.attached(network(node), box):
        with node.attached(node.network("server"), box, "net1"):
            document = json.loads((node.mount_point / f"{box.container_id}.json").read_text())
            assert [interface["ifname"] for interface in document["interfaces"]] == ["net1"]
        assert not list(node.mount_point.iterdir())
        assert devices(node) == [host_end(box)]


def test_with_a_dpdk_application(node: Node, boxes: Boxes, folder: Path) -> None:
    """A veth pod and a DPDK application exchange packets, small ones and of the full MTU."""
    with (
        hugepages(PAGES + lab_ovs.PAGES_PER_PORT),
        node.attached(node.network("server"), boxes()) as socket_pod,
        node.attached(network(node), boxes()) as veth_pod,
    ):
        env = node.mount_point / f"{socket_pod.box.container_id}.env"
        with Testpmd(env, folder, netns=socket_pod.box.name, forward="icmpecho"):
            node.ovs.vsctl("wait-until", "Interface", socket_pod.port, "link_state=up")
            ping(veth_pod.box, socket_pod.address)
            ping(veth_pod.box, socket_pod.address, MTU - 28)


# -- repeats and refusals ----------------------------------------------------------------------------------------------


def test_repeats(node: Node, box: Sandbox) -> None:
    """ADD twice gives the same answer over the same devices; DEL twice is fine, also without namespace and result."""
    attached = node.add(network(node), box)
    [before] = ip(node.ovs.netns, "link", "show", "dev", host_end(box))

    assert node.cni("ADD", attached.config, box).checked() == attached.result
    [after] = ip(node.ovs.netns, "link", "show", "dev", host_end(box))
    assert before["ifindex"] == after["ifindex"]

    for _ in range(2):
        answer = node.cni("DEL", attached.config, box, netns="")
        assert (answer.code, answer.text) == (0, "")
        assert devices(node) == []


def test_foreign_device(node: Node, box: Sandbox) -> None:
    """A device of the host end's name that somebody else made refuses ADD, and is there afterwards, after DEL too."""
    device = host_end(box)
    output([programs.ip(), "-n", node.ovs.netns, "link", "add", device, "type", "veth", "peer", "name", "foreign"])
    try:
        refused(node.cni("ADD", network(node), box), 5, f"network device {device} is there and is not podvif's")
        assert node.cni("DEL", network(node), box).code == 0
        assert devices(node) == [device]
    finally:
        output([programs.ip(), "-n", node.ovs.netns, "link", "delete", device])


def test_interface_is_there(node: Node, box: Sandbox) -> None:
    """An interface of the asked-for name in the sandbox refuses ADD, and keeps its address."""
    output([programs.ip(), "-n", box.name, "link", "add", "eth0", "type", "veth", "peer", "name", "other"])
    refused(node.cni("ADD", network(node), box), 4, "the sandbox has a network interface called eth0 already")
    assert [link["ifname"] for link in ip(box.name, "link", "show")] == ["lo", "other", "eth0"]


@pytest.mark.parametrize("key", [{"vhostuserMode": "server"}, {"queues": 2}])
def test_keys_of_a_socket(node: Node, box: Sandbox, key: Config) -> None:
    """A key that means nothing for a veth is refused by name."""
    refused(node.cni("ADD", network(node, **key), box), 7, next(iter(key)), "portType")


def test_node_of_its_own(node: Node, box: Sandbox) -> None:
    """The node's own namespace is no sandbox."""
    own = f"/var/run/netns/{node.ovs.netns}"
    refused(node.cni("ADD", network(node), box, netns=own), 4, "is the network namespace of the node itself")


def test_other_namespace(ovs: PrivateOvs, folder: Path, box: Sandbox) -> None:
    """A daemon that does not share vswitchd's network namespace refuses a veth and says why."""
    apart = Node(ovs, folder, netns="")
    with apart.running():
        refused(apart.cni("ADD", network(apart), box), 5, "runs in another network namespace than podvif")
    apart.finish()


def test_doctor(node: Node) -> None:
    """`podvif doctor` looks for vswitchd's namespace where kernel ports are wanted: this test's own is another one."""
    [check] = surroundings.kernel_ports(settings.load([str(node.daemon.config)]), [entry(vif=kernel_vif())], [])

    assert (check.state, check.remedy[:8]) == (State.FAILURE, "run podv")
    assert "runs in another network namespace" in check.reason


# -- what happens to them ----------------------------------------------------------------------------------------------


def test_device_is_deleted(ovs: PrivateOvs, folder: Path, boxes: Boxes) -> None:
    """A host end that somebody deletes is made again at once, with everything that the pod had, and packets pass."""
    node = Node(ovs, folder, more={"node": {"resync_interval": "3600"}})
    with (
        node.running(),
        node.attached(network(node), boxes()) as one,
        node.attached(network(node), boxes()) as other,
    ):
        device = host_end(one.box)
        [before] = ip(ovs.netns, "link", "show", "dev", device)
        output([programs.ip(), "-n", ovs.netns, "link", "delete", device])

        mended(node, one, before["ifindex"])

        assert node.cni("CHECK", one.checking, one.box).code == 0
        tcp(one, other)
    node.finish()


def test_device_is_made_again(node: Node, pair: tuple[Attached, Attached]) -> None:
    """While the daemon is away somebody deletes the host end and the OVS port stays: the next daemon makes both again."""
    one, other = pair
    device = host_end(one.box)
    [before] = ip(node.ovs.netns, "link", "show", "dev", device)
    node.daemon.kill()
    output([programs.ip(), "-n", node.ovs.netns, "link", "delete", device])
    node.daemon.start()

    mended(node, one, before["ifindex"])

    tcp(one, other)


def mended(node: Node, attached: Attached, former: int) -> None:
    """Wait until the OVS port stands on another device than the former, and all is as wanted."""
    number = f'external_ids:podvif-device!="{former}"'
    node.ovs.vsctl("wait-until", "Interface", host_end(attached.box), number, "link_state=up")
    wait_for_check(node, attached)


def wait_for_check(node: Node, attached: Attached) -> None:
    """Wait until CHECK passes; it is asked again with each change in the sandbox."""
    deadline = time.monotonic() + SOON
    with _changes(attached.box) as changes:
        while (answer := node.cni("CHECK", attached.checking, attached.box)).code:
            assert time.monotonic() < deadline, answer.text
            with contextlib.suppress(TimeoutError):
                changes.recv(1 << 16)


@contextlib.contextmanager
def _changes(box: Sandbox) -> Iterator[socket.socket]:
    """What rtnetlink tells of links, addresses and routes in a sandbox."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        made.bind((0, 0x1 | 0x10 | 0x40))  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
        return made

    with in_namespace(box, make) as events:
        events.settimeout(1)
        yield events


def test_vswitchd_is_killed(node: Node, pair: tuple[Attached, Attached]) -> None:
    """After a kill -9 of vswitchd and its return the pods talk again, over the same devices."""
    one, other = pair
    before = ip(node.ovs.netns, "link", "show", "dev", host_end(one.box))[0]["ifindex"]
    node.ovs.kill_vswitchd()
    node.ovs.start_vswitchd()
    node.ovs.vsctl("wait-until", "Interface", host_end(one.box), "link_state=up")
    node.ovs.vsctl("wait-until", "Interface", host_end(other.box), "link_state=up")

    tcp(one, other)
    udp(other, one)

    assert ip(node.ovs.netns, "link", "show", "dev", host_end(one.box))[0]["ifindex"] == before
    assert node.cni("CHECK", one.checking, one.box).code == 0


def test_daemon_is_killed(node: Node, pair: tuple[Attached, Attached]) -> None:
    """A daemon that is killed and started again changes nothing on a pair that stands."""
    one, other = pair
    before = node.column("Interface", host_end(one.box), "_uuid")
    node.daemon.kill()
    tcp(one, other)
    node.daemon.start()

    tcp(one, other)

    assert node.column("Interface", host_end(one.box), "_uuid") == before


def test_pod_takes_its_interface_down(node: Node, pair: tuple[Attached, Attached]) -> None:
    """An interface that the pod itself has taken down stays down; CHECK says so."""
    one, _ = pair
    output([programs.ip(), "-n", one.box.name, "link", "set", "eth0", "down"])
    node.ovs.vsctl("wait-until", "Interface", host_end(one.box), "link_state=down")
    node.daemon.stop()
    node.daemon.start()  # it has looked at everything before it stops

    refused(node.cni("CHECK", one.checking, one.box), 11, "eth0 is down")
    assert ip(one.box.name, "link", "show", "dev", "eth0")[0]["operstate"] == "DOWN"


def test_address_is_removed(node: Node, pair: tuple[Attached, Attached]) -> None:
    """CHECK tells of an address that is missing in the pod, and recovery gives it back."""
    one, other = pair
    output([programs.ip(), "-n", one.box.name, "addr", "flush", "dev", "eth0"])

    wait_for_check(node, one)

    tcp(one, other)


def test_checksums_are_left_out(node: Node, pair: tuple[Attached, Attached]) -> None:
    """An end that leaves checksums out gets nothing through; recovery has them filled in again."""
    one, other = pair
    node.daemon.stop()
    netns.inside(str(one.box.netns), lambda: veth._ethtool("eth0", veth._STXCSUM, 1))
    with pytest.raises(TimeoutError):
        tcp(one, other, seconds=2)

    node.daemon.start()
    wait_for_check(node, one)

    tcp(one, other)


def test_namespace_is_gone(node: Node) -> None:
    """A sandbox that goes without DEL takes its devices along; OVS port, lease and journal entry are swept."""
    with sandbox() as box:
        node.add(network(node), box)
    journal = node.daemon.journal

    wait_for(journal, lambda: not list(journal.iterdir()), "the sweep")

    assert node.leftovers() == []


def test_journal_is_lost(node: Node, box: Sandbox) -> None:
    """Without a journal DEL finds the port by its name and removes everything; without DEL the sweep does, when it is down."""
    attached = node.add(network(node, ipam=None), box)
    node.daemon.stop()
    for path in node.daemon.journal.iterdir():
        path.unlink()
    node.daemon.start()

    node.delete(attached)

    assert devices(node) == []


def test_del_without_ovsdb(node: Node, box: Sandbox) -> None:
    """While OVSDB is away DEL takes the interface from the pod and succeeds; the rest follows when OVSDB is back."""
    attached = node.add(network(node), box)
    node.ovs.stop_ovsdb()
    try:
        node.delete(attached)
        assert devices(node) == []
    finally:
        node.ovs.start_ovsdb()
    node.wait_until_recovered()


# In the order in which they are taken.
ADD_STEPS = ["JOURNAL", "RESERVE_ADDRESSES", "MAKE_PAIR", "PLUG", "SET_UP_PAIR"]
DEL_STEPS = ["REMOVE_PAIR", "UNPLUG", "RELEASE_ADDRESSES", "FORGET"]
HYBRID_STEP = "JOIN_LINUX_BRIDGE"
"""The one that only a hybrid port takes, and which its recovery below repeats."""


@pytest.mark.parametrize("step", ADD_STEPS)
def test_killed_during_add(ovs: PrivateOvs, folder: Path, box: Sandbox, step: str) -> None:
    """A daemon that is killed after any step of ADD has failed it: the next one leaves nothing of it, and ADD works."""
    node = Node(ovs, folder)
    with node.crashing_after(step) as daemon:
        refused(node.cni("ADD", network(node), box), 11, str(daemon.socket))
        assert daemon.child.wait(SOON) == -signal.SIGKILL
    with node.running():
        node.wait_until_recovered()
        assert (node.leftovers(), devices(node)) == ([], [])
        with node.attached(network(node), box) as attached:
            assert node.cni("CHECK", attached.checking, box).code == 0
    node.finish()
    assert devices(node) == []


@pytest.mark.parametrize("step", DEL_STEPS)
def test_killed_during_del(ovs: PrivateOvs, folder: Path, box: Sandbox, step: str) -> None:
    """A daemon that is killed after any step of DEL is followed by one that leaves nothing; DEL repeated works."""
    node = Node(ovs, folder)
    with node.crashing_after(step) as daemon:
        attached = node.add(network(node), box)
        refused(node.cni("DEL", attached.config, box), 11, str(daemon.socket))
        assert daemon.child.wait(SOON) == -signal.SIGKILL
    with node.running():
        node.wait_until_recovered()
        assert (node.leftovers(), devices(node)) == ([], [])
        node.delete(attached)
    node.finish()


# -- hybrid ports ------------------------------------------------------------------------------------------------------


def test_hybrid(ovs: PrivateOvs, folder: Path, boxes: Boxes) -> None:
    """A hybrid port has a Linux bridge before OVS; pods talk over it, a lost device is made again, DEL leaves no device."""
    node = Node(ovs, folder)
    with (
        node.running_as(HYBRID),
        node.attached(network(node), boxes()) as one,
        node.attached(network(node), boxes()) as other,
    ):
        port_id = names.port_id(Attachment(one.box.container_id, one.ifname))
        assert len(devices(node)) == 2 * 4
        [tap] = ip(ovs.netns, "link", "show", "dev", host_end(one.box))
        assert tap["master"] == names.linux_bridge(port_id)
        tcp(one, other)
        udp(other, one, MTU - 28)
        assert node.cni("CHECK", one.checking, one.box).code == 0

        _, far = names.linux_bridge_ends(port_id)
        output([programs.ip(), "-n", ovs.netns, "link", "delete", far])
        ovs.vsctl("wait-until", "Interface", far, "link_state=up")
        wait_for_check(node, one)
        tcp(one, other)
        output([programs.ip(), "-n", ovs.netns, "link", "delete", host_end(one.box)])
        node.daemon.stop()
        node.daemon.start()
        wait_for_check(node, one)
        tcp(other, one)
    node.finish()
    assert devices(node) == []
