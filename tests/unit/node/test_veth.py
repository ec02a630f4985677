"""Kernel ports in the daemon: from ADD to DEL, over a fake switch and fake devices that behave."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif import names
from podvif.core import decide
from podvif.core.attach import Step, Want
from podvif.errors import Bug, PodvifError, Refused, Retry
from podvif.model import Addresses, Attachment, Goal, IpamCall, PortKind, SeenDevice
from podvif.node.converge import WAITS
from podvif.node.journal import Journal
from tests.fakes.devices import FakeDevices
from tests.fakes.ipam import FakeIpam
from tests.fakes.node import Death, Life, Node
from tests.fakes.values import ATTACHMENT, config, entry, kernel_vif

NETWORK = config(portType="veth", ipam={"type": "host-local"})
PLAIN = config(portType="veth")
NETNS = "/proc/self/ns/net"
DEVICE = names.host_device(names.port_id(ATTACHMENT))


def begin(node: Node, goal: Goal = Goal.ATTACHED, kind: PortKind = PortKind.VETH, **changes: Any) -> Want:
    """Write an entry into the journal, and want it to be attached or absent."""
    inode = Path(NETNS).stat().st_ino
    made = entry(goal=goal, vif=kernel_vif(kind), **{"netns": NETNS, "netns_inode": inode, **changes})
    node.journal.put(made)
    return Want(ATTACHMENT, goal, made.vif, reserve=made.ipam is not None)


async def walk(node: Node, want: Want, *, twice: bool = False) -> list[Step]:
    """Do what the table decides, each act once or twice; returns the steps."""
    taken = []
    while step := decide.next_step(want, seen := node.driver.observe(want)):
        assert isinstance(step, Step), step
        taken.append(step)
        if step in WAITS:
            await node.driver.wait(want, step, seen)
            continue
        await node.driver.do(want, step, seen)
        if twice and step is not Step.MAKE_PAIR:  # the kernel refuses a second pair of one name, and so do we
            await node.driver.do(want, step, seen)
        assert decide.next_step(want, node.driver.observe(want)) is not step
    return taken


async def test_every_step_twice(node: Node) -> None:
    """Each step on the way there and back may be done twice, and is then not decided again."""
    there = await walk(node, begin(node), twice=True)
    back = await walk(node, begin(node, Goal.LEAVING), twice=True)

    assert [step for step in there if step not in WAITS] == [Step.MAKE_PAIR, Step.PLUG, Step.SET_UP_PAIR]
    assert back == [Step.REMOVE_PAIR, Step.UNPLUG, Step.FORGET]
    assert node.left() == []


async def test_add_and_del(node: Node) -> None:
    """ADD answers with both ends and the addresses, the pod has them, and DEL leaves nothing; both may be repeated."""
    result = await node.call("ADD", NETWORK)
    vif = kernel_vif()
    assert result["interfaces"] == [
        {"name": DEVICE, "mac": names.host_mac(ATTACHMENT), "mtu": 1500},
        {"name": "net1", "mac": vif.mac, "mtu": 1500, "sandbox": NETNS},
    ]
    assert [ip["interface"] for ip in result["ips"]] == [1]
    pod = node.devices.look_into(NETNS, "net1")
    assert pod
    assert pod.addresses == {ip["address"] for ip in result["ips"]}
    port = node.switch.port(DEVICE)
    assert port
    assert port.external_ids[names.MARK_DEVICE] == str(pod.peer)
    assert not list(node.pods.iterdir())

    assert await node.call("ADD", NETWORK) == result
    await node.call("CHECK", {**NETWORK, "prevResult": result})
    for _ in range(2):
        assert await node.call("DEL", NETWORK, CNI_NETNS="") == {}
    assert node.left() == []


@pytest.mark.parametrize(
    "step", [*sorted(WAITS, key=lambda step: step.name), Step.UNPLUG, Step.REMOVE_PAIR, Step.PLUG, Step.TAKE_SOCKET]
)
async def test_impossible_acts(node: Node, step: Step) -> None:
    """A wait is no act, a socket's step is none of a kernel port, and without devices or port there is nothing to do."""
    want = begin(node)
    with pytest.raises(Bug):
        await node.driver.do(want, step, node.driver.observe(want))


@pytest.mark.parametrize("step", [Step.MAKE_PAIR, Step.SET_UP_PAIR])
async def test_without_journal(node: Node, step: Step) -> None:
    """Devices are made for what the journal knows; else it is a bug."""
    want = Want(ATTACHMENT, Goal.ATTACHED, kernel_vif())
    with pytest.raises(Bug, match="is not in the journal"):
        await node.driver.do(want, step, node.driver.observe(want))


async def test_hybrid(node: Node) -> None:
    """A hybrid port has its host end in the Linux bridge that os-vif makes; what is missing there is plugged again."""
    want = begin(node, kind=PortKind.HYBRID)
    port_id = want.vif.port_id
    near, far = names.linux_bridge_ends(port_id)
    seen = node.driver.observe(want)
    await node.driver.do(want, Step.MAKE_PAIR, seen)
    assert decide.next_step(want, node.driver.observe(want)) is Step.PLUG

    node.devices.add(names.linux_bridge(port_id))  # as os-vif does
    node.devices.add(near, master=names.linux_bridge(port_id))
    node.devices.add(far)
    assert await walk(node, want) == [Step.PLUG, Step.AWAIT_PORT, Step.JOIN_LINUX_BRIDGE, Step.SET_UP_PAIR]

    host = node.devices.look_at(names.host_device(port_id))
    assert host
    assert host.master == names.linux_bridge(port_id)
    node.devices.delete(near)
    assert decide.next_step(want, node.driver.observe(want)) is Step.UNPLUG


class OddIpam(FakeIpam):
    """A plugin that calls something a gateway that is none."""

    async def add(self, attachment: Attachment, call: IpamCall) -> Addresses:
        found = await super().add(attachment, call)
        return msgspec.structs.replace(found, ips=(msgspec.structs.replace(found.ips[0], gateway="router"),))


async def test_bad_gateway(tmp_path: Path) -> None:
    """What IPAM calls a gateway and is none is refused before the kernel is asked, and nothing is left."""
    node = Node(tmp_path, ipam=OddIpam())
    with pytest.raises(Refused, match="router"):
        await node.call("ADD", NETWORK)
    assert node.left() == []


# -- what is in the way ------------------------------------------------------------------------------------------------


async def test_foreign_host_device(node: Node) -> None:
    """A foreign device of the host end's name refuses ADD, and stays through ADD and DEL."""
    node.devices.add(DEVICE)
    with pytest.raises(Refused, match=f"network device {DEVICE} is there and is not podvif's"):
        await node.call("ADD", NETWORK)
    await node.call("DEL", NETWORK)

    assert node.left() == [f"device {DEVICE}"]


async def test_foreign_interface(node: Node) -> None:
    """An interface of that name in the sandbox refuses ADD, and stays."""
    node.devices.add("net1", NETNS)
    with pytest.raises(Refused, match="the sandbox has a network interface called net1 already"):
        await node.call("ADD", NETWORK)

    assert node.left() == []
    assert node.devices.look_into(NETNS, "net1")


# -- what happens to them ----------------------------------------------------------------------------------------------


async def test_device_is_lost(node: Node) -> None:
    """A lost pair is made again with all that it had, and so is its OVS port."""
    result = await node.call("ADD", NETWORK)
    before = node.switch.port(DEVICE)
    node.devices.delete(DEVICE)

    await node.recover()

    after = node.switch.port(DEVICE)
    assert before
    assert after
    assert after.external_ids[names.MARK_DEVICE] != before.external_ids[names.MARK_DEVICE]
    await node.call("CHECK", {**NETWORK, "prevResult": result})


async def test_device_is_made_again(node: Node) -> None:
    """Where somebody else has made the host end again, it is foreign, and CHECK says so."""
    result = await node.call("ADD", PLAIN)
    node.devices.delete(DEVICE)
    node.devices.add(DEVICE)

    await node.recover()

    with pytest.raises(Retry, match="is not podvif's"):
        await node.call("CHECK", {**PLAIN, "prevResult": result})


async def test_sandbox_is_gone(node: Node) -> None:
    """What stands of a sandbox that is gone is not made again: the sweep's business."""
    await node.call("ADD", PLAIN)
    found = node.journal.get(ATTACHMENT)
    assert found
    node.journal.put(msgspec.structs.replace(found, netns="/proc/nobody/ns/net"))
    node.devices.delete(DEVICE)

    await node.recover()

    assert node.left() == [f"port {DEVICE}", f"entry {names.journal_file(ATTACHMENT, Goal.ATTACHED)}"]
    await node.call("DEL", PLAIN)
    assert node.left() == []


async def test_sandbox_goes_while_it_is_looked_at(node: Node, tmp_path: Path) -> None:
    """A sandbox that goes between two questions is gone; one that stays and cannot be looked into is worth a repeat."""
    want = begin(node)
    node.devices.lose_namespace(NETNS)
    with pytest.raises(Retry, match="cannot be looked at"):
        node.driver.observe(want)

    class Going(FakeDevices):
        def look_into(self, namespace: str, name: str) -> SeenDevice | None:
            link.unlink()
            raise Retry(f"{name} of {namespace} is gone")

    link = tmp_path / "netns"
    link.symlink_to(NETNS)
    want = begin(node, netns=str(link))
    node.driver._kernel._devices = Going()
    seen = node.driver.observe(want)
    assert seen.pair
    assert not seen.pair.sandbox


async def test_journal_is_lost(node: Node) -> None:
    """Without journal DEL removes a kernel port by its names."""
    await node.call("ADD", PLAIN)
    node.journal.remove(ATTACHMENT)

    await node.call("DEL", PLAIN)

    assert node.left() == []


async def test_ovsdb_is_away(node: Node) -> None:
    """While OVSDB is away DEL takes the interface from the pod and succeeds; the rest follows."""
    await node.call("ADD", NETWORK)
    node.switch.lose_ovsdb()
    await node.call("DEL", NETWORK)
    assert node.devices.names() == []

    node.switch.regain_ovsdb()
    await node.recover()

    assert node.left() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [Step.RESERVE_ADDRESSES, Step.MAKE_PAIR, Step.PLUG, Step.SET_UP_PAIR])
async def test_step_fails(node: Node, when: str, step: Step) -> None:
    """An ADD whose step fails, done or not, leaves nothing, and the next one succeeds."""
    node.life.failures[(when, step)] = Retry("it fails once")
    with pytest.raises(PodvifError):
        await node.call("ADD", NETWORK)
    assert node.left() == []

    await node.call("ADD", NETWORK)
    await node.call("DEL", NETWORK)
    assert node.left() == []


async def test_daemon_dies(tmp_path: Path) -> None:
    """Whenever the daemon dies during an ADD or a DEL, the next one leaves nothing of it that DEL does not remove."""
    moment = 0
    while True:
        moment += 1
        node = Node(tmp_path / str(moment), life=Life(last=moment))
        try:
            await node.call("ADD", NETWORK)
            await node.call("DEL", NETWORK)
        except Death:
            pass
        else:
            break
        after = node.again()
        await after.recover()
        if found := after.journal.get(ATTACHMENT):
            assert found.goal is Goal.ATTACHED  # it died with ADD's answer on its lips
            await after.call("DEL", NETWORK)
        assert after.left() == [], moment
        node.switch.kill_vswitchd()
    assert moment > 10


async def test_beside_a_socket(node: Node) -> None:
    """The files of a sandbox tell of its socket alone, and go with it, whatever else it has."""
    other = Attachment(ATTACHMENT.container_id, "net2")
    await node.call("ADD", PLAIN)
    await node.call("ADD", config(), other)
    assert "net1" not in (node.pods / f"{ATTACHMENT.container_id}.json").read_text()

    await node.call("DEL", config(), other)

    assert not list(node.pods.iterdir())
    assert node.devices.names() == [DEVICE]
    await node.call("DEL", PLAIN)


async def test_other_kind(node: Node) -> None:
    """An attachment that is there as a veth is not added as a socket."""
    await node.call("ADD", PLAIN)
    with pytest.raises(Refused):
        await node.call("ADD", config())
    await node.call("DEL", PLAIN)


async def test_vswitchd_apart(node: Node) -> None:
    """Where vswitchd lives in another network namespace a kernel port is refused."""
    node.driver._kernel._switch_netns = lambda: "/proc/1/ns/net"
    with pytest.raises(Refused, match="runs in another network namespace than podvif"):
        await node.call("ADD", PLAIN)
    assert node.left() == []


def test_kind_is_remembered(node: Node) -> None:
    """The journal remembers what kind of port an attachment is; an entry that does not say is of a vhost-user port."""
    begin(node)
    [path] = Path(node.settings.state_dir, "attachments").iterdir()
    assert Journal(node.settings.state_dir).all()[0].vif.kind is PortKind.VETH

    document = json.loads(path.read_text())
    del document["vif"]["kind"]
    path.write_text(json.dumps(document))

    assert Journal(node.settings.state_dir).all()[0].vif.kind is PortKind.VHOST_USER
