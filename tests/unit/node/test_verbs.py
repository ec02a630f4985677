"""The verbs, on real files and sockets, beside a switch and an IPAM that behave."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podvif import errors, names
from podvif.core.attach import Step, Want
from podvif.errors import PodvifError, Refused, Retry
from podvif.host import files
from podvif.model import Attachment, Goal, Listener, Seen, SocketFile
from tests.fakes.node import MODE, Death, Life, MakeNode, Node
from tests.fakes.values import ATTACHMENT, BOTH, config, port_of

SECOND = Attachment(ATTACHMENT.container_id, "net2")
OTHER = Attachment("beef", "net1")
APPLICATION, OVS = Listener.APPLICATION, Listener.OVS


def network(listener: Listener = APPLICATION, **changes: Any) -> dict[str, Any]:
    """A network with IPAM, in the mode of the listener."""
    return config(**{"vhostuserMode": MODE[listener], "ipam": {"type": "fake"}} | changes)


# What Multus hands to DEL: every key of ours is lost.
BARE = {"cniVersion": "1.1.0", "name": "dpdk-net", "type": "podvif-cni"}


async def refusal(call: Any, words: str = "") -> PodvifError:
    with pytest.raises(PodvifError) as caught:
        await call
    assert words in caught.value.message
    return caught.value


async def begin_waiting(node: Node, given: dict[str, Any]) -> asyncio.Task[dict[str, Any]]:
    """An ADD that has come to wait for vswitchd."""
    node.switch.waited.clear()
    adding = asyncio.ensure_future(node.call("ADD", given))
    waited = asyncio.ensure_future(node.switch.waited.wait())
    await asyncio.wait({adding, waited}, return_when=asyncio.FIRST_COMPLETED)
    if not waited.done():
        waited.cancel()
        pytest.fail(f"ADD did not wait: {await asyncio.gather(adding, return_exceptions=True)}")
    return adding


# -- ADD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", BOTH)
async def test_add(node: Node, listener: Listener) -> None:
    """ADD answers when the port stands, the socket of the listening OVS is the pod's, and the pod's files are written."""
    answer = await node.call("ADD", network(listener))

    vif = node.vif(listener)
    assert answer["interfaces"] == [
        {"name": "net1", "mac": vif.mac, "sandbox": "/proc/self/ns/net", "mtu": 1500, "socketPath": vif.socket}
    ]
    assert answer["ips"] == [{"interface": 0, "address": "10.1.0.2/24", "gateway": "10.1.0.1"}]
    port = node.switch.port(vif.name)
    assert port is not None
    assert port == port_of(vif, external_ids=port.external_ids)
    assert names.marks(ATTACHMENT, "").items() <= port.external_ids.items()
    assert {path.name for path in node.pods.iterdir()} - {vif.name} == {"c0ffee-net1", "c0ffee.json", "c0ffee.env"}
    found = files.look_at_socket(vif.socket, [None])
    assert found is (SocketFile.BOUND if listener is OVS else SocketFile.ABSENT)
    assert list(node.rundir.iterdir()) == []
    entry = node.journal.get(ATTACHMENT)
    assert entry is not None
    assert (entry.goal, entry.vif) == (Goal.ATTACHED, vif)


@pytest.mark.parametrize("listener", BOTH)
async def test_add_is_repeatable(node: Node, listener: Listener) -> None:
    """A second ADD, also to a daemon that was started meanwhile, gives the same answer and does nothing."""
    first = await node.call("ADD", network(listener))
    marked = node.switch.facts().next_cfg

    assert await node.call("ADD", network(listener)) == first
    assert await node.again().call("ADD", network(listener)) == first
    assert (node.switch.facts().next_cfg, node.ipam.calls) == (marked, ["ADD"])


@pytest.mark.parametrize("listener", BOTH)
async def test_two_adds_at_once(node: Node, listener: Listener) -> None:
    """Two ADDs at once for one attachment get the same answer, and one port and one lease are made."""
    one, other = await asyncio.gather(node.call("ADD", network(listener)), node.call("ADD", network(listener)))

    assert one == other
    assert (len(node.switch.ports()), len(node.ipam.leases)) == (1, 1)


@pytest.mark.parametrize(
    "changes", [{"mtu": 9000}, {"vlan": 7}, {"vhostuserMode": "client"}, {"ipam": None}, {"mac": "02:00:00:00:00:07"}]
)
async def test_add_with_other_settings(node: Node, changes: dict[str, Any]) -> None:
    """An ADD that asks for something else than what stands is refused, and what stands is left alone."""
    await node.call("ADD", network())
    before = node.left()

    await refusal(node.call("ADD", network(**changes)), "c0ffee:net1 is attached with other settings")

    assert node.left() == before


async def test_add_again_while_ovsdb_is_away(node: Node) -> None:
    """A repeated ADD that fails says so and leaves what stands: an application may be running on it."""
    answer = await node.call("ADD", network(OVS))
    before = node.left()
    node.switch.lose_ovsdb()

    error = await refusal(node.call("ADD", network(OVS)), "cannot be reached")

    assert error.code == errors.TRY_AGAIN_LATER
    assert node.left() == before
    node.switch.regain_ovsdb()
    assert await node.call("ADD", network(OVS)) == answer


@pytest.mark.parametrize("listener", BOTH)
async def test_add_while_vswitchd_is_stopped(make_node: MakeNode, listener: Listener) -> None:
    """An ADD that waits for vswitchd fails within its deadline, says what it waited for and leaves nothing."""
    node = make_node(add_timeout=0.1)
    node.switch.pause_vswitchd()

    error = await refusal(node.call("ADD", network(listener)), "ovs-vswitchd has not taken OVS port vhu")

    assert error.code == errors.TRY_AGAIN_LATER
    assert node.left() == []


async def test_add_while_ovsdb_is_away(node: Node) -> None:
    """An ADD without OVSDB fails at once and is finished when OVSDB is back: nothing is left."""
    node.switch.lose_ovsdb()

    error = await refusal(node.call("ADD", network()), "OVSDB at unix:/ovs/db.sock cannot be reached")

    assert error.code == errors.TRY_AGAIN_LATER
    node.switch.regain_ovsdb()
    await node.recover()
    assert node.left() == []


@pytest.mark.parametrize("listener", BOTH)
async def test_add_that_ovs_refuses(node: Node, listener: Listener) -> None:
    """A port that OVS cannot open fails ADD with OVS's own words, and only what was there before is left."""
    vif = node.vif(listener)

    def refuse(act: str) -> None:
        if act == "plug" and listener is OVS:
            Path(vif.ovs_socket).touch()
        elif act == "plug":
            refused = port_of(vif, ofport=-1, error=f"could not open network device {vif.name}")
            asyncio.get_running_loop().call_later(0.01, node.switch.add_port, refused)

    node.switch.automatic = listener is OVS
    node.switch.before_act = refuse
    error = await refusal(node.call("ADD", network(listener)), f"could not open network device {vif.name}")

    assert error.code == errors.IO_FAILURE
    assert node.left() == ([f"socket {vif.name}"] if listener is OVS else [])


async def test_add_in_a_bridge_of_another_datapath(node: Node) -> None:
    """A bridge with another datapath is refused and stays as it is."""
    node.switch.bridges["br-dpdk"] = "system"

    await refusal(node.call("ADD", network()), "bridge br-dpdk has the datapath 'system'")

    assert node.switch.bridges == {"br-dpdk": "system"}
    assert node.left() == []


async def test_add_without_mount_point(node: Node) -> None:
    """Without the pods' directory ADD is refused with its path."""
    node.pods.rmdir()

    await refusal(node.call("ADD", network()), f"the directory of the pods' sockets {node.pods} is missing")

    node.pods.mkdir()
    assert node.left() == []


@pytest.mark.parametrize("listener", BOTH)
async def test_foreign_port(node: Node, listener: Listener) -> None:
    """A port of somebody else under our name is refused by ADD, and neither ADD nor DEL touches it or its socket."""
    vif = node.vif(listener)
    foreign = port_of(vif, type="dpdkvhostuser", external_ids={"iface-id": "vm"}, ofport=None, vhost_server_path=None)
    node.switch.add_port(foreign)
    node.switch.round()
    before = node.left()
    assert before == [f"port {vif.name}", f"socket {vif.name}"]

    await refusal(node.call("ADD", network(listener)), "is there and is not podvif's")
    await node.call("DEL", network(listener))

    assert node.left() == before
    assert files.look_at_socket(vif.ovs_socket, [None]) is SocketFile.BOUND


@pytest.mark.parametrize("listener", BOTH)
async def test_dead_sockets_are_no_hindrance(node: Node, listener: Listener) -> None:
    """Sockets that a dead application or a dead vswitchd left under our names do not fail ADD."""
    vif = node.vif(listener)
    for path in (vif.socket, vif.ovs_socket):
        _leave_dead_socket(path)

    await node.call("ADD", network(listener))

    assert files.look_at_socket(vif.socket, [None]) is (SocketFile.BOUND if listener is OVS else SocketFile.ABSENT)
    await node.call("DEL", network(listener))
    assert node.left() == []


def _leave_dead_socket(path: str) -> None:
    import socket  # noqa: PLC0415

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)


async def test_asked_address_is_not_given(node: Node) -> None:
    """When IPAM does not give the address asked for, ADD is refused and the lease given back."""
    asked = network(args={"cni": {"ips": ["10.1.0.77"]}})

    await refusal(node.call("ADD", asked), "10.1.0.77 was asked for and IPAM did not give it")

    assert node.ipam.calls == ["ADD", "DEL"]
    assert node.left() == []


async def test_asked_address_without_ipam(node: Node) -> None:
    """An address that is asked of a network without IPAM is refused before anything is made."""
    await refusal(node.call("ADD", network(ipam=None), CNI_ARGS="IP=10.1.0.5"), "has no IPAM")

    assert node.left() == []


async def test_ipam_fails(node: Node) -> None:
    """IPAM's error is ADD's, with its code; nothing is left, and the next ADD succeeds."""
    failures = [Refused("no range is left", code=101)]

    def fail(verb: str) -> None:
        if verb == "ADD" and failures:
            raise failures.pop()

    node.ipam.before_act = fail
    assert (await refusal(node.call("ADD", network()), "no range is left")).code == 101
    assert node.left() == []
    await node.call("ADD", network())


STEPS = {
    APPLICATION: [Step.RESERVE_ADDRESSES, Step.PLUG, Step.WRITE_FILES],
    OVS: [Step.RESERVE_ADDRESSES, Step.PLUG, Step.TAKE_SOCKET, Step.WRITE_FILES],
}
REMOVAL = [Step.REMOVE_FILES, Step.UNPLUG, Step.RELEASE_ADDRESSES, Step.FORGET]
FAILURES = [
    pytest.param(listener, when, step, id=f"{listener.value}-{when}-{step.name}")
    for listener in BOTH
    for when in ("before", "after")
    for step in STEPS[listener]
]


@pytest.mark.parametrize(("listener", "when", "step"), FAILURES)
async def test_each_step_of_add_fails(make_node: MakeNode, listener: Listener, when: str, step: Step) -> None:
    """Whichever step fails, before it is done or after, ADD fails with its error and leaves nothing, and a repeat succeeds."""
    node = make_node(life=Life(failures={(when, step): Retry("this step failed")}))

    await refusal(node.call("ADD", network(listener)), "this step failed")
    assert node.left() == []

    await node.call("ADD", network(listener))
    await node.call("DEL", network(listener))
    assert node.left() == []


async def test_failure_and_failing_roll_back(make_node: MakeNode) -> None:
    """When the roll back fails too, the ADD's own error is told, and the rest is removed by DEL or recovery."""
    failures: dict[tuple[str, Step], Exception] = {
        ("before", Step.WRITE_FILES): Retry("the files failed"),
        ("before", Step.UNPLUG): Retry("so did the unplug"),
    }
    node = make_node(life=Life(failures=failures))

    await refusal(node.call("ADD", network()), "the files failed")
    assert len(node.switch.ports()) == 1

    await node.recover()
    assert node.left() == []


async def test_unforeseen_error_rolls_back(make_node: MakeNode) -> None:
    """An error that nobody foresaw rolls an ADD back like any other."""
    node = make_node(life=Life(failures={("after", Step.PLUG): KeyError("?")}))

    with pytest.raises(KeyError):
        await node.call("ADD", network())

    assert node.left() == []


async def test_cancelled_add_rolls_back(node: Node) -> None:
    """An ADD that is cancelled while it waits leaves nothing."""
    node.switch.pause_vswitchd()
    running = await begin_waiting(node, network())

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert node.left() == []


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
async def test_answer_is_in_the_version_asked(node: Node, version: str) -> None:
    """ADD answers in the configuration's version."""
    assert (await node.call("ADD", network(cniVersion=version)))["cniVersion"] == version


# -- DEL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["as added", "bare", "without netns and path", "by another daemon"])
@pytest.mark.parametrize("listener", BOTH)
async def test_del(node: Node, listener: Listener, how: str) -> None:
    """DEL leaves nothing, also when all that is left of the call is container id and interface name, and can be repeated."""
    await node.call("ADD", network(listener))
    daemon = node.again() if how == "by another daemon" else node
    given = network(listener) if how == "as added" else BARE
    variables: dict[str, Any] = {"CNI_NETNS": "", "CNI_PATH": ""} if how.startswith("without") else {}

    for _ in range(2):
        assert await daemon.call("DEL", given, **variables) == {}
        assert daemon.left() == []


@pytest.mark.parametrize("listener", BOTH)
async def test_del_without_journal(node: Node, listener: Listener) -> None:
    """DEL finds port, sockets and files by their names when the journal is lost, and IPAM's lease by the configuration."""
    await node.call("ADD", network(listener))
    for path in Path(node.settings.state_dir, "attachments").iterdir():  # noqa: ASYNC240
        path.unlink()
    daemon = node.again()

    await daemon.call("DEL", network(listener))

    assert daemon.left() == []


async def test_del_of_nothing(node: Node) -> None:
    """DEL of what was never added succeeds and makes nothing."""
    await node.call("DEL", BARE, OTHER)

    assert node.left() == []
    assert node.switch.bridges == {}


async def test_del_takes_the_applications_socket(node: Node) -> None:
    """A socket that the application made, living or dead, goes with the port."""
    await node.call("ADD", network(APPLICATION))
    _leave_dead_socket(node.vif().socket)

    await node.call("DEL", network(APPLICATION))

    assert node.left() == []


async def test_del_that_cannot_be_written_down(node: Node) -> None:
    """Without OVSDB a DEL that the journal could not be told of fails: the next daemon would know nothing of it."""
    await node.call("ADD", network())
    blocked = Path(node.settings.state_dir, "attachments", names.journal_file(ATTACHMENT, Goal.LEAVING))
    blocked.mkdir()  # noqa: ASYNC240
    node.switch.lose_ovsdb()

    with pytest.raises(Retry, match="cannot be reached"):
        await node.call("DEL", network())

    blocked.rmdir()  # noqa: ASYNC240
    await node.call("DEL", network())
    found = node.again().journal.get(ATTACHMENT)
    assert found
    assert found.goal is Goal.LEAVING


@pytest.mark.parametrize("listener", BOTH)
async def test_del_while_ovsdb_is_away(node: Node, listener: Listener) -> None:
    """Without OVSDB DEL succeeds: the pod's files are gone, the entry is leaving, and the rest follows when OVSDB is back."""
    await node.call("ADD", network(listener))
    node.switch.lose_ovsdb()

    await node.call("DEL", BARE)

    assert not [path.name for path in node.pods.iterdir() if path.name.startswith("c0ffee")]
    entry = node.journal.get(ATTACHMENT)
    assert entry is not None
    assert entry.goal is Goal.LEAVING
    assert len(node.switch.ports()) == 1
    node.switch.regain_ovsdb()
    await node.recover()
    assert node.left() == []


async def test_add_of_what_is_leaving(node: Node) -> None:
    """An ADD of what is still leaving removes the rest first, and then makes it anew."""
    await node.call("ADD", network(APPLICATION))
    node.switch.lose_ovsdb()
    await node.call("DEL", BARE)
    node.switch.regain_ovsdb()

    await node.call("ADD", network(OVS))

    assert files.look_at_socket(node.vif(OVS).socket, [None]) is SocketFile.BOUND
    assert node.ipam.calls == ["ADD", "DEL", "ADD"]


async def test_two_adds_of_what_is_leaving(node: Node) -> None:
    """Two ADDs at once of what is still leaving make it anew once, with one lease."""
    await node.call("ADD", network(APPLICATION))
    node.switch.lose_ovsdb()
    await node.call("DEL", BARE)
    node.switch.regain_ovsdb()

    one, other = await asyncio.gather(node.call("ADD", network(OVS)), node.call("ADD", network(OVS)))

    assert one == other
    assert node.ipam.calls == ["ADD", "DEL", "ADD"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", REMOVAL)
async def test_each_step_of_del_fails(node: Node, step: Step, when: str) -> None:
    """Whichever step fails, DEL fails with its error, and a repeat leaves nothing."""
    await node.call("ADD", network(OVS))
    node.life.failures[when, step] = Retry("this step failed")

    await refusal(node.call("DEL", BARE), "this step failed")
    await node.call("DEL", BARE)

    assert node.left() == []


@pytest.mark.parametrize("listener", BOTH)
async def test_del_during_add(node: Node, listener: Listener) -> None:
    """DEL of an attachment that is being added does not wait for it; the ADD fails, and nothing is left."""
    node.switch.pause_vswitchd()
    adding = await begin_waiting(node, network(listener))

    await asyncio.wait_for(node.call("DEL", BARE), 5)

    error = await refusal(asyncio.wait_for(adding, 5), "c0ffee:net1 was deleted while it was being added")
    assert error.code == errors.TRY_AGAIN_LATER
    node.switch.start_vswitchd()
    assert node.left() == []


@pytest.mark.parametrize("listener", BOTH)
async def test_del_during_add_that_waits_for_a_removal(node: Node, listener: Listener) -> None:
    """DEL ends an ADD too that waits for vswitchd to let go of the former port, which DEL does not change."""
    await node.call("ADD", network(listener))
    node.switch.pause_vswitchd()
    await node.call("DEL", BARE)
    adding = await begin_waiting(node, network(listener))

    await asyncio.wait_for(node.call("DEL", BARE), 5)

    await refusal(asyncio.wait_for(adding, 2), "was deleted while it was being added")


async def test_add_after_del_makes_a_new_socket(node: Node) -> None:
    """An ADD right after a DEL waits until vswitchd has seen the removal: else OVS would make no new socket."""
    await node.call("ADD", network(OVS))
    node.switch.automatic = False
    await node.call("DEL", BARE)
    adding = await begin_waiting(node, network(OVS))
    node.switch.automatic = True
    node.switch.round()

    await asyncio.wait_for(adding, 5)

    assert files.look_at_socket(node.vif(OVS).socket, [None]) is SocketFile.BOUND


# -- two interfaces of one sandbox -----------------------------------------------------------------------------------


async def test_two_interfaces(node: Node) -> None:
    """The files of a sandbox tell of all its interfaces in the order of their ADD, and of the others when one leaves."""
    await node.call("ADD", network(APPLICATION), ATTACHMENT)
    await node.call("ADD", network(OVS), SECOND)
    both = json.loads((node.pods / "c0ffee.json").read_text())["interfaces"]
    assert [(each["ifname"], each["mode"]) for each in both] == [("net1", "server"), ("net2", "client")]

    await node.call("DEL", BARE, ATTACHMENT)

    (left,) = json.loads((node.pods / "c0ffee.json").read_text())["interfaces"]
    assert (left["ifname"], left["vdev"].split(",")[0]) == ("net2", "net_virtio_user0")
    assert "VHOSTUSER_COUNT='1'" in (node.pods / "c0ffee.env").read_text()
    assert not (node.pods / "c0ffee-net1").exists()
    assert (node.pods / "c0ffee-net2").exists()
    await node.call("DEL", BARE, SECOND)
    assert node.left() == []


@pytest.mark.parametrize("leaving", [ATTACHMENT, SECOND])
async def test_interfaces_come_and_go_at_once(node: Node, leaving: Attachment) -> None:
    """Interfaces of one sandbox that are added and removed at the same time end with files that tell the truth."""
    await node.call("ADD", network(APPLICATION), leaving)
    coming = [Attachment("c0ffee", f"net{number}") for number in range(3, 8)]

    await asyncio.gather(
        node.call("DEL", BARE, leaving), *(node.call("ADD", network(OVS), attachment) for attachment in coming)
    )

    told = json.loads((node.pods / "c0ffee.json").read_text())["interfaces"]
    assert sorted(each["ifname"] for each in told) == [attachment.ifname for attachment in coming]


# -- CHECK -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", BOTH)
async def test_check(node: Node, listener: Listener) -> None:
    """CHECK passes right after ADD with no application connected, and asks IPAM too."""
    answer = await node.call("ADD", network(listener))

    assert await node.call("CHECK", network(listener, prevResult=answer)) == {}
    assert node.ipam.calls == ["ADD", "CHECK"]


def _port_goes(node: Node) -> None:
    node.switch.remove_port(node.vif().name)


def _files_go(node: Node) -> None:
    (node.pods / "c0ffee.env").unlink()


def _pod_writes(node: Node) -> None:
    (node.pods / "c0ffee-net1").write_text("{}")


def _lease_goes(node: Node) -> None:
    node.ipam.leases.clear()


@pytest.mark.parametrize(
    ("listener", "happens", "words"),
    [
        (APPLICATION, _port_goes, "is missing"),
        (APPLICATION, _files_go, "write the pod's files"),
        (APPLICATION, _pod_writes, "write the pod's files"),
        (APPLICATION, _lease_goes, "has no lease"),
        (APPLICATION, lambda node: _leave_dead_socket(node.vif().socket), "a dead socket lies at"),
        (APPLICATION, lambda node: node.switch.lose_ovsdb(), "OVSDB at unix:/ovs/db.sock cannot be reached"),
        (OVS, lambda node: node.switch.kill_vswitchd(), "is missing or dead, and vswitchd has made no new one"),
        (OVS, lambda node: Path(node.vif().socket).unlink(), "is missing or dead"),
    ],
)
async def test_check_finds(node: Node, listener: Listener, happens: Callable[[Node], None], words: str) -> None:
    """CHECK finds what is not as ADD left it, and says what."""
    answer = await node.call("ADD", network(listener))
    happens(node)

    await refusal(node.call("CHECK", network(listener, prevResult=answer)), words)


async def test_check_changes_nothing(node: Node) -> None:
    """CHECK mends nothing of what it finds."""
    answer = await node.call("ADD", network())
    _files_go(node)
    before = node.left()

    await refusal(node.call("CHECK", network(prevResult=answer)))

    assert node.left() == before


async def test_check_of_another_result(node: Node) -> None:
    """CHECK with a prevResult that is not ours, or with none, fails."""
    answer = await node.call("ADD", network())
    answer["interfaces"][0]["mac"] = "02:00:00:00:00:99"

    await refusal(node.call("CHECK", network(prevResult=answer)), "the MAC 02:00:00:00:00:99")
    await refusal(node.call("CHECK", network()), "CHECK came without prevResult")


async def test_check_of_nothing(node: Node) -> None:
    """CHECK of what is not attached fails with CNI's code for an unknown container."""
    error = await refusal(node.call("CHECK", network(prevResult={})), "c0ffee:net1 is not attached")

    assert error.code == errors.UNKNOWN_CONTAINER


# -- GC --------------------------------------------------------------------------------------------------------------


def valid(*attachments: Attachment, **changes: Any) -> dict[str, Any]:
    listed = [{"containerID": each.container_id, "ifname": each.ifname} for each in attachments]
    return network(**{"cni.dev/valid-attachments": listed} | changes)


async def test_gc(node: Node) -> None:
    """GC removes what is not listed, leaves what is, and the attachments of other networks, and goes on to IPAM."""
    await node.call("ADD", network(), ATTACHMENT)
    await node.call("ADD", network(OVS), SECOND)
    await node.call("ADD", network(name="other-net"), OTHER)

    assert await node.call("GC", valid(SECOND)) == {}

    assert [entry.attachment for entry in node.journal.all()] == [SECOND, OTHER]
    assert set(node.ipam.leases) == {SECOND, OTHER}
    assert len(node.switch.ports()) == 2
    assert node.ipam.calls[-1] == "GC"


async def test_gc_of_everything(node: Node) -> None:
    """GC with an empty list leaves nothing; without IPAM nobody is asked."""
    await node.call("ADD", network(ipam=None))
    await node.call("GC", valid(ipam=None))

    assert node.left() == []
    assert node.ipam.calls == []


async def test_gc_goes_on(node: Node) -> None:
    """What GC cannot remove is named at the end; the rest is removed."""
    for attachment in (ATTACHMENT, SECOND, OTHER):
        await node.call("ADD", network(), attachment)
    node.life.failures["before", Step.UNPLUG] = Retry("one unplug failed")

    await refusal(node.call("GC", valid()), "one unplug failed")

    assert len(node.journal.all()) == 1
    await node.call("GC", valid())
    assert node.left() == []


async def test_gc_without_a_list(node: Node) -> None:
    """GC without a list of valid attachments removes nothing: the runtime has called none invalid."""
    await node.call("ADD", network())
    before = node.left()

    await node.call("GC", network())

    assert node.left() == before


# -- STATUS, VERSION -------------------------------------------------------------------------------------------------


async def test_status(node: Node) -> None:
    """STATUS is silent when an ADD can be served, and else answers 50 with the reason."""
    assert await node.call("STATUS") == {}

    node.switch.lose_ovsdb()
    error = await refusal(node.call("STATUS"), "OVSDB at unix:/ovs/db.sock cannot be reached")
    assert error.code == errors.NOT_AVAILABLE


async def test_version(node: Node) -> None:
    """VERSION answers with every version that is served."""
    assert (await node.call("VERSION"))["supportedVersions"] == ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]


# -- the daemon dies -------------------------------------------------------------------------------------------------


async def _dies(node: Node, listener: Listener, verb: str, moment: int) -> bool:
    """Let the daemon die at this moment of the verb; whether the verb has such a moment."""
    if verb == "DEL":
        await node.call("ADD", network(listener))
    node.life.moments, node.life.last = 0, moment
    try:
        await node.call(verb, network(listener))
    except Death:
        return True
    return False


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("listener", BOTH)
async def test_death_at_any_moment(make_node: MakeNode, listener: Listener, verb: str) -> None:
    """Whenever the daemon dies in ADD or DEL, the next one converges: nothing is left or all is there, never a half."""
    for moment in itertools.count(1):
        died = make_node()
        if not await _dies(died, listener, verb, moment):
            break
        node = died.again()
        await node.recover()

        # ADD had written down that it succeeded, or DEL had written down nothing yet.
        if entry := node.journal.get(ATTACHMENT):
            assert entry.goal is Goal.ATTACHED, moment
            answer = await node.call("ADD", network(listener))
            await node.call("CHECK", network(listener, prevResult=answer))
            await node.call("DEL", BARE)
        assert node.left() == [], moment
        assert await node.call("ADD", network(listener)), moment
    assert moment > 8


@pytest.mark.parametrize("listener", BOTH)
async def test_death_in_add_and_del_at_once(make_node: MakeNode, listener: Listener) -> None:
    """The runtime's DEL may meet the recovery of the ADD that died: together they leave nothing."""
    for moment in itertools.count(1):
        died = make_node()
        if not await _dies(died, listener, "ADD", moment):
            break
        node = died.again()

        await asyncio.gather(node.call("DEL", BARE), node.recover())

        assert node.left() == [], moment


async def test_del_while_the_former_leaves(node: Node) -> None:
    """A DEL that comes while an ADD waits for the former attachment to leave takes both: nothing stands after it."""
    await node.call("ADD", network())
    node.switch.lose_ovsdb()
    await node.call("DEL", network())
    node.switch.regain_ovsdb()
    adding = asyncio.ensure_future(node.call("ADD", network()))
    await asyncio.sleep(0)

    await node.call("DEL", network())

    with pytest.raises(Retry, match="was deleted while it was being added"):
        await adding
    assert node.left() == []


async def test_second_add_does_not_take_back_what_the_first_has_answered(node: Node) -> None:
    """An ADD that fails after another of the same attachment has succeeded leaves what stands: a pod runs on it."""
    node.switch.pause_vswitchd()
    adding = [asyncio.ensure_future(node.call("ADD", network(OVS))) for _ in range(2)]
    await node.switch.waited.wait()
    await asyncio.sleep(0)
    second_fails = iter([False, True])
    look = node.driver.observe

    def observe(want: Want) -> Seen:
        seen = look(want)
        done = want.goal is not Goal.LEAVING and seen.files_current and next(second_fails, None)
        return msgspec.structs.replace(seen, switch_trouble="OVSDB is away") if done else seen

    node.driver.observe = observe  # type: ignore[method-assign] # what the second of them sees last
    node.switch.start_vswitchd()
    results = await asyncio.gather(*adding, return_exceptions=True)

    assert sorted(isinstance(result, Retry) for result in results) == [False, True]
    assert len(node.switch.ports()) == 1
    found = node.journal.get(ATTACHMENT)
    assert found
    assert found.goal is Goal.ATTACHED
