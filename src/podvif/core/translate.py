"""From what the far end says to the port that shall stand here.

Law: this is the one place where "client" and "server", the words of Neutron, os-vif and the specification, become
`Listener`, and back.  A configuration is parsed here once; what podvif does not know is ignored, what has the wrong type or
a value that cannot work is refused with the key's name, and what was asked for is honoured or refused, never forgotten.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol

import msgspec

from podvif import names
from podvif.core.cni import Request, why_not_ifname
from podvif.errors import Refused
from podvif.model import Addresses, Attachment, Listener, PortKind, SeenPort, SocketDir, SocketPath, Vif, Volume
from podvif.podvifs import Interface

MTU_MIN = 68
"""Bytes; the least that IPv4 allows and DPDK takes (RTE_ETHER_MIN_MTU)."""

MTU_MAX = 9702
"""Bytes; OVS 3.1 with DPDK 22.11 takes 9702 and logs "unsupported MTU" for 9703: a frame of 9728 less header, checksum
and two VLAN tags (lib/netdev-dpdk.c)."""

QUEUES_MAX = 8
"""Queue pairs; DPDK 22.11's virtio_user takes 8 and fails its probe at 9 ("exceeds the limit 8")."""

_TRUNK_BRIDGE = "tbr-"  # vif_plug_ovs/constants.py

_MODES = {"client": Listener.OVS, "server": Listener.APPLICATION}
_OF_A_SOCKET = frozenset({"vhostuserMode", "queues"})
_MAC_OCTETS = "[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}"
_MAC_PATTERN = f"^{_MAC_OCTETS}$"

_Mac = Annotated[str, msgspec.Meta(pattern=_MAC_PATTERN)]


def _described(description: str, **limits: Any) -> msgspec.Meta:
    """A key's meaning, for the generated reference, and its limits."""
    return msgspec.Meta(description=description, **limits)


class RuntimeConfig(msgspec.Struct, frozen=True):
    """What the runtime fills in for the capabilities `mac` and `ips` (CNI CONVENTIONS.md)."""

    mac: _Mac | None = None
    ips: list[str] = []


class CniArgs(msgspec.Struct, frozen=True):
    """`args.cni` of CNI CONVENTIONS.md."""

    mac: _Mac | None = None
    ips: list[str] = []


class Args(msgspec.Struct, frozen=True):
    """`args`."""

    cni: CniArgs = CniArgs()


class Ipam(msgspec.Struct, frozen=True):
    """`ipam`: all but the type is the plugin's business."""

    type: str | None = None


_DaemonSocket = Annotated[
    str | None, _described("The node daemon's socket, for the plugin; without it /var/run/podvif/cni.sock.")
]
_DaemonTimeout = Annotated[
    Annotated[float, msgspec.Meta(gt=0)] | None,
    _described(
        "Seconds that the plugin waits for the daemon; without it 200 for ADD, 2 for STATUS, 60 for the others."
    ),
]


class Network(msgspec.Struct, frozen=True, rename="camel"):
    """The keys of the standalone configuration; docs/reference/cni-configuration.md is generated from it."""

    bridge: Annotated[
        str,
        _described(
            "OVS bridge of the port. A missing one is created with datapath netdev; an existing one with another datapath"
            " is refused. podvif never changes or deletes a bridge."
        ),
    ] = "br-int"
    port_type: Annotated[
        Literal["vhostuser", "veth"],
        _described(
            "What the pod gets: `vhostuser`, a socket for a DPDK application, or `veth`, a network interface of the kernel"
            " in the same bridge, with its addresses and routes. With `veth`, `vhostuserMode` and `queues` mean nothing and"
            " are refused."
        ),
    ] = "vhostuser"
    vhostuser_mode: Annotated[
        Literal["server", "client"],
        _described(
            "Mode of the application: `server` (it listens, Open vSwitch connects and reconnects) or `client` (Open vSwitch"
            " listens, podvif moves its socket to the pod)."
        ),
    ] = "server"
    mtu: Annotated[
        int,
        _described(
            "Bytes of layer 3: the Interface's mtu_request, or the MTU of both ends of a veth.", ge=MTU_MIN, le=MTU_MAX
        ),
    ] = 1500
    queues: Annotated[
        int,
        _described("Queue pairs; told to the application, which asks Open vSwitch for them.", ge=1, le=QUEUES_MAX),
    ] = 1
    vlan: (
        Annotated[int, _described("Access VLAN: the Port's tag. Without it the port is untagged.", ge=1, le=4094)]
        | None
    ) = None
    mac: (
        Annotated[
            str,
            _described(
                "MAC of the application's end (of the pod's end of a veth), unicast. `CNI_ARGS` MAC, `args.cni.mac` and `runtimeConfig.mac` win over it,"
                " the last most. Without any: locally administered, derived from container id and interface name, so that"
                " it is the same for each repeat.",
                pattern=_MAC_PATTERN,
            ),
        ]
        | None
    ) = None
    ipam: Annotated[
        Ipam,
        _described(
            "Configuration of any CNI IPAM plugin in CNI_PATH. Without it the attachment has no address. Addresses asked for"
            " at run time (`runtimeConfig.ips`, `args.cni.ips`, `CNI_ARGS` IP) have to be among what it gives."
        ),
    ] = Ipam()
    daemon_socket: _DaemonSocket = None
    daemon_timeout: _DaemonTimeout = None
    runtime_config: Annotated[
        RuntimeConfig,
        _described("Filled in by the runtime for the capabilities `mac` and `ips`: `mac`, `ips`."),
    ] = RuntimeConfig()
    args: Annotated[Args, _described("`args.cni.mac` and `args.cni.ips`, as CNI's conventions have them.")] = Args()


class ClusterNetwork(msgspec.Struct, frozen=True, rename="camel"):
    """The keys of a configuration for `source = cluster`; docs/reference/cni-configuration.md is generated from it."""

    subnet_id: Annotated[
        str,
        _described(
            "UUID of the Neutron subnet of an additional interface that Multus delegates. Without it and `networkId` the"
            " network is the cluster network (or, with `bridge`, a standalone one)."
        ),
    ] = ""
    network_id: Annotated[
        str, _described("UUID of the Neutron network of such an interface; Neutron chooses the subnet.")
    ] = ""
    queues: Annotated[
        int,
        _described("Queue pairs; told to the application, which asks Open vSwitch for them.", ge=1, le=QUEUES_MAX),
    ] = 1
    mac: (
        Annotated[
            str,
            _described(
                "MAC that the Neutron port has to have, as `runtimeConfig.mac`, `args.cni.mac` and `CNI_ARGS` MAC: with"
                " another ADD is refused. It is asked for in the pod's networks annotation.",
                pattern=_MAC_PATTERN,
            ),
        ]
        | None
    ) = None
    daemon_socket: _DaemonSocket = None
    daemon_timeout: _DaemonTimeout = None
    runtime_config: Annotated[
        RuntimeConfig,
        _described("Filled in by the runtime: `mac` and `ips` have to be what the Neutron port has."),
    ] = RuntimeConfig()
    args: Annotated[Args, _described("Likewise `args.cni.mac` and `args.cni.ips`.")] = Args()


class Asking(Protocol):
    """Where a configuration has what somebody asked for at run time."""

    @property
    def runtime_config(self) -> RuntimeConfig:
        """By capabilities."""

    @property
    def args(self) -> Args:
        """By `args.cni`."""

    @property
    def mac(self) -> str | None:
        """By the configuration itself."""


def mode_of_port(vif: Vif) -> str:
    """What people are shown as a port's mode: the application's, or for a kernel port what it is."""
    return mode_of(vif.listener) if vif.kind is PortKind.VHOST_USER else vif.kind.value


def mode_of(listener: Listener) -> str:
    """The application's mode: the specification's word, for the pod's files and for os-vif."""
    return "client" if listener is Listener.OVS else "server"


def parse_network(config: Mapping[str, Any]) -> Network:
    """Check the keys of a standalone configuration.

    Raises:
        Refused: a key has the wrong type or a value that cannot work; the message names it.
    """
    try:
        network = msgspec.convert(config, Network)
    except msgspec.ValidationError as cause:
        raise Refused(f"the network configuration is wrong: {cause}", _remedy(str(cause))) from cause
    idle = sorted(_OF_A_SOCKET & config.keys()) if network.port_type == "veth" else []
    if idle:
        raise Refused(
            f'the network configuration has {idle[0]}, which means nothing with "portType": "veth"',
            'take it out, or make portType "vhostuser"',
        )
    if reason := why_not_ifname(network.bridge):
        raise Refused(f"bridge {network.bridge!r} is not a bridge name: {reason}", "name an OVS bridge")
    if network.bridge.startswith(_TRUNK_BRIDGE):
        raise Refused(
            f"bridge {network.bridge} is named like Neutron's bridge of a trunk, which os-vif deletes with its port",
            f"name a bridge that does not begin with {_TRUNK_BRIDGE}",
        )
    return network


def parse_cluster_network(config: Mapping[str, Any]) -> ClusterNetwork:
    """Check the keys of a configuration for `source = cluster`.

    Raises:
        Refused: as `parse_network` does.
    """
    try:
        return msgspec.convert(config, ClusterNetwork)
    except msgspec.ValidationError as cause:
        raise Refused(f"the network configuration is wrong: {cause}", _remedy(str(cause))) from cause


def _remedy(complaint: str) -> str:
    if "portType" in complaint:
        return 'portType is "vhostuser" (a socket) or "veth" (a network interface)'
    if "vhostuserMode" in complaint:
        return 'vhostuserMode is "server" (the application listens) or "client" (OVS listens)'
    return "docs/reference/cni-configuration.md has every key with its type and range"


def vif_from_network(request: Request, network: Network, mount_point: SocketDir, ovs_vhu_path: SocketDir) -> Vif:
    """The port that a standalone configuration asks for.

    A MAC asked for at run time wins over the configuration's, and without any the attachment has a derived one.

    Raises:
        Refused: the MAC is a group address or no address.
    """
    attachment = request.expect_attachment()
    mac = requested_mac(request, network) or names.mac(attachment)
    port = names.port_id(attachment)
    if network.port_type == "veth":
        return _kernel_vif(PortKind.VETH, port, mac=mac, mtu=network.mtu, bridge=network.bridge, vlan=network.vlan)
    name = names.vif_name(port)
    return Vif(
        port_id=port,
        name=name,
        mac=mac,
        mtu=network.mtu,
        bridge=network.bridge,
        listener=_MODES[network.vhostuser_mode],
        socket=names.socket_path(mount_point, name),
        ovs_socket=names.socket_path(ovs_vhu_path, name),
        queues=network.queues,
        vlan=network.vlan,
    )


def _kernel_vif(kind: PortKind, port: str, *, mac: str, mtu: int, bridge: str, vlan: int | None = None) -> Vif:
    name = names.linux_bridge_ends(port)[1] if kind is PortKind.HYBRID else names.host_device(port)
    nowhere = SocketPath("")
    return Vif(port, name, mac, mtu, bridge, Listener.APPLICATION, nowhere, nowhere, vlan=vlan, kind=kind)


def in_own_directory(vif: Vif, directory: SocketDir, volume: Volume | None = None) -> Vif:
    """The same port with its socket in the pod's own directory; a kernel port has none to be there.

    Args:
        vif: the port.
        directory: the pod's own directory on this node.
        volume: as which the pod has mounted it; None where the port is only to go.

    Raises:
        Refused: the application has to make the socket, and may not write there.
    """
    if vif.kind is not PortKind.VHOST_USER:
        return vif
    if volume and volume.read_only and vif.listener is Listener.APPLICATION:
        raise Refused(
            f"pod {volume.pod} has mounted its directory read-only, and in mode server its application has to make the socket"
            " there",
            "take readOnly out of the pod's volume, or use a network whose mode is client",
        )
    return msgspec.structs.replace(
        vif,
        socket=names.socket_path(directory, vif.name),
        mounted_at=volume.mounted_at if volume else directory,
    )


def why_not_mounted_at(path: str) -> str | None:
    """Why the files cannot name this as the place where a pod has mounted its directory, or None when they can."""
    if not re.fullmatch(r"(/[A-Za-z0-9_.+@%=~-]+)+/?", path) or {".", ".."} & set(path.split("/")):
        return "is no absolute path of letters, digits and _ . + @ % = ~ -, which a DPDK argument can hold"
    size = len(names.socket_path(SocketDir(path), "v" * names.VIF_NAME_LENGTH))
    if size > names.SUN_PATH_MAX:
        return f"makes socket paths of {size} bytes, a Unix socket's has at most {names.SUN_PATH_MAX}"
    return None


def kind_by_name(config: Mapping[str, Any]) -> PortKind:
    """What a DEL is about whose attachment the journal does not know: all that is asked of its configuration."""
    return PortKind.VETH if config.get("portType") == "veth" else PortKind.VHOST_USER


def vif_by_name(
    attachment: Attachment,
    mount_point: SocketDir,
    ovs_vhu_path: SocketDir,
    kind: PortKind = PortKind.VHOST_USER,
) -> Vif:
    """What is known of an attachment without journal and configuration: its names.  Enough to remove it."""
    port = names.port_id(attachment)
    if kind is not PortKind.VHOST_USER:
        return _kernel_vif(kind, port, mac=names.mac(attachment), mtu=MTU_MIN, bridge="")
    name = names.vif_name(port)
    return Vif(
        port_id=port,
        name=name,
        mac=names.mac(attachment),
        mtu=MTU_MIN,
        bridge="",
        listener=Listener.APPLICATION,
        socket=names.socket_path(mount_point, name),
        ovs_socket=names.socket_path(ovs_vhu_path, name),
    )


def owner_of(port: SeenPort) -> Attachment | None:
    """Whose an OVS port is by our marks."""
    container_id = port.external_ids.get(names.MARK_CONTAINER)
    ifname = port.external_ids.get(names.MARK_IFNAME)
    return Attachment(container_id, ifname) if container_id and ifname else None


def vif_of_port(port: SeenPort, mount_point: SocketDir, ovs_vhu_path: SocketDir) -> Vif | None:
    """What is known of a port from OVSDB alone, enough to remove it; None when it has not the name that its id makes."""
    port_id = port.external_ids.get("iface-id", "")
    mac, bridge = port.external_ids.get("attached-mac", ""), port.bridge or ""
    if why_not_mac(mac):
        mac = "00:00:00:00:00:00"  # os-vif wants one of that form, and to remove a port nobody needs its own
    if not re.fullmatch(names.VIF_NAME, names.vif_name(port_id)):
        return None
    for kind in (PortKind.VETH, PortKind.HYBRID):
        if (vif := _kernel_vif(kind, port_id, mac=mac, mtu=MTU_MIN, bridge=bridge)).name == port.name:
            return vif
    if names.vif_name(port_id) != port.name:
        return None
    return Vif(
        port_id=port_id,
        name=port.name,
        mac=mac,
        mtu=MTU_MIN,
        bridge=bridge,
        listener=Listener.APPLICATION,
        socket=names.socket_path(mount_point, port.name),
        ovs_socket=names.socket_path(ovs_vhu_path, port.name),
    )


def requested_mac(request: Request, network: Asking) -> str | None:
    """The MAC that somebody asked for, lower case: the reference plugins' order, the nearest to the pod wins.

    Raises:
        Refused: CNI_ARGS' MAC is none, or the MAC is multicast or all zero.
    """
    from_args = request.args.get("MAC")
    mac = network.runtime_config.mac or network.args.cni.mac or from_args or network.mac
    if mac is None:
        return None
    if reason := why_not_mac(mac):
        subject = "CNI_ARGS MAC=" if mac == from_args else "MAC "
        raise Refused(f"{subject}{mac} {reason}", "write it as 02:00:00:00:00:01, the first octet even")
    return mac.lower()


def why_not_mac(mac: str) -> str | None:
    """Why an interface cannot have this MAC, or None when it can; upper or lower case, with colons."""
    if not re.fullmatch(_MAC_OCTETS, mac):
        return "is no MAC address"
    octets = [int(octet, 16) for octet in mac.split(":")]
    if octets[0] & 1 or not any(octets):
        return "is no unicast address"
    return None


def requested_ips(request: Request, network: Asking) -> tuple[str, ...]:
    """The addresses that somebody asked for (runtimeConfig.ips, args.cni.ips, CNI_ARGS IP); IPAM reads the same keys."""
    listed = [*network.runtime_config.ips, *network.args.cni.ips]
    from_args = request.args.get("IP", "").split(",")  # the static plugin takes a list there
    return tuple(listed or [address for address in from_args if address])


def why_not_addresses(requested: Iterable[str], given: Addresses, giver: str = "IPAM") -> str | None:
    """Which of the addresses asked for `giver` did not give, or None when all are there."""
    have = {ipaddress.ip_interface(ip.address).ip for ip in given.ips}
    for text in requested:
        try:
            want = ipaddress.ip_interface(text).ip
        except ValueError:
            return f"{text!r} is no IP address"
        if want not in have:
            return f"{text} was asked for and {giver} did not give it"
    return None


def has_ipam(network: Network) -> bool:
    """Whether the network has an IPAM plugin; an empty `ipam` object means none (CNI SPEC.md section 1)."""
    return bool(network.ipam.type)


# -- what Neutron says (source = cluster) ------------------------------------------------------------------------------

_UNBOUND = {
    "binding_failed": "no agent with datapath netdev on node {node}",
    "unbound": "Neutron has bound the port to no host; node {node} is wanted",
    "": "the credentials may not read binding:vif_type: they need the role service or admin",
}


def why_not_pluggable(vif_type: str, vif_details: Mapping[str, Any], node: str = "") -> str | None:
    """Why podvif cannot plug a port that Neutron has bound so, one line that begins with the vif_type; or None when it can.

    Args:
        vif_type: binding:vif_type.
        vif_details: binding:vif_details as it came.
        node: the pod's node, for the sentence.
    """
    if vif_type in _UNBOUND:
        return f"{vif_type or 'vif_type'}: {_UNBOUND[vif_type].format(node=node or 'of the pod')}"
    if vif_type not in {"vhostuser", "ovs"}:
        return f"{vif_type}: podvif plugs ports of vif_type vhostuser and ovs"
    bridge, datapath = vif_details.get("bridge_name"), vif_details.get("datapath_type")
    if vif_type == "vhostuser":
        mode = vif_details.get("vhostuser_mode")
        if not isinstance(mode, str) or mode not in _MODES:
            return f"vhostuser: vif_details has vhostuser_mode {mode!r}; podvif knows client and server"
        if datapath not in {"netdev", None}:  # os-vif's own default for VIFVHostUser is netdev
            return f"vhostuser: vif_details has datapath_type {datapath!r}; vhost-user ports need netdev"
    elif not isinstance(datapath, str) or not datapath:
        # os-vif would take it for "system", and change the bridge's datapath to that.
        return f"ovs: vif_details has datapath_type {datapath!r}; os-vif must be told which"
    if not isinstance(bridge, str) or why_not_ifname(bridge):
        return f"{vif_type}: vif_details has bridge_name {bridge!r}, which is no name of a bridge"
    return None


def kind_of(
    interface: Interface, host_paths: Iterable[str], mount_point: SocketDir, *, own_directory: bool = False
) -> PortKind:
    """What to make of a Neutron port on this node.

    A pod that mounts no directory of sockets has no use for one: its port is a pair in the same bridge.

    Args:
        interface: Neutron's facts.
        host_paths: what the pod mounts from the host.
        mount_point: the node's own [vhostuser] mount_point.
        own_directory: the pod has a volume of ours, and so a directory of its own.

    Raises:
        Refused: it cannot be plugged.
    """
    _refuse_unpluggable(interface)
    if interface.vif_type == "ovs":
        return PortKind.HYBRID if interface.vif_details.get("ovs_hybrid_plug") is True else PortKind.VETH
    mounted = own_directory or _plain(mount_point) in {_plain(path) for path in host_paths}
    return PortKind.VHOST_USER if mounted else PortKind.VETH


def _plain(path: str) -> tuple[str, ...]:
    # /var/run is a link to /run wherever there is systemd; Kubernetes refuses ".." in a hostPath.
    parts = tuple(part for part in path.split("/") if part not in {"", "."})
    return parts[1:] if parts[:2] == ("var", "run") else parts


def neutron_to_osvif_vif_ovs(
    interface: Interface, mount_point: SocketDir, ovs_vhu_path: SocketDir, queues: int = 1
) -> Vif:
    """The vhost-user port that Neutron's facts ask for; Kuryr's function of that name.

    The paths are this node's: Neutron's `vhostuser_socket` names one of the agent's, which pods do not see.  The VLAN is the
    agent's business.

    Args:
        interface: Neutron's facts, of vif_type vhostuser.
        mount_point: where the pod finds its socket.
        ovs_vhu_path: where OVS makes one.
        queues: queue pairs that the application is told of; Neutron knows nothing of them.

    Raises:
        Refused: it is no vhost-user port, or a fact is missing or cannot be.
    """
    _refuse_unusable(interface)
    details = interface.vif_details
    name = names.vif_name(interface.port_id)
    if interface.vif_type != "vhostuser":
        raise Refused(f"{_subject(interface)} is no vhost-user port but {interface.vif_type}", "plug it as a pair")
    return Vif(
        port_id=interface.port_id,
        name=name,
        mac=interface.mac.lower(),
        mtu=interface.mtu,
        bridge=details["bridge_name"],
        listener=_MODES[details["vhostuser_mode"]],
        socket=names.socket_path(mount_point, name),
        ovs_socket=names.socket_path(ovs_vhu_path, name),
        queues=queues,
        neutron=True,
        isolated=_is_wired_by_the_agent(details),
    )


def neutron_to_kernel_vif(interface: Interface, kind: PortKind) -> Vif:
    """The kernel port that stands for a Neutron port, whether Neutron has bound it as vif_type ovs or vhostuser.

    Neutron and OVN look at the Interface's iface-id alone, so a pair under a port of vif_type vhostuser is wired as well.

    Args:
        interface: Neutron's facts.
        kind: VETH or HYBRID, as `kind_of` says.

    Raises:
        Refused: a fact is missing or cannot be, or the datapath is not netdev.
    """
    _refuse_unusable(interface)
    details = interface.vif_details
    if details.get("datapath_type") not in {"netdev", None}:
        raise Refused(
            f"{_subject(interface)}: vif_details has datapath_type {details['datapath_type']!r}; podvif serves netdev",
            "put the pod on a node with OVS-DPDK",
        )
    vif = _kernel_vif(
        kind, interface.port_id, mac=interface.mac.lower(), mtu=interface.mtu, bridge=details["bridge_name"]
    )
    return msgspec.structs.replace(vif, neutron=True, isolated=_is_wired_by_the_agent(details))


def _is_wired_by_the_agent(details: Mapping[str, Any]) -> bool:
    """Whether neutron-openvswitch-agent gives the port its VLAN; ovn-controller would leave one that is given to it."""
    drivers = details.get("bound_drivers")  # Neutron 2023.1 and later
    if isinstance(drivers, Mapping) and drivers:
        return "openvswitch" in drivers.values()
    return "ovs_hybrid_plug" in details  # mech_openvswitch.py says it of every port, the driver of OVN of none


def _refuse_unusable(interface: Interface) -> None:
    """Refuse facts that no port can be made of."""
    _refuse_unpluggable(interface)
    if not re.fullmatch(names.VIF_NAME, names.vif_name(interface.port_id)):
        raise Refused(f"{_subject(interface)}: {interface.port_id!r} is no UUID of a port", _CONTROLLER)
    if reason := why_not_mac(interface.mac):
        raise Refused(f"{_subject(interface)}: MAC {interface.mac!r} {reason}", _CONTROLLER)
    if not MTU_MIN <= interface.mtu <= MTU_MAX:
        raise Refused(
            f"{_subject(interface)}: the network's MTU is {interface.mtu}, DPDK takes {MTU_MIN} to {MTU_MAX}",
            "set the mtu of the Neutron network",
        )


_CONTROLLER = "the controller writes it as Neutron says: look at the PodVif's status"


def _subject(interface: Interface) -> str:
    return f"interface {interface.name}, Neutron port {interface.port_id or '(none)'}"


def _refuse_unpluggable(interface: Interface) -> None:
    if reason := why_not_pluggable(interface.vif_type, interface.vif_details):
        raise Refused(
            f"{_subject(interface)}: {reason}",
            "`openstack port show` has the binding; the agent on the node decides it (datapath_type, vnic_type)",
        )
