"""From a CNI configuration to the wanted port."""

from typing import Any

import msgspec
import pytest

from podvif import errors, names
from podvif.core import translate
from podvif.errors import Refused
from podvif.model import Address, Addresses, Listener, Pod, PortKind, SocketDir, SocketPath, Vif, Volume
from podvif.podvifs import Interface, InterfaceState
from tests.fakes.values import ATTACHMENT, BOTH, config, kernel_vif, port_of, request, vif

PODS, OVS = SocketDir("/pods"), SocketDir("/ovs")


def translated(network: dict[str, Any], **variables: Any) -> Vif:
    found = request("ADD", network, **variables)
    return translate.vif_from_network(found, translate.parse_network(found.config), PODS, OVS)


def refusal(network: dict[str, Any], **variables: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        translated(network, **variables)
    assert caught.value.code == errors.INVALID_CONFIG
    return caught.value


def each(key: str, values: list[Any]) -> list[tuple[str, Any]]:
    return [(key, value) for value in values]


def test_defaults() -> None:
    """A configuration with nothing but what CNI wants is a port of br-int in server mode, 1500 bytes, one queue pair."""
    assert translated(config(bridge=None)) == vif(Listener.APPLICATION, bridge="br-int", mtu=1500, queues=1, vlan=None)


def test_everything_said() -> None:
    """What a configuration says is what the port shall be."""
    network = config(
        vhostuserMode="client", bridge="br-x", mtu=9000, queues=4, vlan=100, mac="02:00:00:00:00:0A", daemonTimeout=2.5
    )

    assert translated(network) == vif(
        Listener.OVS, bridge="br-x", mtu=9000, queues=4, vlan=100, mac="02:00:00:00:00:0a"
    )


def test_unknown_keys() -> None:
    """Keys that podvif does not know are ignored, also inside of those it knows."""
    network = config(
        type="podvif-cni", isGateway=7, capabilities={"mac": True}, ipam={"type": "x", "ranges": []}, args={"other": []},
        runtimeConfig={"portMappings": [1]}, dns={}, prevResult={},
    )  # fmt: skip

    assert translated(network) == vif()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *each("mtu", [40, 67, translate.MTU_MAX + 1, 100_000, -1, "1500", True, 1500.5, [], None]),
        *each("queues", [0, translate.QUEUES_MAX + 1, -1, "1", True, False, None]),
        *each("vlan", [0, 4095, -1, "7", True]),
        *each("vhostuserMode", ["", "Server", "listener", 7, True, None]),
        *each("bridge", [7, True, None, [], "", ".", "..", "a/b", "a b", "x" * 16, "a\nb", "tbr-1"]),
        *each("mac", ["", 7, True, "02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:0g"]),
        *each("mac", ["02:00:00:00:00:01\n", "02:00:00:00:00:01:02"]),
        ("ipam", "host-local"),
        ("ipam", {"type": 7}),
        ("daemonSocket", 7),
        ("daemonTimeout", 0),
        ("daemonTimeout", "30"),
        ("runtimeConfig", {"mac": 7}),
        ("runtimeConfig", {"ips": "10.0.0.1"}),
        ("args", []),
        ("args", {"cni": {"mac": "x"}}),
        ("args", {"cni": {"ips": [7]}}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_value(key: str, value: Any) -> None:
    """A key of the wrong type, or with a value that cannot work, is refused with its name."""
    error = refusal(config() | {key: value})

    assert key.lower() in error.message.lower()
    assert error.remedy


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *each("mtu", [68, 9000, translate.MTU_MAX]),
        *each("queues", [1, translate.QUEUES_MAX]),
        *each("vlan", [1, 4094]),
        ("bridge", "x" * 15),
    ],
)
def test_ends_of_ranges(key: str, value: Any) -> None:
    """The first and the last value of each range are taken."""
    assert getattr(translated(config() | {key: value}), key) == value


def test_kernel_port() -> None:
    """`portType` veth is a pair with the configuration's MAC, MTU, bridge and VLAN; vhostuser is what it is without."""
    assert translated(config(portType="veth", vlan=100, mtu=9000)) == kernel_vif(vlan=100, mtu=9000)
    assert translated(config(portType="vhostuser")) == vif()
    assert 'portType is "vhostuser"' in refusal(config(portType="tap")).remedy


@pytest.mark.parametrize(("key", "value"), [("vhostuserMode", "server"), ("vhostuserMode", "client"), ("queues", 1)])
def test_keys_of_a_socket(key: str, value: Any) -> None:
    """What means nothing for a veth is refused by name, also where it says what would be the default."""
    assert f"has {key}, which means nothing" in refusal(config(**{"portType": "veth", key: value})).message


def test_mode_of_port() -> None:
    """People are shown the application's mode, or which kind of kernel port it is."""
    shown = [translate.mode_of_port(one) for one in (vif(), vif(Listener.OVS), kernel_vif())]

    assert [*shown, translate.mode_of_port(kernel_vif(PortKind.HYBRID))] == ["server", "client", "veth", "hybrid"]


def test_mode_is_explained() -> None:
    """A wrong mode is answered with what both modes mean."""
    assert "(the application listens)" in refusal(config(vhostuserMode="both")).remedy


@pytest.mark.parametrize("listener", BOTH)
def test_mode_and_back(listener: Listener) -> None:
    """The far end's word for a listener, read again, is that listener."""
    assert translated(config(vhostuserMode=translate.mode_of(listener))).listener is listener


MACS = [f"02:00:00:00:00:0{digit}" for digit in "1234"]


@pytest.mark.parametrize("last", range(5))
def test_mac_priority(last: int) -> None:
    """The MAC nearest to the pod wins: runtimeConfig, args.cni, CNI_ARGS, the configuration, else a derived one."""
    given = [mac if index >= 4 - last else "" for index, mac in enumerate(MACS)]
    runtime, args, variable, plain = given
    network = config(
        runtimeConfig={"mac": runtime} if runtime else None,
        args={"cni": {"mac": args}} if args else None,
        mac=plain or None,
    )

    found = translated(network, CNI_ARGS=f"MAC={variable}" if variable else "")

    assert found.mac == next((mac for mac in given if mac), names.mac(ATTACHMENT))


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"])
def test_no_unicast_mac(mac: str) -> None:
    """A group address and the zero address are refused, wherever they come from."""
    assert mac in refusal(config(mac=mac)).message
    assert mac in refusal(config(), CNI_ARGS=f"MAC={mac}").message


@pytest.mark.parametrize("mac", ["x", "02:00:00:00:00", "0200:00:00:00:00:01", "02:00:00:00:00:0g"])
def test_bad_mac_in_args(mac: str) -> None:
    """A MAC in CNI_ARGS that is none is refused with the variable's name."""
    assert f"CNI_ARGS MAC={mac} is no MAC address" in refusal(config(), CNI_ARGS=f"MAC={mac}").message


@pytest.mark.parametrize(
    ("network", "args", "asked"),
    [
        ({}, "", ()),
        ({}, "IP=10.0.0.9", ("10.0.0.9",)),
        ({"args": {"cni": {"ips": ["10.0.0.8"]}}}, "IP=10.0.0.9", ("10.0.0.8",)),
        ({"runtimeConfig": {"ips": ["10.0.0.7/24"]}, "args": {"cni": {"ips": ["::8"]}}}, "", ("10.0.0.7/24", "::8")),
    ],
)
def test_requested_addresses(network: dict[str, Any], args: str, asked: tuple[str, ...]) -> None:
    """Addresses are asked for by runtimeConfig, args.cni and CNI_ARGS."""
    found = request("ADD", config(**network), CNI_ARGS=args)

    assert translate.requested_ips(found, translate.parse_network(found.config)) == asked


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((), None),
        (("10.1.0.5",), None),
        (("10.1.0.5/16", "fd00:0::5"), None),
        (("10.1.0.6",), "10.1.0.6 was asked for and IPAM did not give it"),
        (("10.1.0.5", "10.1.0.6/24"), "10.1.0.6/24 was asked for and IPAM did not give it"),
        (("ten",), "'ten' is no IP address"),
    ],
)
def test_addresses_given(asked: tuple[str, ...], words: str | None) -> None:
    """An address that was asked for and is not given is named; the form it is written in does not count."""
    given = Addresses(ips=(Address("10.1.0.5/24"), Address("fd00::5/64")))

    assert translate.why_not_addresses(asked, given) == words


def test_ipam_or_not() -> None:
    """A network has IPAM when its ipam object names a plugin."""
    assert translate.has_ipam(translate.parse_network(config(ipam={"type": "host-local"})))
    assert not translate.has_ipam(translate.parse_network(config(ipam={})))
    assert not translate.has_ipam(translate.parse_network(config()))


def test_names_alone() -> None:
    """What is removed without journal and configuration has the names, paths and port id that ADD gave it."""
    found, made = translate.vif_by_name(ATTACHMENT, PODS, OVS), translated(config(mtu=9000, vhostuserMode="client"))

    for field in ("port_id", "name", "socket", "ovs_socket"):
        assert getattr(found, field) == getattr(made, field)


def test_names_of_a_kernel_port_alone() -> None:
    """A DEL that knows the configuration alone finds a kernel port by its name and port id."""
    network = config(portType="veth")
    found = translate.vif_by_name(ATTACHMENT, PODS, OVS, translate.kind_by_name(network))

    assert (found.name, found.port_id, found.kind) == (kernel_vif().name, kernel_vif().port_id, PortKind.VETH)
    assert translate.kind_by_name({"portType": 7}) is translate.kind_by_name({}) is PortKind.VHOST_USER


# -- what Neutron says -------------------------------------------------------------------------------------------------

PORT = "60f9ed24-422f-4910-9aa2-602b1dfaacde"
# vif_details as Neutron 29 gave them.
ML2_OVS = {
    "port_filter": False, "ovs_hybrid_plug": False, "vhostuser_mode": "server", "vhostuser_ovs_plug": True,
    "vhostuser_socket": "/run/vhu/vhu60f9ed24-42", "datapath_type": "netdev", "bridge_name": "br-int",
    "bound_drivers": {"0": "openvswitch"},
}  # fmt: skip
ZED = {key: value for key, value in ML2_OVS.items() if key != "bound_drivers"}
ML2_OVS_CLIENT = ML2_OVS | {"vhostuser_mode": "client"}
ML2_OVN = {
    "port_filter": False, "vhostuser_mode": "server", "vhostuser_ovs_plug": True, "connectivity": "l2",
    "vhostuser_socket": "/run/ovs/vhu/vhu60f9ed24-42", "bridge_name": "br-int", "datapath_type": "netdev",
    "bound_drivers": {"0": "ovn"},
}  # fmt: skip
KERNEL = {"port_filter": True, "ovs_hybrid_plug": False, "datapath_type": "system", "bridge_name": "br-int"}
HYBRID = KERNEL | {"ovs_hybrid_plug": True}


def interface(vif_type: str = "vhostuser", details: dict[str, Any] | None = None, **changes: Any) -> Interface:
    facts: dict[str, Any] = {"port_id": PORT, "mac": "fa:16:3e:81:5e:52", "mtu": 1500, "name": "eth0"}
    details = ML2_OVS if details is None else details
    return Interface(state=InterfaceState.BOUND, vif_type=vif_type, vif_details=details, **facts | changes)


def of_neutron(listener: Listener, **changes: Any) -> Vif:
    name = "vhu60f9ed24-42"
    facts: dict[str, Any] = {"mac": "fa:16:3e:81:5e:52", "mtu": 1500, "bridge": "br-int"}
    where: dict[str, Any] = {"socket": SocketPath(f"/pods/{name}"), "ovs_socket": SocketPath(f"/ovs/{name}")}
    return Vif(port_id=PORT, name=name, listener=listener, neutron=True, **{"isolated": True} | where | facts | changes)


@pytest.mark.parametrize(
    ("details", "facts", "wanted"),
    [
        (ML2_OVS, {}, of_neutron(Listener.APPLICATION)),
        (ML2_OVS_CLIENT, {}, of_neutron(Listener.OVS)),
        (ZED, {}, of_neutron(Listener.APPLICATION)),
        (ML2_OVN, {"mtu": 1442}, of_neutron(Listener.APPLICATION, mtu=1442, isolated=False)),
        (ML2_OVN, {"mtu": 9000}, of_neutron(Listener.APPLICATION, mtu=9000, isolated=False)),
        (ML2_OVS | {"bridge_name": "br-dpdk"}, {}, of_neutron(Listener.APPLICATION, bridge="br-dpdk")),
        (ML2_OVS, {"mac": "FA:16:3E:81:5E:52"}, of_neutron(Listener.APPLICATION)),
        ({"vhostuser_mode": "server", "bridge_name": "br-int"}, {}, of_neutron(Listener.APPLICATION, isolated=False)),
        (ML2_OVS, {"ips": (Address("10.10.1.63/24"),)}, of_neutron(Listener.APPLICATION)),
        (ML2_OVS, {"ips": (Address("10.1.0.3/24", "10.1.0.1"), Address("fd00::3/64"))}, of_neutron(Listener.APPLICATION)),
    ],
    ids=["ovs-server", "ovs-client", "ovs-zed", "ovn", "jumbo", "bridge", "case", "least", "no gateway", "two subnets"],
)  # fmt: skip
def test_port_of_neutron(details: dict[str, Any], facts: dict[str, Any], wanted: Vif) -> None:
    """Neutron's port is the VIF of that mode and bridge, its paths are the node's, and the agent's is isolated at first."""
    assert translate.neutron_to_osvif_vif_ovs(interface(details=details, **facts), PODS, OVS) == wanted


def test_queues_of_neutron() -> None:
    """Neutron knows of no queues: the node may tell the application of more than one."""
    assert translate.neutron_to_osvif_vif_ovs(interface(), PODS, OVS, queues=4).queues == 4


UNPLUGGABLE = [
    ("binding_failed", {}, "binding_failed: no agent with datapath netdev on node"),
    ("unbound", {}, "unbound: Neutron has bound the port to no host"),
    ("", {}, "the credentials may not read binding:vif_type"),
    ("hw_veb", {"vlan": "1"}, "hw_veb: podvif plugs ports of vif_type vhostuser and ovs"),
    ("tap", {}, "tap: podvif plugs"),
    ("vhostuser", {}, "vhostuser: vif_details has vhostuser_mode None; podvif knows client and server"),
    ("vhostuser", ML2_OVS | {"vhostuser_mode": "Server"}, "vhostuser_mode 'Server'"),
    ("vhostuser", ML2_OVS | {"vhostuser_mode": ""}, "vhostuser_mode ''"),
    ("vhostuser", ML2_OVS | {"vhostuser_mode": ["server"]}, "vhostuser_mode ['server']"),
    ("vhostuser", ML2_OVS | {"datapath_type": "system"}, "datapath_type 'system'; vhost-user ports need netdev"),
    ("vhostuser", {"vhostuser_mode": "server"}, "vhostuser: vif_details has bridge_name None"),
    ("vhostuser", ML2_OVS | {"bridge_name": "a/b"}, "bridge_name 'a/b'"),
    ("vhostuser", ML2_OVS | {"bridge_name": 7}, "bridge_name 7"),
    ("ovs", {}, "ovs: vif_details has datapath_type None"),
    ("ovs", {"bridge_name": "br-int"}, "ovs: vif_details has datapath_type None"),
    ("ovs", {"datapath_type": "netdev"}, "ovs: vif_details has bridge_name None"),
]


@pytest.mark.parametrize(("vif_type", "details", "words"), UNPLUGGABLE)
def test_unpluggable(vif_type: str, details: dict[str, Any], words: str) -> None:
    """A binding that cannot be plugged is refused in one line with its vif_type, by whichever function sees it."""
    port = interface(vif_type, details)
    with pytest.raises(Refused) as of_vif:
        translate.neutron_to_osvif_vif_ovs(port, PODS, OVS)
    with pytest.raises(Refused) as of_kind:
        translate.kind_of(port, [PODS], PODS)

    assert words in of_vif.value.message
    assert of_kind.value.message == of_vif.value.message
    assert PORT in of_vif.value.message
    assert "\n" not in of_vif.value.message


def test_binding_failed_names_the_node() -> None:
    """The sentence about a failed binding says on which node an agent is missing."""
    words = translate.why_not_pluggable("binding_failed", {}, "n1")

    assert words == "binding_failed: no agent with datapath netdev on node n1"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"port_id": ""}, "'' is no UUID of a port"),
        ({"port_id": "../../etc/x-xxxxxxx"}, "is no UUID of a port"),
        ({"mac": ""}, "MAC '' is no MAC address"),
        ({"mac": "01:00:5e:00:00:01"}, "is no unicast address"),
        ({"mtu": 0}, "MTU is 0, DPDK takes 68 to 9702"),
        ({"mtu": 9703}, "MTU is 9703"),
        ({"vif_type": "ovs", "details": KERNEL}, "is no vhost-user port but ovs"),
    ],
)
def test_facts_that_cannot_be(facts: dict[str, Any], words: str) -> None:
    """A fact without which no port can stand is refused with interface and port."""
    with pytest.raises(Refused, match="interface eth0, Neutron port") as caught:
        translate.neutron_to_osvif_vif_ovs(interface(**facts), PODS, OVS)

    assert words in caught.value.message


@pytest.mark.parametrize(
    ("vif_type", "details", "host_paths", "kind"),
    [
        ("vhostuser", ML2_OVS, ["/var/run/vhostuser"], PortKind.VHOST_USER),
        ("vhostuser", ML2_OVS, ["/data", "/var/run/vhostuser/"], PortKind.VHOST_USER),
        ("vhostuser", ML2_OVN, ["/run/vhostuser"], PortKind.VHOST_USER),
        ("vhostuser", ML2_OVN, [], PortKind.VETH),
        ("vhostuser", ML2_OVN, ["/var/run", "/var/run/vhostuser-2", "/", "/var/run/vhostuser/x"], PortKind.VETH),
        ("ovs", KERNEL, [], PortKind.VETH),
        ("ovs", KERNEL | {"datapath_type": "netdev"}, ["/var/run/vhostuser"], PortKind.VETH),
        ("ovs", HYBRID, ["/var/run/vhostuser"], PortKind.HYBRID),
    ],
)
def test_kind(vif_type: str, details: dict[str, Any], host_paths: list[str], kind: PortKind) -> None:
    """A pod that mounts the node's directory gets the socket; one that does not, and vif_type ovs, get a pair."""
    assert translate.kind_of(interface(vif_type, details), host_paths, SocketDir("/var/run/vhostuser")) is kind


@pytest.mark.parametrize(
    ("vif_type", "details", "kind", "name"),
    [
        ("vhostuser", ML2_OVN, PortKind.VETH, "tap60f9ed24-42"),
        ("vhostuser", ML2_OVS, PortKind.VETH, "tap60f9ed24-42"),
        ("ovs", KERNEL | {"datapath_type": "netdev"}, PortKind.VETH, "tap60f9ed24-42"),
        ("ovs", HYBRID | {"datapath_type": "netdev"}, PortKind.HYBRID, "qvo60f9ed24-42"),
    ],
)
def test_kernel_port_of_neutron(vif_type: str, details: dict[str, Any], kind: PortKind, name: str) -> None:
    """Neutron's port as a pair: os-vif's names, Neutron's MAC, MTU and bridge, no socket."""
    found = translate.neutron_to_kernel_vif(interface(vif_type, details, mac="FA:16:3E:81:5E:52", mtu=1442), kind)

    assert (found.kind, found.name, found.port_id, found.socket, found.ovs_socket) == (kind, name, PORT, "", "")
    assert (found.mac, found.mtu, found.bridge, found.vlan) == ("fa:16:3e:81:5e:52", 1442, "br-int", None)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"details": KERNEL}, "datapath_type 'system'; podvif serves netdev"),
        ({"details": HYBRID | {"datapath_type": "netdev"}, "port_id": ""}, "is no UUID of a port"),
        ({"details": HYBRID | {"datapath_type": "netdev"}, "mac": ""}, "is no MAC address"),
        ({"details": HYBRID | {"datapath_type": "netdev"}, "mtu": 0}, "MTU is 0"),
        ({"details": {}}, "datapath_type None"),
    ],
)
def test_kernel_port_that_cannot_be(facts: dict[str, Any], words: str) -> None:
    """A fact without which no pair can stand is refused with interface and port, and so is the kernel's datapath."""
    with pytest.raises(Refused, match="interface eth0, Neutron port") as caught:
        translate.neutron_to_kernel_vif(interface("ovs", **facts), PortKind.VETH)

    assert words in caught.value.message


# -- what OVSDB says ---------------------------------------------------------------------------------------------------


def test_port_of_a_row() -> None:
    """What is found in OVSDB alone, by our marks, is removed by the names and the id of its row."""
    row = port_of(of_neutron(Listener.OVS))
    marked = msgspec.structs.replace(row, external_ids=row.external_ids | names.marks(ATTACHMENT, "ns/p"))

    found = translate.vif_of_port(marked, PODS, OVS)

    assert found is not None
    for field in ("port_id", "name", "mac", "bridge", "socket", "ovs_socket"):
        assert getattr(found, field) == getattr(of_neutron(Listener.OVS), field)
    assert (translate.owner_of(marked), translate.owner_of(row)) == (ATTACHMENT, None)


@pytest.mark.parametrize("mac", [{}, {"attached-mac": "no mac"}])
def test_port_without_a_mac(mac: dict[str, str]) -> None:
    """A port that says no MAC is removed like any other: os-vif gets one of the form that it wants."""
    port = port_of(of_neutron(Listener.OVS))
    ids = {key: value for key, value in port.external_ids.items() if key != "attached-mac"}

    found = translate.vif_of_port(msgspec.structs.replace(port, external_ids=ids | mac), PODS, OVS)

    assert found
    assert translate.why_not_mac(found.mac) == "is no unicast address"


@pytest.mark.parametrize(("name", "kind"), [("tap60f9ed24-42", PortKind.VETH), ("qvo60f9ed24-42", PortKind.HYBRID)])
def test_kernel_port_of_a_row(name: str, kind: PortKind) -> None:
    """A row's name says what kind of port it is."""
    found = translate.vif_of_port(port_of(of_neutron(Listener.OVS), name=name), PODS, OVS)

    assert found is not None
    assert (found.kind, found.name, found.port_id, found.socket) == (kind, name, PORT, "")


@pytest.mark.parametrize("changes", [{"external_ids": {}}, {"name": "tap11111111-42"}, {"name": "vhu11111111-42"}])
def test_row_of_another_kind(changes: dict[str, Any]) -> None:
    """A row whose name does not follow from its id is none that podvif has made."""
    assert translate.vif_of_port(port_of(of_neutron(Listener.OVS), **changes), PODS, OVS) is None


UID = "0d5bd2f5-6d0a-4a57-9d7e-2b1f6f3c7a41"
OWN = SocketDir(f"/run/podvif/pods/{UID}")


def volume(**changes: Any) -> Volume:
    """A volume of a pod that has mounted it at /sockets."""
    values: dict[str, Any] = {
        "id": "v",
        "target": "/t",
        "pod": Pod("ns", "p", UID),
        "mounted_at": SocketDir("/sockets"),
    }
    return Volume(**values | changes)


@pytest.mark.parametrize(
    ("listener", "read_only"), [(Listener.OVS, True), (Listener.OVS, False), (Listener.APPLICATION, False)]
)
def test_in_own_directory(listener: Listener, read_only: bool) -> None:  # noqa: FBT001  pytest names it
    """With a volume the socket lies in the pod's own directory, and all else is as without."""
    shared = vif(listener)

    found = translate.in_own_directory(shared, OWN, volume(read_only=read_only))

    assert (found.socket, found.directory, found.mounted_at) == (f"{OWN}/{shared.name}", OWN, "/sockets")
    assert msgspec.structs.replace(found, socket=shared.socket, mounted_at=None) == shared


def test_read_only_volume_of_a_listening_application() -> None:
    """An application that has to make its socket in a directory that it may not write to is told so before it tries."""
    with pytest.raises(Refused, match="pod ns/p has mounted its directory read-only") as caught:
        translate.in_own_directory(vif(Listener.APPLICATION), OWN, volume(read_only=True))

    assert "readOnly" in caught.value.remedy


def test_own_directory_of_what_goes() -> None:
    """What is only to go lies in the pod's directory whatever the volume was like."""
    found = translate.in_own_directory(vif(Listener.APPLICATION), OWN)

    assert (found.directory, found.mounted_at) == (OWN, OWN)


def test_kernel_port_in_no_directory() -> None:
    """A kernel port is the same with a volume, read-only or not."""
    assert translate.in_own_directory(kernel_vif(), OWN, volume(read_only=True)) == kernel_vif()


def test_kind_with_a_volume() -> None:
    """A pod that has a volume of ours has a use for a socket, without any hostPath; vif_type ovs is a pair all the same."""
    mount_point = SocketDir("/var/run/vhostuser")

    assert (
        translate.kind_of(interface("vhostuser", ML2_OVN), [], mount_point, own_directory=True) is PortKind.VHOST_USER
    )
    assert translate.kind_of(interface("ovs", KERNEL), [], mount_point, own_directory=True) is PortKind.VETH


@pytest.mark.parametrize("path", ["/a", "/var/run/vhostuser", "/a/", "/a.b/c-d_e", "/" + "x" * 91])
def test_mount_paths(path: str) -> None:
    """A pod may mount its directory anywhere that a DPDK argument and a socket's address can name."""
    assert translate.why_not_mounted_at(path) is None


@pytest.mark.parametrize(
    "path", ["", "/", "a", "//a", "/a/../b", "/./a", "/a b", "/a,b", "/a'b", "/a\n", "/" + "x" * 92]
)
def test_no_mount_paths(path: str) -> None:
    """Every other path is none, with the reason."""
    assert translate.why_not_mounted_at(path)
