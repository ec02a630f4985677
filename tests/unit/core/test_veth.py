"""The decision table of kernel ports, row by row, and what holds of every walk through it."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podvif import errors, names
from podvif.core import veth
from podvif.core.attach import Fail, Link, Mend, Step, Want
from podvif.errors import Bug
from podvif.model import Address, Addresses, Goal, Pod, PortKind, Route, Seen, SeenDevice, SeenPair, SocketFile
from podvif.node.converge import STEPS_MAX
from tests.fakes.values import ATTACHMENT, kernel_vif, port_of

VETH, HYBRID = PortKind.VETH, PortKind.HYBRID
KERNEL = (VETH, HYBRID)
POD = Pod("default", "web", "uid")
FOREIGN = {"iface-id": "11111111-2222-3333-4444-555555555555", "attached-mac": "fa:16:3e:00:00:01"}
ADDRESSES = Addresses(
    (Address("10.1.0.5/24", "10.1.0.1"), Address("fd00::5/64")), (Route("0.0.0.0/0"), Route("10.2.0.0/16", "10.1.0.9"))
)
HOST, POD_END = 11, 2


def want(kind: PortKind, goal: Goal = Goal.ATTACHED, *, reserve: bool = True, mend: Mend = Mend.NOTHING) -> Want:
    return Want(ATTACHMENT, goal, kernel_vif(kind, vlan=100), POD, reserve=reserve, mend=mend)


def ids(**changes: str) -> dict[str, str]:
    """The external_ids of our port, but for the changes."""
    marks = names.marks(ATTACHMENT, str(POD)) | {names.MARK_DEVICE: str(HOST)}
    return port_of(kernel_vif()).external_ids | marks | changes


def host(kind: PortKind, **changes: Any) -> SeenDevice:
    master = names.linux_bridge(kernel_vif().port_id) if kind is HYBRID else None
    facts: dict[str, Any] = {"index": HOST, "mac": names.host_mac(ATTACHMENT), "mtu": 1500, "up": True, "peer": POD_END}
    return SeenDevice(**{**facts, "master": master, **changes})


def pod(**changes: Any) -> SeenDevice:
    facts: dict[str, Any] = {"index": POD_END, "mac": kernel_vif().mac, "mtu": 1500, "up": True, "peer": HOST}
    facts["addresses"] = frozenset({"10.1.0.5/24", "fd00::5/64", "fe80::1/64"})
    facts["routes"] = frozenset({("0.0.0.0/0", "10.1.0.1", 254), ("10.2.0.0/16", "10.1.0.9", 254)})
    return SeenDevice(**facts | changes)


def seen(kind: PortKind, **changes: Any) -> Seen:
    """The facts when the attachment stands, but for the changes; `port`, `host` and `pod` are dicts, or None for none."""
    port, near, far = (changes.pop(key, {}) for key in ("port", "host", "pod"))
    pair: dict[str, Any] = {"switch_apart": False, "sandbox": True, "linux_bridge": kind is HYBRID}
    pair |= {key: changes.pop(key) for key in list(changes) if key in pair}
    pair["host"] = None if near is None else host(kind, **near)
    pair["pod"] = None if far is None else pod(**far)
    wanted = kernel_vif(kind, vlan=100)
    facts: dict[str, Any] = {
        "switch_trouble": None,
        "directory": True,
        "bridge_datapath": "netdev",
        "port": None if port is None else port_of(wanted, **{"external_ids": ids(), "link_up": True, **port}),
        "settled": True,
        "pod_socket": SocketFile.ABSENT,
        "ovs_socket": SocketFile.ABSENT,
        "addresses": ADDRESSES,
        "addresses_held": True,
        "files_current": True,
        "files_present": False,
        "journalled": True,
        "pair": SeenPair(**pair),
    }
    return Seen(**facts | changes)


@dataclass(frozen=True)
class Row:
    """A row of the table: the facts that make it, and the step or the words of the failure that it decides."""

    facts: dict[str, Any]
    decides: Step | str
    kinds: tuple[PortKind, ...] = KERNEL


def decided(found: Step | Fail | None, wanted: Step | str) -> None:
    """Assert that the decision is this step, or a failure with these words."""
    if isinstance(wanted, Step):
        assert found is wanted
    else:
        assert isinstance(found, Fail)
        assert wanted in found.error.message


def cases(rows: list[Row]) -> list[Any]:
    return [
        pytest.param(kind, row, id=f"{kind.value}-{number}-{row.decides}")
        for number, row in enumerate(rows)
        for kind in row.kinds
    ]


# The rows on the way to attached, in the order of the table.
ATTACHING = [
    Row({"switch_trouble": "OVSDB is away"}, "OVSDB is away"),
    Row({"switch_apart": True}, "runs in another network namespace than podvif"),
    Row({"bridge_datapath": "system"}, "bridge br-dpdk has the datapath 'system'"),
    Row({"port": {"external_ids": FOREIGN}}, "is there and is not podvif's"),
    Row({"host": {"mac": "02:00:00:00:00:99"}}, "network device tap"),
    Row({"host": {"peer": 0}}, "network device tap"),
    Row({"pod": {"peer": 99}}, "the sandbox has a network interface called net1 already"),
    Row({"pod": {"index": 99}}, "the sandbox has a network interface called net1 already"),
    Row({"host": None}, "the sandbox has a network interface called net1 already"),
    Row({"sandbox": False, "pod": None}, "the network namespace of c0ffee:net1 is gone"),
    Row({"addresses": None}, Step.RESERVE_ADDRESSES),
    Row({"port": {"type": "dpdkvhostuser"}}, Step.UNPLUG),
    Row({"port": {"bridge": "br-other"}}, Step.UNPLUG),
    Row({"port": {"bridge": None}}, Step.UNPLUG),
    Row({"port": {"external_ids": ids() | {"attached-mac": "02:00:00:00:00:99"}}}, Step.UNPLUG),
    Row({"port": {"external_ids": ids() | {"iface-id": "another"}}}, Step.UNPLUG),
    Row({"port": {"tag": None}}, Step.UNPLUG),
    Row({"host": None, "pod": None}, Step.UNPLUG, (VETH,)),
    Row({"pod": None}, Step.UNPLUG, (VETH,)),
    Row({"port": {"external_ids": ids() | {names.MARK_DEVICE: "10"}}}, Step.UNPLUG, (VETH,)),
    Row({"port": {"external_ids": port_of(kernel_vif()).external_ids}}, Step.UNPLUG, (VETH,)),
    Row({"linux_bridge": False}, Step.UNPLUG, (HYBRID,)),
    Row({"port": None, "pod": None}, Step.REMOVE_PAIR, (VETH,)),
    Row({"pod": None}, Step.REMOVE_PAIR, (HYBRID,)),
    Row({"port": None, "host": None, "pod": None}, Step.MAKE_PAIR),
    Row({"host": None, "pod": None}, Step.MAKE_PAIR, (HYBRID,)),
    Row({"port": None, "settled": False}, Step.AWAIT_REMOVAL),
    Row({"port": None}, Step.PLUG),
    Row({"port": {"error": "could not open network device tap"}}, "could not open network device tap"),
    Row({"port": {"ofport": -1}}, "it could not be opened (ofport -1)"),
    Row({"port": {"ofport": None}}, Step.AWAIT_PORT),
    Row({"host": {"master": None}}, Step.JOIN_LINUX_BRIDGE, (HYBRID,)),
    Row({"host": {"master": "br0"}}, Step.JOIN_LINUX_BRIDGE, (HYBRID,)),
    Row({"host": {"up": False}}, Step.SET_UP_PAIR),
    Row({"host": {"mtu": 1400}}, Step.SET_UP_PAIR),
    Row({"pod": {"mac": "02:00:00:00:00:99"}}, Step.SET_UP_PAIR),
    Row({"pod": {"mtu": 1400}}, Step.SET_UP_PAIR),
    Row({"pod": {"checksums_left_out": True}}, Step.SET_UP_PAIR),
    Row({"pod": {"up": False}}, Step.SET_UP_PAIR),
    Row({"pod": {"addresses": frozenset({"10.1.0.5/24"})}}, Step.SET_UP_PAIR),
    Row({"pod": {"addresses": frozenset({"10.1.0.5/16", "fd00::5/64"})}}, Step.SET_UP_PAIR),
    Row({"pod": {"routes": frozenset({("0.0.0.0/0", "10.1.0.1", 254)})}}, Step.SET_UP_PAIR),
    Row({"port": {"external_ids": ids() | {names.MARK_POD: "other"}}}, Step.WRITE_MARKS),
]

# The rows on the way to absent, in order.
LEAVING = [
    Row({}, Step.REMOVE_PAIR),
    Row({"switch_trouble": "OVSDB is away"}, Step.REMOVE_PAIR),
    Row({"host": None, "pod": None, "switch_trouble": "OVSDB is away"}, "OVSDB is away"),
    Row({"host": {"mac": "02:00:00:00:00:99"}}, Step.UNPLUG),
    Row({"host": None, "pod": None}, Step.UNPLUG),
    Row({"host": None, "pod": None, "port": None}, Step.RELEASE_ADDRESSES),
    Row({"host": None, "pod": None, "port": {"external_ids": FOREIGN}}, Step.RELEASE_ADDRESSES),
    Row({"host": None, "pod": None, "port": None, "addresses_held": False}, Step.FORGET),
]
GONE: dict[str, Any] = {"host": None, "pod": None, "port": None, "addresses_held": False, "journalled": False}


@pytest.mark.parametrize(("kind", "row"), cases(ATTACHING))
def test_row_to_attached(kind: PortKind, row: Row) -> None:
    """Each row on the way to attached decides what the table says."""
    decided(veth.next_step(want(kind), seen(kind, **row.facts)), row.decides)


@pytest.mark.parametrize(("kind", "row"), cases(LEAVING))
def test_row_to_absent(kind: PortKind, row: Row) -> None:
    """Each row on the way to absent decides what the table says."""
    decided(veth.next_step(want(kind, Goal.LEAVING), seen(kind, **row.facts)), row.decides)


@pytest.mark.parametrize("kind", KERNEL)
def test_nothing_left(kind: PortKind) -> None:
    """An attachment that stands as wanted, and one that is gone, have no next step."""
    assert veth.next_step(want(kind), seen(kind)) is None
    assert veth.next_step(want(kind, Goal.LEAVING), seen(kind, **GONE)) is None


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
    """The facts of both rows at once; None when they exclude each other."""
    merged = first | second
    for key in first.keys() & second.keys():
        one, other = first[key], second[key]
        if isinstance(one, dict) and isinstance(other, dict):
            if any(other.get(name, value) != value for name, value in one.items()):
                return None
            merged[key] = one | other
        elif one != other:
            return None
    return merged


@pytest.mark.parametrize("kind", KERNEL)
def test_precedence(kind: PortKind) -> None:
    """Where the facts of two rows hold at once, the one that stands first in the table decides."""
    compared = 0
    for first, second in combinations([row for row in ATTACHING if kind in row.kinds], 2):
        both = _merged(first.facts, second.facts)
        # Half a pair and none are told apart by the facts of both rows together.
        if both is None or {"host", "pod"} <= both.keys() != first.facts.keys() & {"host", "pod"}:
            continue
        if both.get("port", {}) is None and "port" not in first.facts:
            continue
        decided(veth.next_step(want(kind), seen(kind, **both)), first.decides)
        compared += 1
    assert compared > 150


@pytest.mark.parametrize(
    ("facts", "mend", "decides"),
    [
        ({"port": {"ofport": -1}}, Mend.CERTAIN, "ofport -1"),
        ({"port": {"ofport": -1}}, Mend.ANYTHING, Step.UNPLUG),
        ({"pod": {"up": False}}, Mend.CERTAIN, None),
        ({"pod": {"up": False, "routes": frozenset()}}, Mend.ANYTHING, None),
        ({"pod": {"up": False, "checksums_left_out": True}}, Mend.CERTAIN, Step.SET_UP_PAIR),
        ({"pod": {"addresses": frozenset()}}, Mend.CERTAIN, Step.SET_UP_PAIR),
    ],
)
def test_recovery(facts: dict[str, Any], mend: Mend, decides: Step | str | None) -> None:
    """Recovery tries again what OVS refused, with patience; what the pod has taken down it leaves, what is new it sets up."""
    found = veth.next_step(want(VETH, mend=mend), seen(VETH, **facts))
    if decides is None:
        assert found is None
    else:
        decided(found, decides)


@pytest.mark.parametrize("kind", [VETH, HYBRID])
@pytest.mark.parametrize(
    ("changes", "wired"),
    [
        ({"tag": None}, False),
        ({"tag": 4095}, False),
        ({"tag": 7}, True),
        ({"tag": None, "external_ids": ids(**{"ovn-installed": "true"})}, True),
    ],
)
def test_wired(kind: PortKind, changes: dict[str, Any], *, wired: bool) -> None:
    """A Neutron port is awaited until its agent has wired it, whatever VLAN that gives it."""
    found = seen(kind, port=changes)
    wanted = Want(ATTACHMENT, Goal.ATTACHED, kernel_vif(kind, neutron=True), POD, reserve=True)

    assert veth.next_step(wanted, found) is (None if wired else Step.AWAIT_WIRED)
    assert veth.link(wanted, found) is (Link.CONNECTED if wired else Link.UNWIRED)
    reason = veth.why_not_attached(wanted, found)
    assert reason is None if wired else "has not wired OVS port" in (reason or "")


def test_families() -> None:
    """OVSDB out of reach is worth a repeat, everything else that fails is for somebody to change."""
    found = [veth.next_step(want(VETH), seen(VETH, **row.facts)) for row in ATTACHING if VETH in row.kinds]
    codes = [one.error.code for one in found if isinstance(one, Fail)]

    assert codes[0] == errors.TRY_AGAIN_LATER
    assert errors.TRY_AGAIN_LATER not in codes[1:]


def test_network_without_ipam() -> None:
    """Without IPAM no address is asked for, and the pod's end needs none."""
    bare = seen(VETH, addresses=None, pod={"addresses": frozenset(), "routes": frozenset()})

    assert veth.next_step(want(VETH, reserve=False), bare) is None


def test_what_the_pod_adds() -> None:
    """Addresses and routes that the pod has added are its own."""
    more = pod().addresses | {"192.0.2.1/24"}

    assert veth.next_step(want(VETH), seen(VETH, pod={"addresses": more})) is None


def test_gateways() -> None:
    """A route without a gateway takes its family's, destinations are written as networks, a table of one's own is kept."""
    given = Addresses(
        (Address("10.1.0.5/24", "10.1.0.1"), Address("fd00::5/64", "fd00::1")),
        (Route("10.2.3.4/16"), Route("::/0"), Route("10.9.0.0/16", "10.1.0.7", table=100)),
    )

    assert [veth.route_key(route) for route in veth.wanted_routes(given)] == [
        ("10.2.0.0/16", "10.1.0.1", 254),
        ("::/0", "fd00::1", 254),
        ("10.9.0.0/16", "10.1.0.7", 100),
    ]
    assert veth.wanted_routes(Addresses((Address("10.1.0.5/24"),), (Route("10.2.0.0/16"),)))[0].gw is None


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        (ADDRESSES, None),
        (Addresses((Address("10.1.0.5/24", "router"),)), "router"),
        (Addresses((), (Route("everywhere"),)), "everywhere"),
        (Addresses((), (Route("0.0.0.0/0", "router"),)), "router"),
    ],
)
def test_unusable(addresses: Addresses, words: str | None) -> None:
    """A gateway or a destination that is none is found before the kernel is asked."""
    assert words in (veth.why_not_usable(addresses) or "") if words else veth.why_not_usable(addresses) is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"switch_trouble": "OVSDB is away"}, "OVSDB is away"),
        ({"port": None}, "is missing"),
        ({"port": {"tag": 7}}, "has VLAN 7, wanted is 100"),
        ({"port": {"external_ids": ids() | {names.MARK_DEVICE: "10"}}}, "passes nothing over the new one"),
        ({"host": None, "pod": None}, "the pair of network devices of OVS port tap"),
        ({"port": None, "host": None, "pod": None}, "the pair of network devices of c0ffee:net1 is not whole"),
        ({"port": {"ofport": None}}, "ovs-vswitchd has not come to it yet"),
        ({"host": {"mtu": 1400}}, "is down, or its MTU is not 1500"),
        ({"pod": {"mtu": 1400}}, "MTU 1400"),
        ({"pod": {"checksums_left_out": True}}, "leaves checksums out"),
        ({"pod": {"up": False}}, "net1 is down"),
        ({"pod": {"addresses": frozenset()}}, "net1 lacks address 10.1.0.5/24"),
        ({"pod": {"routes": frozenset()}}, "net1 lacks the route to 0.0.0.0/0"),
        ({"port": {"external_ids": ids() | {names.MARK_POD: "other"}}}, "podvif still has to write owner marks"),
    ],
)
def test_why_not_attached(facts: dict[str, Any], words: str) -> None:
    """CHECK's reason names what is not as it should be; there is none when all is."""
    assert words in (veth.why_not_attached(want(VETH), seen(VETH, **facts)) or "")
    assert veth.why_not_attached(want(VETH), seen(VETH)) is None


@pytest.mark.parametrize(
    ("facts", "link"),
    [
        ({}, Link.CONNECTED),
        ({"port": {"link_up": False}}, Link.NOT_PLUGGED),
        ({"host": None, "pod": None}, Link.NOT_PLUGGED),
        ({"port": None}, Link.NOT_PLUGGED),
        ({"port": {"ofport": -1}}, Link.NOT_PLUGGED),
        ({"switch_trouble": "OVSDB is away"}, Link.NOT_PLUGGED),
    ],
)
def test_link(facts: dict[str, Any], link: Link) -> None:
    """A link is up when OVS says so and the device is there; nobody is waited for."""
    assert veth.link(want(VETH), seen(VETH, **facts)) is link


def test_without_devices() -> None:
    """Facts without devices are none about a kernel port."""
    with pytest.raises(Bug):
        veth.next_step(want(VETH), msgspec.structs.replace(seen(VETH), pair=None))


# -- every walk ends -------------------------------------------------------------------------------------------------


class World:
    """A small world that behaves: each step changes what it changes in the real one."""

    def __init__(self, kind: PortKind, facts: Seen) -> None:
        self.kind = kind
        self.seen = facts
        self.index = HOST

    def do(self, step: Step) -> None:
        change: dict[str, Any] = {}
        pair, port = veth.pair_of(self.seen), self.seen.port
        match step:
            case Step.RESERVE_ADDRESSES:
                change = {"addresses": ADDRESSES, "addresses_held": True}
            case Step.MAKE_PAIR:
                assert pair.host is None
                self.index += 1
                near, far = host(self.kind, index=self.index, master=None), pod(peer=self.index, up=False)
                far = msgspec.structs.replace(far, checksums_left_out=True, addresses=frozenset(), routes=frozenset())
                pair = msgspec.structs.replace(pair, host=near, pod=far)
            case Step.REMOVE_PAIR:
                pair = msgspec.structs.replace(pair, host=None, pod=None)
            case Step.SET_UP_PAIR:
                assert pair.host
                near = msgspec.structs.replace(pair.host, up=True, mtu=1500)
                pair = msgspec.structs.replace(pair, host=near, pod=pod(peer=near.index))
            case Step.JOIN_LINUX_BRIDGE:
                pair = msgspec.structs.replace(pair, host=host(self.kind, index=self.index))
            case Step.PLUG:
                marks = ids() | {names.MARK_DEVICE: str(self.index)}
                plugged = port_of(kernel_vif(self.kind, vlan=100), external_ids=marks, ofport=None)
                change = {"port": plugged, "bridge_datapath": "netdev"}
                pair = msgspec.structs.replace(pair, linux_bridge=self.kind is HYBRID)
            case Step.UNPLUG:
                change = {"port": None, "settled": False}
                pair = msgspec.structs.replace(pair, linux_bridge=False)
            case Step.AWAIT_REMOVAL:
                change = {"settled": True}
            case Step.AWAIT_PORT:
                assert port
                change = {"port": msgspec.structs.replace(port, ofport=3)}
            case Step.WRITE_MARKS:
                assert port
                marks = port.external_ids | names.marks(ATTACHMENT, str(POD))
                change = {"port": msgspec.structs.replace(port, external_ids=marks)}
            case Step.RELEASE_ADDRESSES:
                change = {"addresses": None, "addresses_held": False}
            case Step.FORGET:
                change = {"journalled": False}
            case _:
                raise AssertionError(step)
        self.seen = msgspec.structs.replace(self.seen, **{"pair": pair, **change})


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Facts that can hold at one moment while vswitchd lives, and the pod's namespace."""
    kind = draw(st.sampled_from(KERNEL))
    facts: dict[str, Any] = {key: draw(st.booleans()) for key in ("settled", "addresses_held", "journalled")}
    facts["addresses"] = draw(st.sampled_from([None, ADDRESSES]))
    facts["linux_bridge"] = kind is HYBRID and draw(st.booleans())
    match draw(st.sampled_from(["none", "half", "whole", "bare"])):
        case "none":
            facts |= {"host": None, "pod": None}
        case "half":
            facts["pod"] = None
        case "bare":
            bare: dict[str, Any] = {"up": False, "checksums_left_out": True, "addresses": frozenset()}
            facts |= {"host": {"master": None}, "pod": bare}
    facts["port"] = draw(
        st.none()
        | st.fixed_dictionaries(
            {"ofport": st.sampled_from([None, 7])},
            optional={
                "bridge": st.sampled_from(["br-dpdk", "br-other", None]),
                "tag": st.sampled_from([None, 100]),
                "external_ids": st.sampled_from([ids(), ids() | {names.MARK_DEVICE: "10"}, ids() | {"iface-id": "x"}]),
            },
        )
    )
    return World(kind, seen(kind, **facts))


@given(
    worlds(),
    st.sampled_from([Goal.ATTACHED, Goal.LEAVING]),
    st.lists(st.sampled_from(["once", "fails"]), max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_every_walk_ends(world: World, goal: Goal, fates: list[str]) -> None:
    """From any facts, with steps that fail once, a walk ends attached or absent in STEPS_MAX steps."""
    wanted = want(world.kind, goal)
    taken: list[Step] = []
    while step := veth.next_step(wanted, world.seen):
        assert isinstance(step, Step), step
        taken.append(step)
        assert len(taken) <= STEPS_MAX, taken
        if len(taken) <= len(fates) and fates[len(taken) - 1] == "fails":
            continue
        world.do(step)
        assert veth.next_step(wanted, world.seen) != step, f"{step} was done and is decided again"

    found = world.seen
    if goal is Goal.LEAVING:
        assert (found.port, veth.pair_of(found).host, found.journalled) == (None, None, False)
    else:
        assert veth.why_not_attached(wanted, found) is None


@given(
    st.sampled_from(KERNEL),
    st.sampled_from(Goal),
    st.sampled_from([{}, FOREIGN]),
    st.sampled_from([{"mac": "02:00:00:00:00:99"}, {"peer": 0}]),
    st.booleans(),
)
def test_foreign(kind: PortKind, goal: Goal, external_ids: dict[str, str], device: dict[str, Any], port: bool) -> None:  # noqa: FBT001
    """Whatever else holds, an OVS port or a device that is not ours is neither taken nor removed."""
    facts: dict[str, Any] = {"port": {"external_ids": external_ids}} if port else {"host": device}
    step = veth.next_step(want(kind, goal), seen(kind, **facts))

    assert step not in {Step.PLUG, Step.UNPLUG if port else Step.REMOVE_PAIR, Step.MAKE_PAIR, Step.SET_UP_PAIR}
