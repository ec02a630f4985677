"""The decision table, row by row, and what holds of every walk through it."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podvif import errors, names
from podvif.core.attach import OVS_TYPE, Fail, Link, Mend, Step, Want, link, next_step, why_not_attached, why_not_port
from podvif.model import Addresses, Attachment, Goal, Listener, Pod, Seen, SocketDir, SocketFile
from podvif.node.converge import STEPS_MAX, WAITS
from tests.fakes.values import ATTACHMENT, BOTH, port_of, vif

OVS, APPLICATION = Listener.OVS, Listener.APPLICATION
ABSENT, BOUND, DEAD, OTHER, DIRECTORY = (
    SocketFile.ABSENT,
    SocketFile.BOUND,
    SocketFile.DEAD,
    SocketFile.OTHER,
    SocketFile.DIRECTORY,
)
POD = Pod("default", "trex", "uid")
FOREIGN = {"iface-id": "11111111-2222-3333-4444-555555555555", "attached-mac": "fa:16:3e:00:00:01"}


def want(listener: Listener, goal: Goal = Goal.ATTACHED, *, reserve: bool = True, mend: Mend = Mend.NOTHING) -> Want:
    return Want(ATTACHMENT, goal, vif(listener, vlan=100), POD, reserve=reserve, mend=mend)


def ids(**changes: str) -> dict[str, str]:
    """The external_ids of our port, but for the changes."""
    return port_of(vif()).external_ids | names.marks(ATTACHMENT, str(POD)) | changes


def seen(listener: Listener, **changes: Any) -> Seen:
    """The facts when the attachment stands, but for the changes; `port` is a dict of the port's, or None for no port."""
    port = changes.pop("port", {})
    facts: dict[str, Any] = {
        "switch_trouble": None,
        "directory": True,
        "bridge_datapath": "netdev",
        "port": None if port is None else port_of(vif(listener, vlan=100), **{"external_ids": ids(), **port}),
        "settled": True,
        "pod_socket": BOUND if listener is OVS else ABSENT,
        "ovs_socket": ABSENT,
        "addresses": Addresses(),
        "addresses_held": True,
        "files_current": True,
        "files_present": True,
        "journalled": True,
    }
    return Seen(**facts | changes)


NOTHING, CERTAIN, ANYTHING = Mend.NOTHING, Mend.CERTAIN, Mend.ANYTHING
REMOVE, UNPLUG, AWAIT = Step.REMOVE_STALE_SOCKET, Step.UNPLUG, Step.AWAIT_SOCKET


@dataclass(frozen=True)
class Row:
    """A row of the table: the facts that make it, and the step or the words of the failure that it decides."""

    facts: dict[str, Any]
    decides: Step | str
    listeners: tuple[Listener, ...] = BOTH


def decided(found: Step | Fail | None, wanted: Step | str) -> None:
    """Assert that the decision is this step, or a failure with these words."""
    if isinstance(wanted, Step):
        assert found is wanted
    else:
        assert isinstance(found, Fail)
        assert wanted in found.error.message


def cases(rows: list[Row]) -> list[Any]:
    return [
        pytest.param(listener, row, id=f"{listener.value}-{number}-{row.decides}")
        for number, row in enumerate(rows)
        for listener in row.listeners
    ]


# The rows on the way to attached, in the order of the table.
ATTACHING = [
    Row({"switch_trouble": "OVSDB is away"}, "OVSDB is away"),
    Row({"directory": False}, "/pods is missing"),
    Row({"bridge_datapath": "system"}, "bridge br-dpdk has the datapath 'system'"),
    Row({"port": {"external_ids": FOREIGN}}, "is there and is not podvif's"),
    Row({"pod_socket": DIRECTORY}, "a directory lies at /pods/vhu"),
    Row({"ovs_socket": DIRECTORY}, "a directory lies at /ovs/vhu"),
    Row({"directory_mended": False}, Step.MEND_DIRECTORY),
    Row({"addresses": None}, Step.RESERVE_ADDRESSES),
    Row({"pod_socket": DEAD}, Step.REMOVE_STALE_SOCKET, (APPLICATION,)),
    Row({"pod_socket": OTHER}, Step.REMOVE_STALE_SOCKET, (APPLICATION,)),
    Row({"port": None, "ovs_socket": DEAD}, Step.REMOVE_STALE_SOCKET, (OVS,)),
    Row({"port": None, "ovs_socket": OTHER}, Step.REMOVE_STALE_SOCKET, (OVS,)),
    Row({"port": None, "settled": False}, Step.AWAIT_REMOVAL),
    Row({"port": None}, Step.PLUG),
    Row({"port": {"type": "dpdkvhostuserclient"}}, Step.UNPLUG, (OVS,)),
    Row({"port": {"type": "dpdkvhostuser"}}, Step.UNPLUG, (APPLICATION,)),
    Row({"port": {"vhost_server_path": "/elsewhere/vhu"}}, Step.UNPLUG),
    Row({"port": {"bridge": "br-other"}}, Step.UNPLUG),
    Row({"port": {"bridge": None}}, Step.UNPLUG),
    Row({"port": {"external_ids": ids() | {"attached-mac": "02:00:00:00:00:99"}}}, Step.UNPLUG),
    Row({"port": {"external_ids": ids() | {"iface-id": "another"}}}, Step.UNPLUG),
    Row({"port": {"tag": None}}, Step.UNPLUG),
    Row({"port": {"mtu_request": 9000}}, Step.UNPLUG),
    Row({"port": {"error": "could not open network device vhu"}}, "could not open network device vhu"),
    Row({"port": {"ofport": -1}}, "it could not be opened (ofport -1)"),
    Row({"port": {"ofport": None}}, Step.AWAIT_PORT),
    Row({"pod_socket": BOUND, "socket_mended": False}, Step.MEND_SOCKET),
    Row({"ovs_socket": BOUND, "socket_mended": False}, Step.MEND_SOCKET, (OVS,)),
    Row({"ovs_socket": BOUND}, Step.TAKE_SOCKET, (OVS,)),
    Row({"pod_socket": ABSENT}, Step.AWAIT_SOCKET, (OVS,)),
    Row({"pod_socket": DEAD}, Step.AWAIT_SOCKET, (OVS,)),
    Row({"pod_socket": OTHER}, Step.AWAIT_SOCKET, (OVS,)),
    Row({"port": {"external_ids": port_of(vif()).external_ids}}, Step.WRITE_MARKS),
    Row({"files_current": False}, Step.WRITE_FILES),
]

# What recovery does beyond an ADD: to what stands otherwise as wanted.
MENDING: list[tuple[dict[str, Any], Listener, dict[Mend, Step | str | None]]] = [
    # A dead socket lies where the next vswitchd will bind.
    ({"ovs_socket": DEAD}, OVS, {NOTHING: None, CERTAIN: REMOVE, ANYTHING: REMOVE}),
    ({"ovs_socket": OTHER}, OVS, {NOTHING: None, CERTAIN: REMOVE, ANYTHING: REMOVE}),
    # Vswitchd has failed to bind, and why is there to be seen.
    ({"ovs_socket": DEAD, "port": {"ofport": -1}}, OVS, {NOTHING: "ofport -1", CERTAIN: UNPLUG, ANYTHING: UNPLUG}),
    # It has failed, and nobody knows why: another try costs nothing.
    ({"port": {"ofport": -1}}, OVS, {NOTHING: "ofport -1", CERTAIN: "ofport -1", ANYTHING: UNPLUG}),
    ({"port": {"ofport": -1}}, APPLICATION, {NOTHING: "ofport -1", CERTAIN: "ofport -1", ANYTHING: UNPLUG}),
    # Somebody has removed the socket that OVS listens on.
    ({"pod_socket": ABSENT}, OVS, {NOTHING: AWAIT, CERTAIN: UNPLUG, ANYTHING: UNPLUG}),
    ({"pod_socket": ABSENT}, APPLICATION, {NOTHING: None, CERTAIN: None, ANYTHING: None}),
    # Vswitchd has ended, or it has lost its listener: the longer nothing comes, the more likely it has.
    ({"pod_socket": DEAD}, OVS, {NOTHING: AWAIT, CERTAIN: AWAIT, ANYTHING: UNPLUG}),
    # It has only just been told of the port.
    ({"pod_socket": ABSENT, "port": {"ofport": None}}, OVS, dict.fromkeys(Mend, Step.AWAIT_PORT)),
]

# The rows on the way to absent, in order.
LEAVING = [
    Row({}, Step.REMOVE_FILES),
    Row({"files_present": False, "switch_trouble": "OVSDB is away"}, "OVSDB is away"),
    Row({"files_present": False}, Step.UNPLUG),
    Row({"files_present": False, "port": None, "pod_socket": BOUND}, Step.REMOVE_SOCKETS),
    Row({"files_present": False, "port": None, "pod_socket": DEAD}, Step.REMOVE_SOCKETS),
    Row({"files_present": False, "port": None, "pod_socket": OTHER}, Step.REMOVE_SOCKETS),
    Row({"files_present": False, "port": None, "pod_socket": ABSENT, "ovs_socket": DEAD}, Step.REMOVE_SOCKETS),
    Row({"files_present": False, "port": None, "pod_socket": ABSENT}, Step.RELEASE_ADDRESSES),
    Row({"files_present": False, "port": None, "pod_socket": ABSENT, "addresses_held": False}, Step.FORGET),
]
GONE: dict[str, Any] = {
    "files_present": False,
    "port": None,
    "pod_socket": ABSENT,
    "addresses_held": False,
    "journalled": False,
}


@pytest.mark.parametrize(("listener", "row"), cases(ATTACHING))
def test_row_to_attached(listener: Listener, row: Row) -> None:
    """Each row on the way to attached decides what the table says."""
    decided(next_step(want(listener), seen(listener, **row.facts)), row.decides)


@pytest.mark.parametrize(("facts", "listener", "decides"), MENDING)
def test_recovery(facts: dict[str, Any], listener: Listener, decides: dict[Mend, Step | str | None]) -> None:
    """Recovery makes again what nothing else can mend, and with patience what it might; an ADD makes nothing again."""
    for mend, wanted in decides.items():
        found = next_step(want(listener, mend=mend), seen(listener, **facts))
        if wanted is None:
            assert found is None
        else:
            decided(found, wanted)


@pytest.mark.parametrize(("listener", "row"), cases(LEAVING))
def test_row_to_absent(listener: Listener, row: Row) -> None:
    """Each row on the way to absent decides what the table says."""
    decided(next_step(want(listener, Goal.LEAVING), seen(listener, **row.facts)), row.decides)


@pytest.mark.parametrize("listener", BOTH)
def test_nothing_left(listener: Listener) -> None:
    """An attachment that stands as wanted, and one that is gone, have no next step."""
    assert next_step(want(listener), seen(listener)) is None
    assert next_step(want(listener), seen(listener, bridge_datapath=None, port={})) is None
    assert next_step(want(listener, Goal.LEAVING), seen(listener, **GONE)) is None


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
    """The facts of both rows at once; None when they exclude each other."""
    merged = first | second
    if any(merged[key] != value for key, value in first.items() if key != "port"):
        return None
    if "port" in first and "port" in second:
        if first["port"] is None or second["port"] is None:
            return merged if first["port"] == second["port"] else None
        port = first["port"] | second["port"]
        if any(port[key] != value for key, value in first["port"].items()):
            return None
        merged["port"] = port
    return merged


@pytest.mark.parametrize("listener", BOTH)
def test_precedence(listener: Listener) -> None:
    """Where the facts of two rows hold at once, the one that stands first in the table decides."""
    compared = 0
    for first, second in combinations([row for row in ATTACHING if listener in row.listeners], 2):
        both = _merged(first.facts, second.facts)
        if both is not None:
            decided(next_step(want(listener), seen(listener, **both)), first.decides)
            compared += 1
    assert compared > 150


@pytest.mark.parametrize("goal", [Goal.ATTACHING, Goal.ATTACHED])
def test_both_goals_are_one_way(goal: Goal) -> None:
    """What is being attached and what is attached are decided alike."""
    for row in ATTACHING:
        facts = seen(row.listeners[0], **row.facts)
        decided(next_step(want(row.listeners[0], goal), facts), row.decides)


def test_network_without_ipam() -> None:
    """Without IPAM no address is asked for, and none is released."""
    assert next_step(want(APPLICATION, reserve=False), seen(APPLICATION, addresses=None)) is None


def test_connected_port_keeps_its_socket() -> None:
    """While OVS is connected to the application, a socket that seems dead is not removed."""
    facts = seen(APPLICATION, pod_socket=DEAD, port={"status": {"status": "connected"}})

    assert next_step(want(APPLICATION), facts) is None


def test_dead_socket_of_a_standing_port() -> None:
    """A dead socket at OVS's path is not removed while a port stands: it is vswitchd's own."""
    assert next_step(want(OVS), seen(OVS, ovs_socket=DEAD)) is None


def test_families() -> None:
    """OVSDB out of reach is worth a repeat, everything else that fails is for somebody to change."""
    codes = []
    for row in ATTACHING:
        found = next_step(want(row.listeners[0]), seen(row.listeners[0], **row.facts))
        if isinstance(found, Fail):
            codes.append(found.error.code)

    assert codes[0] == errors.TRY_AGAIN_LATER
    assert set(codes[1:]) == {errors.IO_FAILURE, errors.INVALID_CONFIG}


@pytest.mark.parametrize("listener", BOTH)
def test_ovs_port_in_another_way(listener: Listener) -> None:
    """Why a port is not the wanted one names the column, what it has and what is wanted."""
    port = seen(listener, port={"tag": 7}).port
    assert port is not None

    assert why_not_port(vif(listener, vlan=100), port) == f"OVS port {port.name} has VLAN 7, wanted is 100"
    assert why_not_port(vif(listener, vlan=7), port) is None


@pytest.mark.parametrize(
    ("listener", "facts", "words"),
    [
        (APPLICATION, {"port": None}, "is missing"),
        (APPLICATION, {"port": {"tag": 7}}, "has VLAN 7, wanted is 100"),
        (APPLICATION, {"pod_socket": DEAD}, "a dead socket lies at /pods/vhu"),
        (APPLICATION, {"switch_trouble": "OVSDB is away"}, "OVSDB is away"),
        (OVS, {"pod_socket": DEAD}, "is missing or dead, and vswitchd has made no new one"),
        (OVS, {"ovs_socket": BOUND}, "and not in the pod's directory"),
        (OVS, {"files_current": False}, "podvif still has to write the pod's files for c0ffee:net1"),
    ],
)
def test_why_not_attached(listener: Listener, facts: dict[str, Any], words: str) -> None:
    """CHECK's reason names what is not as it should be; there is none when all is."""
    assert words in (why_not_attached(want(listener), seen(listener, **facts)) or "")
    assert why_not_attached(want(listener), seen(listener)) is None


# -- Neutron's ports -------------------------------------------------------------------------------------------------

NEUTRON: dict[str, Any] = {"neutron": True, "port_id": "60f9ed24-422f-4910-9aa2-602b1dfaacde", "name": "vhu60f9ed24-42"}


def want_neutron(listener: Listener, goal: Goal = Goal.ATTACHED) -> Want:
    return Want(ATTACHMENT, goal, vif(listener, **NEUTRON), POD)


def seen_neutron(listener: Listener, *, marks: dict[str, str] | None = None, **changes: Any) -> Seen:
    wanted = vif(listener, **NEUTRON)
    marked = port_of(wanted).external_ids | (names.marks(ATTACHMENT, str(POD)) if marks is None else marks)
    installed = changes.pop("installed", {})
    port = port_of(wanted, external_ids=marked | installed, **changes)
    return msgspec.structs.replace(seen(listener, addresses_held=False), port=port)


@pytest.mark.parametrize("listener", BOTH)
@pytest.mark.parametrize(
    ("facts", "wired"),
    [
        ({"tag": None}, False),
        ({"tag": 4095}, False),
        ({"tag": 1}, True),
        ({"installed": {"ovn-installed": "true"}}, True),
        ({"installed": {"ovn-installed": "false"}}, False),
        ({"installed": {"ovn-installed": "true"}, "tag": 4095}, True),
    ],
)
def test_wired(listener: Listener, facts: dict[str, Any], *, wired: bool) -> None:
    """A Neutron port is awaited until either agent has wired it; whatever tag that gives is no reason to plug it anew."""
    facts = {"ofport": 3} | facts
    found = seen_neutron(listener, **facts)
    assert found.port is not None
    up = msgspec.structs.replace(found, port=msgspec.structs.replace(found.port, link_up=True))

    assert next_step(want_neutron(listener), found) is (None if wired else Step.AWAIT_WIRED)
    assert link(want_neutron(listener), up) is (Link.CONNECTED if wired else Link.UNWIRED)
    reason = why_not_attached(want_neutron(listener), found)
    assert reason is None if wired else "has not wired OVS port vhu60f9ed24-42" in (reason or "")


def test_wired_is_awaited_last() -> None:
    """The pod's files are there before the agent has wired the port: recovery, which does not wait, goes on mending them."""
    found = msgspec.structs.replace(seen_neutron(APPLICATION), files_current=False)

    assert next_step(want_neutron(APPLICATION), found) is Step.WRITE_FILES


def test_standalone_is_nobody_elses_business() -> None:
    """A port that is not Neutron's waits for no agent."""
    assert next_step(want(APPLICATION), seen(APPLICATION, port={"tag": 100})) is None


@pytest.mark.parametrize("listener", BOTH)
@pytest.mark.parametrize(
    ("marks", "leaves"),
    [
        (names.marks(ATTACHMENT, str(POD)), True),
        ({}, True),
        (names.marks(Attachment("newer", "net1"), str(POD)), False),
        (names.marks(Attachment("c0ffee", "net2"), str(POD)), False),
    ],
)
def test_port_that_went_on(listener: Listener, marks: dict[str, str], *, leaves: bool) -> None:
    """A sandbox that leaves does not take along the Neutron port that another sandbox of the pod has marked as its own."""
    facts = msgspec.structs.replace(seen_neutron(listener, marks=marks), files_present=False)

    found = next_step(want_neutron(listener, Goal.LEAVING), facts)

    assert found is (Step.UNPLUG if leaves else Step.FORGET)
    assert next_step(want_neutron(listener), facts) is (Step.AWAIT_WIRED if marks and leaves else Step.WRITE_MARKS)


# -- every walk ends -------------------------------------------------------------------------------------------------


class World:
    """A small world that behaves: a living vswitchd, IPAM, files; each step changes what it changes in the real one."""

    def __init__(self, listener: Listener, facts: Seen) -> None:
        self.listener = listener
        self.seen = facts

    def do(self, step: Step) -> None:  # noqa: C901, PLR0912  one case for each step
        change: dict[str, Any] = {}
        match step:
            case Step.MEND_DIRECTORY:
                change = {"directory_mended": True}
            case Step.MEND_SOCKET:
                change = {"socket_mended": True}
            case Step.RESERVE_ADDRESSES:
                change = {"addresses": Addresses(), "addresses_held": True}
            case Step.REMOVE_STALE_SOCKET:
                change = {"ovs_socket" if self.listener is OVS else "pod_socket": ABSENT}
            case Step.PLUG:
                change = {"port": port_of(vif(self.listener, vlan=100), external_ids=ids(), ofport=None)}
                change["bridge_datapath"] = "netdev"
            case Step.UNPLUG:
                change = {"port": None, "settled": False}
            case Step.AWAIT_REMOVAL:
                # vswitchd closes what it listens on, and removes the file if that still has its first name.
                living = {DEAD: DEAD, BOUND: DEAD if self.listener is OVS else BOUND}
                change = {"settled": True, "pod_socket": living.get(self.seen.pod_socket, self.seen.pod_socket)}
                change["ovs_socket"] = ABSENT if self.seen.ovs_socket is BOUND else self.seen.ovs_socket
            case Step.AWAIT_PORT:
                assert self.seen.port
                change = {"port": msgspec.structs.replace(self.seen.port, ofport=3)}
                if self.listener is OVS:
                    change |= {"ovs_socket": BOUND, "socket_mended": False}
            case Step.TAKE_SOCKET:
                change = {"pod_socket": self.seen.ovs_socket, "ovs_socket": ABSENT}
            case Step.AWAIT_SOCKET:
                change = {"ovs_socket": BOUND, "socket_mended": False}
            case Step.WRITE_MARKS:
                assert self.seen.port
                change = {
                    "port": msgspec.structs.replace(self.seen.port, external_ids=self.seen.port.external_ids | ids())
                }
            case Step.WRITE_FILES:
                change = {"files_current": True, "files_present": True}
            case Step.REMOVE_FILES:
                change = {"files_current": False, "files_present": False}
            case Step.REMOVE_SOCKETS:
                change = {"pod_socket": ABSENT}
                if self.seen.ovs_socket is DEAD:
                    change["ovs_socket"] = ABSENT
            case Step.RELEASE_ADDRESSES:
                change = {"addresses": None, "addresses_held": False}
            case Step.FORGET:
                change = {"journalled": False}
        self.seen = msgspec.structs.replace(self.seen, **change)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Facts that can hold at one moment while vswitchd lives."""
    listener = draw(st.sampled_from(BOTH))
    files = [ABSENT, DEAD, OTHER] if listener is OVS else [ABSENT, BOUND, DEAD, OTHER]
    facts: dict[str, Any] = {
        "settled": draw(st.booleans()),
        "bridge_datapath": "netdev",
        "pod_socket": draw(st.sampled_from(files)),
        "ovs_socket": draw(st.sampled_from([ABSENT, DEAD, OTHER])),
        "addresses": draw(st.sampled_from([None, Addresses()])),
        "files_current": draw(st.booleans()),
        "files_present": draw(st.booleans()),
        "addresses_held": draw(st.booleans()),
        "journalled": draw(st.booleans()),
        "directory_mended": draw(st.booleans()),
        "socket_mended": draw(st.booleans()),
    }
    port: dict[str, Any] | None = draw(
        st.none()
        | st.fixed_dictionaries(
            {"ofport": st.sampled_from([None, 7])},
            optional={
                "type": st.sampled_from(sorted(OVS_TYPE.values())),
                "bridge": st.sampled_from(["br-dpdk", "br-other", None]),
                "tag": st.sampled_from([None, 100]),
                "mtu_request": st.sampled_from([None, 1500]),
                "external_ids": st.sampled_from([ids(), ids() | {"attached-mac": "x"}, port_of(vif()).external_ids]),
            },
        )
    )
    if port is None:
        facts["bridge_datapath"] = draw(st.sampled_from([None, "netdev"]))
    elif listener is OVS and port["ofport"] is not None and port.get("type", OVS_TYPE[OVS]) == OVS_TYPE[OVS]:
        # vswitchd has the port, so it listens: under the first name, or moved.
        facts |= draw(st.sampled_from([{"ovs_socket": BOUND}, {"pod_socket": BOUND, "ovs_socket": ABSENT}]))
    return World(listener, seen(listener, port=port, **facts))


@given(
    worlds(),
    st.sampled_from([Goal.ATTACHED, Goal.LEAVING]),
    st.lists(st.sampled_from(["once", "twice", "fails"]), max_size=12),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_every_walk_ends(world: World, goal: Goal, fates: list[str], reserve: bool) -> None:  # noqa: FBT001
    """From any facts, with steps done once or twice or failing once, a walk ends attached or absent in STEPS_MAX steps."""
    wanted = want(world.listener, goal, reserve=reserve)
    taken: list[Step] = []
    while step := next_step(wanted, world.seen):
        assert isinstance(step, Step), step
        taken.append(step)
        assert len(taken) <= STEPS_MAX, taken
        fate = fates[len(taken) - 1] if len(taken) <= len(fates) else "once"
        if fate == "fails":
            continue
        world.do(step)
        if fate == "twice":
            world.do(step)
        assert next_step(wanted, world.seen) != step, f"{step} was done and is decided again"

    if goal is Goal.LEAVING:
        found = world.seen
        assert (found.port, found.files_present, found.journalled) == (None, False, False)
        assert found.pod_socket is ABSENT
        assert found.ovs_socket in {ABSENT, BOUND, OTHER}  # vswitchd removes its own in its next round
    else:
        assert why_not_attached(wanted, world.seen) is None


FACTS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    switch_trouble=st.sampled_from([None, "away"]),
    directory=st.booleans(),
    bridge_datapath=st.sampled_from([None, "netdev", "system"]),
    settled=st.booleans(),
    pod_socket=st.sampled_from(SocketFile),
    ovs_socket=st.sampled_from(SocketFile),
    addresses=st.sampled_from([None, Addresses()]),
    addresses_held=st.booleans(),
    files_current=st.booleans(),
    files_present=st.booleans(),
    journalled=st.booleans(),
    directory_mended=st.booleans(),
    socket_mended=st.booleans(),
)


@given(st.sampled_from(BOTH), st.sampled_from(Goal), FACTS, st.sampled_from([{}, FOREIGN]))
@settings(max_examples=300, deadline=None)
def test_foreign_port(listener: Listener, goal: Goal, facts: dict[str, Any], external_ids: dict[str, str]) -> None:
    """Whatever else holds, an OVS port that is not ours is neither plugged nor unplugged, nor is its socket touched."""
    step = next_step(want(listener, goal), seen(listener, port={"external_ids": external_ids}, **facts))

    assert step not in {
        Step.PLUG,
        Step.UNPLUG,
        Step.REMOVE_SOCKETS,
        Step.REMOVE_STALE_SOCKET,
        Step.TAKE_SOCKET,
        Step.MEND_SOCKET,
    }


def test_every_wait_is_a_step_of_the_table() -> None:
    """The loop waits for exactly the steps that the table calls waits."""
    assert {step for step in Step if step.name.startswith("AWAIT_")} == WAITS


def test_own_directory_is_missing() -> None:
    """A pod whose own directory is gone cannot be helped by anybody but itself, and that is what is said."""
    wanted = want(APPLICATION)
    own = msgspec.structs.replace(wanted, vif=msgspec.structs.replace(wanted.vif, mounted_at=SocketDir("/sockets")))

    step = next_step(own, seen(APPLICATION, directory=False))

    assert isinstance(step, Fail)
    assert (step.error.message, "recreate the pod" in step.error.remedy) == (
        "the pod's own directory /pods is missing",
        True,
    )
