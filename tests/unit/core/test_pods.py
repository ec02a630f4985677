"""The controller's table, row by row, and what holds of every walk through it."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podvif.core.pods import (
    ACTIONS_MAX,
    AddFinalizer,
    CreatePodVif,
    CreatePort,
    DeletePodVif,
    DeletePort,
    Fail,
    RebindPort,
    RemoveFinalizer,
    SeenPod,
    WriteStatus,
    is_served,
    next_action,
    spec_of,
    stamped,
)
from podvif.core.ports import Place, Places, interface_facts, interface_of, orphans, port_request
from podvif.errors import Bug, PodvifError, Refused, Retry
from podvif.model import ClusterPod, FixedIp, NeutronPort, PortRequest
from podvif.podvifs import FINALIZER, Condition, Interface, InterfaceState, PodVif, Spec, Status, WantedInterface
from tests.fakes.cluster import (
    DEFAULTS,
    DETAILS,
    ETH0,
    ETH1,
    NETWORK,
    NODE,
    OTHER_NETWORK,
    OTHER_SUBNET,
    PLACES,
    SUBNET,
    cluster_pod,
    neutron_port,
    pod_vif,
)

BOTH = (ETH0, ETH1)
PORT0, PORT1 = neutron_port(ETH0, 1), neutron_port(ETH1, 2)
NOW = "2026-11-24T12:00:00Z"
BOUND = Condition("Bound", "True", "PortsBound", "", NOW, 1)
PLUGGED = Condition("Plugged", "True", "Plugged", "", NOW, 1)


def facts(wanted: WantedInterface, port: NeutronPort) -> Interface:
    return interface_facts(wanted.name, port, PLACES, NODE)


STATUS = Status((facts(ETH0, PORT0), facts(ETH1, PORT1)), (BOUND, PLUGGED))


def seen(*, podvif: dict[str, Any] | None = None, pod: dict[str, Any] | None = None, **changes: Any) -> SeenPod:
    """A pod with two interfaces that stands as wanted, but for the changes; parts of pod and PodVif by name."""
    given: dict[str, Any] = {
        "pod": cluster_pod(**pod or {}),
        "podvif": pod_vif(*BOTH, **{"status": STATUS, **(podvif or {})}),
        "wanted": BOTH,
        "ports": (PORT0, PORT1),
        "places": PLACES,
    }
    return SeenPod(**given | changes)


def decide(**changes: Any) -> Any:
    return next_action(seen(**changes), DEFAULTS)


def request(wanted: WantedInterface, podvif: PodVif | None = None) -> PortRequest:
    place = Place(OTHER_NETWORK, OTHER_SUBNET) if wanted == ETH1 else Place(NETWORK, SUBNET)
    return port_request(podvif or pod_vif(*BOTH), wanted, place, DEFAULTS)


ANOTHER = {"uid": "11111111-52f1-4d0b-9a55-3f8f0c1d2e3f"}
DELETING = {"deleting": True}
STRIPPED = {"finalizers": ("other/finalizer",)}
NOT_YET = Retry("the pod's networks cannot be looked up")
REFUSED, AWAY = Refused("no free address in subnet x"), "Neutron unreachable since 12:00"
DELETE_PODVIF = DeletePodVif("podvif-uid", "7")
REMOVE_FINALIZER = RemoveFinalizer("podvif-uid")


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        # The PodVif's pod is gone, another, or ended: the object is deleted, then its ports, then it lets go.
        ({"pod": ANOTHER}, DELETE_PODVIF),
        ({"pod": {"finished": True}}, DELETE_PODVIF),
        ({"pod": {"finished": True, "deleting": True}}, DELETE_PODVIF),
        ({"pod": {"host_network": True}}, DELETE_PODVIF),
        ({"pod": ANOTHER, "podvif": DELETING}, DeletePort(PORT0.id, "its pod has ended")),
        ({"pod": ANOTHER, "podvif": DELETING, "ports": (PORT1,)}, DeletePort(PORT1.id, "its pod has ended")),
        ({"pod": ANOTHER, "podvif": DELETING, "ports": ()}, REMOVE_FINALIZER),
        ({"pod": ANOTHER, "podvif": DELETING | STRIPPED, "ports": (PORT1,)}, DeletePort(PORT1.id, "its pod has ended")),
        ({"pod": ANOTHER, "podvif": DELETING | STRIPPED, "ports": ()}, None),
        # The pod ends: it keeps what it has.
        ({"pod": DELETING}, None),
        ({"pod": DELETING, "ports": (PORT0,)}, None),
        ({"pod": DELETING, "podvif": DELETING}, None),
        ({"pod": DELETING, "podvif": {"status": Status()}}, None),
        # The PodVif was deleted by hand: it comes again, over the same ports.
        ({"podvif": DELETING}, REMOVE_FINALIZER),
        ({"podvif": DELETING, "trouble": AWAY}, REMOVE_FINALIZER),
        ({"podvif": DELETING | STRIPPED}, None),
        ({"podvif": STRIPPED}, AddFinalizer("podvif-uid")),
        # What is wanted has changed: that helps while nothing is bound, and does nothing after.
        ({"wanted": (ETH0,), "podvif": {"status": Status()}}, DELETE_PODVIF),
        ({"wanted": (), "podvif": {"status": Status()}}, DELETE_PODVIF),
        ({"wanted": (ETH0,)}, None),
        ({"wanted": REFUSED}, None),
        # Ports that are not wanted.
        ({"ports": (PORT0, PORT1, neutron_port(WantedInterface(name="eth7"), 7))},
         DeletePort(neutron_port(ETH0, 7).id, "it is for no interface of its pod")),
        ({"ports": (PORT0, PORT1, neutron_port(ETH1, 3))}, DeletePort(neutron_port(ETH1, 3).id, f"eth1 has port {PORT1.id}")),
        # Ports that are missing.
        ({"ports": ()}, CreatePort("eth0", request(ETH0))),
        ({"ports": (), "podvif": {"status": Status()}}, CreatePort("eth0", request(ETH0))),
        ({"ports": (PORT0,)}, CreatePort("eth1", request(ETH1))),
        ({"ports": (PORT0, neutron_port(ETH1, 2, device_id="another"))}, CreatePort("eth1", request(ETH1))),
        ({"ports": (PORT0, neutron_port(ETH1, 2, tags=frozenset({"theirs"})))}, CreatePort("eth1", request(ETH1))),
        ({"ports": (), "refusals": {"eth0": REFUSED}}, CreatePort("eth1", request(ETH1))),
        # It is bound.
        ({}, None),
        ({"ports": (PORT1, PORT0)}, None),
    ],
)  # fmt: skip
def test_row(changes: dict[str, Any], action: Any) -> None:
    """Each row of a pod with a PodVif decides what the table says."""
    assert decide(**changes) == action


@pytest.mark.parametrize(
    ("pod", "wanted", "action"),
    [
        ({}, BOTH, CreatePodVif("ns", "p", spec_of(cluster_pod(), BOTH))),
        ({"host_paths": ("/run/vhostuser",)}, (ETH0,),
         CreatePodVif("ns", "p", spec_of(cluster_pod(host_paths=("/run/vhostuser",)), (ETH0,)))),
        ({}, (), None),
        ({"deleting": True}, BOTH, None),
        ({"finished": True}, BOTH, None),
        ({"host_network": True}, BOTH, None),
        ({"node_name": ""}, BOTH, None),
        ({"node_name": ""}, REFUSED, None),
        ({}, REFUSED, CreatePodVif("ns", "p", spec_of(cluster_pod(), ()))),
        ({}, NOT_YET, Fail(NOT_YET, "NetworksRefused")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trouble", [None, AWAY])
def test_row_without_a_podvif(pod: dict[str, Any], wanted: Any, action: Any, trouble: str | None) -> None:
    """A pod that is served and wants interfaces gets a PodVif, whether Neutron answers or not; others get nothing."""
    assert next_action(SeenPod(cluster_pod(**pod), None, wanted, trouble=trouble), DEFAULTS) == action


def test_refused() -> None:
    """A PodVif without an interface says why there is none, whether Neutron answers or not, and goes when the pod asks otherwise."""
    bare = pod_vif(status=Status())
    refused = msgspec.structs.replace(bare, spec=msgspec.structs.replace(bare.spec, interfaces=()))
    asked = SeenPod(cluster_pod(), refused, REFUSED, trouble=AWAY)

    write = next_action(asked, DEFAULTS)

    assert isinstance(write, WriteStatus)
    (condition,) = write.status.conditions
    assert (condition.status, condition.reason) == ("False", "NetworksRefused")
    assert (condition.message, write.status.interfaces) == (REFUSED.message, ())
    said = msgspec.structs.replace(asked, podvif=msgspec.structs.replace(refused, status=write.status))
    assert next_action(said, DEFAULTS) == Fail(REFUSED, "NetworksRefused")
    assert next_action(msgspec.structs.replace(said, wanted=NOT_YET), DEFAULTS) == Fail(NOT_YET, "NetworksRefused")
    for wanted in ((), BOTH):
        assert next_action(msgspec.structs.replace(said, wanted=wanted), DEFAULTS) == DELETE_PODVIF


def test_nothing_there() -> None:
    """Without a pod and without a PodVif there is nothing to do."""
    assert next_action(SeenPod(None, None), DEFAULTS) is None


def test_no_pod() -> None:
    """A PodVif whose pod is gone goes the same way as that of a pod that has ended."""
    podvif = pod_vif(*BOTH, status=STATUS)
    gone = msgspec.structs.replace(podvif, deleting=True)

    assert next_action(SeenPod(None, podvif, ports=(PORT0,)), DEFAULTS) == DELETE_PODVIF
    assert next_action(SeenPod(None, gone, ports=(PORT0,)), DEFAULTS) == DeletePort(PORT0.id, "its pod has ended")
    assert next_action(SeenPod(None, gone), DEFAULTS) == REMOVE_FINALIZER


@pytest.mark.parametrize("tags", [PORT0.tags, frozenset()])
def test_only_ports_of_ours(tags: frozenset[str]) -> None:
    """Ports of another pod, another owner, or Kuryr's of the same pod, are neither adopted nor deleted."""
    foreign = (
        neutron_port(ETH0, 1, device_id="another", tags=tags),
        neutron_port(ETH0, 2, device_owner="compute:nova", tags=frozenset()),
        neutron_port(ETH0, 3, name="ns/p", tags=frozenset()),
    )

    assert decide(ports=(*foreign, PORT0, PORT1)) is None
    assert decide(pod=ANOTHER, podvif=DELETING, ports=foreign) == REMOVE_FINALIZER


@pytest.mark.parametrize(
    ("status", "ports", "stays"),
    [
        ((), [{}, {}], 0),
        ((), [{"created": "2026-11-24T00:00:09Z"}, {}], 1),
        ((), [{"vif_type": "binding_failed", "vif_details": {}}, {}], 1),
        ((), [{"host_id": "n2"}, {}], 1),
        ((), [{}, {"status": "ACTIVE"}], 1),
        ((1,), [{"status": "ACTIVE"}, {}], 1),
        ((1,), [{}, {"vif_type": "binding_failed", "vif_details": {}}], 1),
    ],
    ids=["older", "later", "bound", "its host", "active", "in the status", "in the status, though it failed"],
)  # fmt: skip
def test_of_two_ports(status: tuple[int, ...], ports: list[dict[str, Any]], stays: int) -> None:
    """Of two ports of one interface the better one stays, in whichever order they are seen."""
    two = [neutron_port(ETH0, number, **changes) for number, changes in enumerate(ports, start=1)]
    named = Status(tuple(facts(ETH0, neutron_port(ETH0, which + 1)) for which in status))
    podvif = pod_vif(status=named)

    for order in itertools.permutations(two):
        action = next_action(SeenPod(cluster_pod(), podvif, (ETH0,), order, PLACES), DEFAULTS)
        assert action == DeletePort(two[1 - stays].id, f"eth0 has port {two[stays].id}")


@pytest.mark.parametrize(
    "misfit",
    [{"mac": "fa:16:3e:00:00:99"}, {"network_id": OTHER_NETWORK.id}, {"fixed_ips": (FixedIp(SUBNET.id, "10.10.1.7"),)}],
)
def test_adopted_port(misfit: dict[str, Any]) -> None:
    """A port that is not what was asked for goes if it was never bound; one that may be plugged stays as it is."""
    wanted = WantedInterface(name="eth0", mac="fa:16:3e:00:00:01", ips=("10.10.1.1",))
    port = neutron_port(wanted, **misfit)
    podvif = pod_vif(wanted)
    action = next_action(SeenPod(cluster_pod(), podvif, (wanted,), (port,), PLACES), DEFAULTS)
    assert isinstance(action, DeletePort)
    assert action.port_id == port.id

    bound = msgspec.structs.replace(podvif, status=Status((facts(wanted, port),), (BOUND,)))

    assert next_action(SeenPod(cluster_pod(), bound, (wanted,), (port,), PLACES), DEFAULTS) is None


def one(port: NeutronPort | None = None, status: Status | None = None, **changes: Any) -> SeenPod:
    """A pod with one interface."""
    given: dict[str, Any] = {"wanted": (ETH0,), "ports": (port,) if port else (), "places": PLACES}
    return SeenPod(cluster_pod(), pod_vif(status=status or Status()), **given | changes)


BAD: dict[str, tuple[dict[str, Any], str, str, type[PodvifError]]] = {
    "binding_failed": ({"vif_type": "binding_failed", "vif_details": {}}, "BindingFailed",
                       "binding_failed: no agent with datapath netdev on node n1", Retry),
    "unbound": ({"vif_type": "unbound", "vif_details": {}, "host_id": ""}, "Unbound", "unbound: Neutron has bound", Retry),
    "other host": ({"host_id": "n2"}, "Unbound", "unbound: Neutron has the port on host n2", Retry),
    "hidden": ({"vif_type": "", "vif_details": {}, "host_id": ""}, "Unbound", "vif_type: the credentials may not", Retry),
    "hw_veb": ({"vif_type": "hw_veb"}, "UnpluggableVif", "hw_veb: podvif plugs", Refused),
    "no details": ({"vif_details": {}}, "UnpluggableVif", "vhostuser: vif_details has vhostuser_mode None", Refused),
    "unknown mode": ({"vif_details": DETAILS | {"vhostuser_mode": "x"}}, "UnpluggableVif", "vhostuser: vif_details", Refused),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_port_that_cannot_be_plugged(case: str) -> None:
    """It is told in the interface and the condition, then waited for; after a back-off it is bound, or made, again."""
    changes, reason, words, family = BAD[case]
    port = neutron_port(**changes)
    action = next_action(one(port), DEFAULTS)
    assert isinstance(action, WriteStatus)
    (interface,) = action.status.interfaces
    (condition,) = action.status.conditions
    assert (interface.state, interface.port_id) == (InterfaceState.FAILED, port.id)
    assert interface.message.startswith(words)
    assert (condition.type, condition.status, condition.reason) == ("Bound", "False", reason)
    assert condition.message == interface.message

    found = next_action(one(port, action.status), DEFAULTS)

    assert isinstance(found, Fail)
    assert isinstance(found.error, family)
    assert found.reason == reason
    assert found.error.message == interface.message
    assert found.error.remedy
    (again,) = found.again
    if family is Retry:
        assert again == RebindPort(port.id, NODE)
    else:
        assert isinstance(again, DeletePort)


@pytest.mark.parametrize(
    ("changes", "reason", "words", "family"),
    [
        ({"refusals": {"eth0": REFUSED}}, "PortRefused", "no free address in subnet x", Refused),
        ({"refusals": {"eth0": Retry("Neutron said 503")}}, "PortNotMade", "Neutron said 503", Retry),
        (
            {"places": Places({SUBNET.id: Refused("subnet x\nnot found")})},
            "PlaceUnknown",
            "subnet x not found",
            Refused,
        ),
        ({"places": Places({SUBNET.id: Retry("away")})}, "PlaceUnknown", "away", Retry),
    ],
)
def test_no_port(changes: dict[str, Any], reason: str, words: str, family: type[PodvifError]) -> None:
    """An interface that gets no port says why, in one line, and the pod is looked at again later."""
    action = next_action(one(**changes), DEFAULTS)
    assert isinstance(action, WriteStatus)
    assert action.status.interfaces == (Interface(name="eth0", state=InterfaceState.FAILED, message=words),)
    assert action.status.conditions == (Condition("Bound", "False", reason, words, "", 1),)

    found = next_action(one(status=action.status, **changes), DEFAULTS)

    assert isinstance(found, Fail)
    assert isinstance(found.error, family)
    assert (found.reason, found.again) == (reason, ())


def test_facts_outlive_a_look_up_that_fails() -> None:
    """A bound interface keeps its facts while subnet and network cannot be looked up."""
    found = decide(places=Places(PLACES.subnets))

    assert isinstance(found, Fail)
    assert "was not looked up yet" in found.error.message


def test_port_whose_subnet_is_unknown() -> None:
    """A port that was not bound in the status yet waits for its subnet's facts."""
    action = next_action(one(PORT0, places=Places()), DEFAULTS)

    assert isinstance(action, WriteStatus)
    assert action.status.interfaces[0].state is InterfaceState.FAILED
    assert "was not looked up yet" in action.status.interfaces[0].message


def test_one_of_two() -> None:
    """An interface that cannot be had does not keep the other from being bound, and is named in the condition."""
    changes: dict[str, Any] = {"ports": (PORT0,), "refusals": {"eth1": REFUSED}}
    action = decide(podvif={"status": Status((), (PLUGGED,))}, **changes)
    assert isinstance(action, WriteStatus)
    assert [interface.state for interface in action.status.interfaces] == [InterfaceState.BOUND, InterfaceState.FAILED]
    assert action.status.conditions == (
        PLUGGED,
        Condition("Bound", "False", "PortRefused", "eth1: no free address in subnet x", "", 1),
    )

    assert decide(podvif={"status": action.status}, **changes) == Fail(REFUSED, "PortRefused")


def test_what_passes_by_itself_comes_first() -> None:
    """Of two failures the one that a repeat may mend decides how soon to look again."""
    changes: dict[str, Any] = {"ports": (), "refusals": {"eth0": REFUSED, "eth1": Retry("busy")}}
    action = decide(podvif={"status": Status()}, **changes)
    found = decide(podvif={"status": action.status}, **changes)

    assert isinstance(found.error, Retry)


@pytest.mark.parametrize("bound", [True, False])
def test_neutron_away(bound: bool) -> None:  # noqa: FBT001
    """While Neutron cannot be asked, what is bound stays so, and what is not says since when it waits."""
    former = STATUS if bound else Status((facts(ETH0, PORT0),))
    found = decide(trouble=AWAY, ports=(), podvif={"status": former})
    if not bound:
        assert isinstance(found, WriteStatus)
        assert found.status.interfaces == (facts(ETH0, PORT0), Interface(name="eth1", state=InterfaceState.PENDING))
        assert found.status.conditions == (Condition("Bound", "False", "NeutronUnreachable", AWAY, "", 1),)
        found = decide(trouble=AWAY, ports=(), podvif={"status": found.status})

    assert isinstance(found, Fail)
    assert isinstance(found.error, Retry)
    assert found.reason == "NeutronUnreachable"


def test_deleting_while_neutron_is_away() -> None:
    """The finalizer stays until Neutron has said that no port is left."""
    found = decide(pod=ANOTHER, podvif=DELETING, ports=(), trouble=AWAY)

    assert isinstance(found, Fail)
    assert found.error.message == AWAY


def test_times() -> None:
    """A condition's time is the clock's when its value changes, and stays while only its words do."""
    action = next_action(one(neutron_port(**BAD["binding_failed"][0])), DEFAULTS)
    assert isinstance(action, WriteStatus)
    written = stamped(action.status, NOW)
    assert written.conditions[0].last_transition_time == NOW

    other = next_action(one(neutron_port(**BAD["hw_veb"][0]), written), DEFAULTS)
    assert isinstance(other, WriteStatus)
    assert stamped(other.status, "later").conditions[0].last_transition_time == NOW

    bound = next_action(one(PORT0, written), DEFAULTS)
    assert isinstance(bound, WriteStatus)
    assert stamped(bound.status, "later").conditions == (Condition("Bound", "True", "PortsBound", "", "later", 1),)


def test_spec() -> None:
    """A spec has what the node has to know, and comes back from the API server as it was written."""
    pod = cluster_pod(host_paths=("/run/vhostuser",), annotations={"kubernetes.io/config.mirror": "static"})
    spec = spec_of(pod, BOTH)

    assert spec == Spec(NODE, pod.uid, BOTH, ("/run/vhostuser",), "static")
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec) == spec


@pytest.mark.parametrize(
    ("changes", "served"),
    [({}, True), ({"deleting": True}, True), ({"finished": True}, False), ({"host_network": True}, False),
     ({"node_name": ""}, False)],
)  # fmt: skip
def test_served(changes: dict[str, Any], served: bool) -> None:  # noqa: FBT001
    """A pod that ends is served to its end; one that has ended, has no node or uses the node's network is not."""
    assert is_served(cluster_pod(**changes)) is served


# -- every walk ends -------------------------------------------------------------------------------------------------


class World:
    """A small cluster that behaves: the API server's preconditions, Neutron's ports, an agent that may be down."""

    def __init__(self) -> None:
        self.pod: ClusterPod | None = None
        self.podvif: PodVif | None = None
        self.ports: dict[str, NeutronPort] = {}
        self.late: list[PortRequest] = []
        self.agent = True
        self.full = False
        self.numbers = itertools.count(1)
        self.refusals: dict[str, PodvifError] = {}
        self.unguarded = False
        """Something happened that only the sweep can mend: ports without a PodVif, a request that comes too late."""

    # what others do

    def event(self, name: str) -> None:
        getattr(self, name)()

    def create_pod(self) -> None:
        if self.pod is None:
            self.pod = cluster_pod(uid=f"uid-{next(self.numbers)}")

    def finish_pod(self) -> None:
        self._change_pod(finished=True)

    def delete_pod(self) -> None:
        self._change_pod(deleting=True)

    def remove_pod(self) -> None:
        self.pod = None

    def collect_garbage(self) -> None:
        if self.podvif and (self.pod is None or self.pod.uid != self.podvif.spec.pod_uid):
            self.delete_podvif()

    def delete_podvif(self) -> None:
        if self.podvif:
            self.unguarded |= self.pod is not None and self.pod.uid == self.podvif.spec.pod_uid
            self._change_podvif(deleting=True)

    def strip_finalizer(self) -> None:
        if self.podvif:
            self.unguarded = True
            self._change_podvif(finalizers=())

    def delete_port(self) -> None:
        for port in sorted(self.ports)[:1]:
            del self.ports[port]

    def unbind_port(self) -> None:
        for port in sorted(self.ports)[:1]:
            self._bind(port, bound=False)

    def agent_dies(self) -> None:
        self.agent = False

    def subnet_fills(self) -> None:
        self.full = True

    def clock_runs(self) -> None:
        """All that passes by itself has passed: the agent is back, addresses are free, late requests have arrived."""
        self.agent, self.full = True, False
        self.refusals.clear()
        for request in self.late:
            self._make(request)
        self.late.clear()

    # what the controller does

    def see(self) -> SeenPod:
        uid = self.podvif.spec.pod_uid if self.podvif else ""
        ports = tuple(port for port in self.ports.values() if port.device_id == uid)
        return SeenPod(self.pod, self.podvif, BOTH if self.pod else (), ports, PLACES, dict(self.refusals))

    def do(self, action: Any, fate: str) -> None:
        if fate == "fails":
            return
        if isinstance(action, CreatePort):
            if fate == "late":
                self.late.append(action.request)
                self.unguarded = True
            elif self.full:
                self.refusals[action.interface] = REFUSED
            else:
                self._make(action.request)
        else:
            self._do(action)
        if fate == "twice":
            self.do(action, "once")

    def _do(self, action: Any) -> None:
        match action:
            case CreatePodVif(namespace, name, spec):
                self.podvif = self.podvif or PodVif(
                    namespace, name, f"podvif-{next(self.numbers)}", spec, Status(), "1", 1, (FINALIZER,)
                )
            case DeletePodVif(uid, version):
                if self.podvif and (self.podvif.uid, self.podvif.resource_version) == (uid, version):
                    self._change_podvif(deleting=True)
            case AddFinalizer(uid):
                if self.podvif and self.podvif.uid == uid and not self.podvif.deleting:
                    self._change_podvif(finalizers=(FINALIZER,))
            case RemoveFinalizer(uid):
                if self.podvif and self.podvif.uid == uid:
                    self._change_podvif(finalizers=())
            case DeletePort(port_id):
                self.ports.pop(port_id, None)
            case RebindPort(port_id):
                if port_id in self.ports:
                    self._bind(port_id, bound=self.agent)
            case WriteStatus(uid, status):
                if self.podvif and self.podvif.uid == uid:
                    self._change_podvif(status=stamped(status, NOW))
            case _:
                raise Bug(f"no such action: {action}")

    def _make(self, request: PortRequest) -> None:
        number = next(self.numbers)
        wanted = next(wanted for wanted in BOTH if f"podvif-if={wanted.name}" in request.tags)
        port = neutron_port(wanted, number % 250, device_id=request.device_id, tags=frozenset(request.tags))
        port = msgspec.structs.replace(port, id=f"{number:08x}-0000-4000-8000-000000000000")
        self.ports[port.id] = port
        self._bind(port.id, bound=self.agent)

    def _bind(self, port: str, *, bound: bool) -> None:
        binding: dict[str, Any] = {"vif_type": "vhostuser", "vif_details": DETAILS}
        failed: dict[str, Any] = {"vif_type": "binding_failed", "vif_details": {}}
        self.ports[port] = msgspec.structs.replace(self.ports[port], **(binding if bound else failed))

    def _change_pod(self, **changes: Any) -> None:
        if self.pod:
            self.pod = msgspec.structs.replace(self.pod, **changes)

    def _change_podvif(self, **changes: Any) -> None:
        assert self.podvif
        version = str(int(self.podvif.resource_version) + 1)
        self.podvif = msgspec.structs.replace(self.podvif, resource_version=version, **changes)
        if self.podvif.deleting and not self.podvif.finalizers:
            self.podvif = None

    def sweep(self) -> None:
        served = {self.pod.uid} if self.pod and is_served(self.pod) else set()
        named = {self.podvif.spec.pod_uid} if self.podvif else set()
        for port in orphans(self.ports.values(), served | named, DEFAULTS.device_owner):
            del self.ports[port.id]


EVENTS = [
    "create_pod", "create_pod", "finish_pod", "delete_pod", "remove_pod", "collect_garbage", "delete_podvif",
    "strip_finalizer", "delete_port", "unbind_port", "agent_dies", "subnet_fills", "clock_runs",
]  # fmt: skip
FATES = ["once", "once", "once", "twice", "fails", "late"]


def settle(world: World) -> None:
    """Let the controller go on until it is content, through its back-offs."""
    taken: list[Any] = []
    while found := next_action(world.see(), DEFAULTS):
        taken.append(found)
        assert len(taken) <= ACTIONS_MAX, taken
        if isinstance(found, Fail):
            world.clock_runs()
            for action in found.again:
                world.do(action, "once")
        else:
            world.do(found, "once")
            assert next_action(world.see(), DEFAULTS) != found, f"{found} was done and is decided again"


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.lists(st.sampled_from(FATES), max_size=6)), max_size=14))
@settings(max_examples=250, deadline=None)
def test_every_walk_ends(script: list[tuple[str, list[str]]]) -> None:
    """After any events, with the controller killed, repeated or unheard at any action, each pod has its ports, and no more."""
    world = World()
    for event, fates in script:
        world.event(event)
        for fate in fates:  # and then it is killed, and the next event comes while it is down
            found = next_action(world.see(), DEFAULTS)
            if found is None:
                break
            for action in found.again if isinstance(found, Fail) else (found,):
                world.do(action, fate)
    world.clock_runs()
    world.collect_garbage()

    settle(world)

    if world.unguarded:
        world.sweep()
    pod, podvif, ports = world.pod, world.podvif, list(world.ports.values())
    if pod is None or not is_served(pod):
        assert (podvif, ports) == (None, [])
    elif pod.deleting:  # what it has it keeps
        assert {port.device_id for port in ports} <= {pod.uid}
    else:
        assert sorted(interface_of(port) for port in ports) == ["eth0", "eth1"]
        assert {port.device_id for port in ports} == {pod.uid}
        assert podvif is not None
        assert podvif.spec == spec_of(pod, BOTH)
        assert {interface.port_id for interface in podvif.status.interfaces} == {port.id for port in ports}
        assert podvif.status.conditions[0].status == "True"


def test_the_walk_of_a_quiet_cluster() -> None:
    """Where nothing goes wrong a pod takes one PodVif, one port an interface and one status; and goes as straight."""
    world, taken = World(), []
    world.create_pod()
    for ended in (False, True):
        if ended:
            world.remove_pod()
            world.collect_garbage()
        while found := next_action(world.see(), DEFAULTS):
            taken.append(type(found).__name__)
            world.do(found, "once")

    assert taken == [
        "CreatePodVif", "CreatePort", "CreatePort", "WriteStatus", "DeletePort", "DeletePort", "RemoveFinalizer",
    ]  # fmt: skip
    assert (world.podvif, world.ports) == (None, {})
