"""From what the far end says to the port that shall stand here.

Law: this is the one place where "client" and "server", the words of Neutron, os-vif and the specification, become
`Listener`, and back.  A configuration is parsed here once; what podvif does not know is ignored, what has the wrong type or
a value that cannot work is refused with the key's name, and what was asked for is honoured or refused, never forgotten.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from podvif import names
from podvif.core.cni import Request, why_not_ifname
from podvif.errors import Refused
from podvif.model import Addresses, Attachment, Listener, SocketDir, Vif

MTU_MIN = 68
"""Bytes; the least that IPv4 allows and DPDK takes (RTE_ETHER_MIN_MTU)."""

MTU_MAX = 9702
"""Bytes; OVS 3.1 with DPDK 22.11 takes 9702 and logs "unsupported MTU" for 9703: a frame of 9728 less header, checksum
and two VLAN tags (lib/netdev-dpdk.c)."""

QUEUES_MAX = 8
"""Queue pairs; DPDK 22.11's virtio_user takes 8 and fails its probe at 9 ("exceeds the limit 8")."""

_TRUNK_BRIDGE = "tbr-"  # vif_plug_ovs/constants.py

_MODES = {"client": Listener.OVS, "server": Listener.APPLICATION}
_MAC_PATTERN = "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"

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


class Network(msgspec.Struct, frozen=True, rename="camel"):
    """The keys of the standalone configuration; docs/reference/cni-configuration.md is generated from it."""

    bridge: Annotated[
        str,
        _described(
            "OVS bridge of the port. A missing one is created with datapath netdev; an existing one with another datapath"
            " is refused. podvif never changes or deletes a bridge."
        ),
    ] = "br-int"
    vhostuser_mode: Annotated[
        Literal["server", "client"],
        _described(
            "Mode of the application: `server` (it listens, Open vSwitch connects and reconnects) or `client` (Open vSwitch"
            " listens, podvif moves its socket to the pod)."
        ),
    ] = "server"
    mtu: Annotated[int, _described("Bytes of layer 3: the Interface's mtu_request.", ge=MTU_MIN, le=MTU_MAX)] = 1500
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
                "MAC of the application's end, unicast. `CNI_ARGS` MAC, `args.cni.mac` and `runtimeConfig.mac` win over it,"
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
    daemon_socket: Annotated[
        str | None,
        _described("The node daemon's socket, for the plugin; without it /var/run/podvif/cni.sock."),
    ] = None
    daemon_timeout: Annotated[
        Annotated[float, msgspec.Meta(gt=0)] | None,
        _described(
            "Seconds that the plugin waits for the daemon; without it 200 for ADD, 2 for STATUS, 60 for the others."
        ),
    ] = None
    runtime_config: Annotated[
        RuntimeConfig,
        _described("Filled in by the runtime for the capabilities `mac` and `ips`: `mac`, `ips`."),
    ] = RuntimeConfig()
    args: Annotated[Args, _described("`args.cni.mac` and `args.cni.ips`, as CNI's conventions have them.")] = Args()


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
    if reason := why_not_ifname(network.bridge):
        raise Refused(f"bridge {network.bridge!r} is not a bridge name: {reason}", "name an OVS bridge")
    if network.bridge.startswith(_TRUNK_BRIDGE):
        raise Refused(
            f"bridge {network.bridge} is named like Neutron's bridge of a trunk, which os-vif deletes with its port",
            f"name a bridge that does not begin with {_TRUNK_BRIDGE}",
        )
    return network


def _remedy(complaint: str) -> str:
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


def vif_by_name(attachment: Attachment, mount_point: SocketDir, ovs_vhu_path: SocketDir) -> Vif:
    """What is known of an attachment without journal and configuration: its names.  Enough to remove it."""
    port = names.port_id(attachment)
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


def requested_mac(request: Request, network: Network) -> str | None:
    """The MAC that somebody asked for, lower case: the reference plugins' order, the nearest to the pod wins.

    Raises:
        Refused: CNI_ARGS' MAC is none, or the MAC is multicast or all zero.
    """
    from_args = request.args.get("MAC")
    mac = network.runtime_config.mac or network.args.cni.mac or from_args or network.mac
    if mac is None:
        return None
    octets = mac.split(":")
    if len(octets) != 6 or any(len(octet) != 2 or not _is_hex(octet) for octet in octets):
        raise Refused(f"CNI_ARGS MAC={mac} is no MAC address", "write it as 02:00:00:00:00:01")
    if int(octets[0], 16) & 1 or not any(int(octet, 16) for octet in octets):
        raise Refused(f"MAC {mac} is no unicast address", "the lowest bit of the first octet has to be 0")
    return mac.lower()


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)


def requested_ips(request: Request, network: Network) -> tuple[str, ...]:
    """The addresses that somebody asked for (runtimeConfig.ips, args.cni.ips, CNI_ARGS IP); IPAM reads the same keys."""
    listed = [*network.runtime_config.ips, *network.args.cni.ips]
    from_args = request.args.get("IP", "").split(",")  # the static plugin takes a list there
    return tuple(listed or [address for address in from_args if address])


def why_not_addresses(requested: Iterable[str], given: Addresses) -> str | None:
    """Which of the addresses asked for IPAM did not give, or None when all are there."""
    have = {ipaddress.ip_interface(ip.address).ip for ip in given.ips}
    for text in requested:
        try:
            want = ipaddress.ip_interface(text).ip
        except ValueError:
            return f"{text!r} is no IP address"
        if want not in have:
            return f"{text} was asked for and IPAM did not give it"
    return None


def has_ipam(network: Network) -> bool:
    """Whether the network has an IPAM plugin; an empty `ipam` object means none (CNI SPEC.md section 1)."""
    return bool(network.ipam.type)
