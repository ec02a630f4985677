"""Values to start from: one attachment, its port in each mode, and the calls of a runtime."""

import json
from typing import Any

from podvif import names
from podvif.core.attach import OVS_TYPE
from podvif.core.cni import Request, parse_request
from podvif.model import Attachment, Entry, Goal, Listener, PortKind, SeenPort, SocketDir, SocketPath, Vif

ATTACHMENT = Attachment("c0ffee", "net1")
BOTH = (Listener.APPLICATION, Listener.OVS)


def vif(
    listener: Listener = Listener.APPLICATION,
    attachment: Attachment = ATTACHMENT,
    pods: str = "/pods",
    ovs: str = "/ovs",
    **changes: Any,
) -> Vif:
    """The port of an attachment, with everything derived as podvif derives it."""
    port = names.port_id(attachment)
    name = names.vif_name(port)
    values: dict[str, Any] = {
        "port_id": port,
        "name": name,
        "mac": names.mac(attachment),
        "mtu": 1500,
        "bridge": "br-dpdk",
        "listener": listener,
        "socket": names.socket_path(SocketDir(pods), name),
        "ovs_socket": names.socket_path(SocketDir(ovs), name),
    }
    return Vif(**values | changes)


def kernel_vif(kind: PortKind = PortKind.VETH, attachment: Attachment = ATTACHMENT, **changes: Any) -> Vif:
    """The kernel port of an attachment, with everything derived as podvif derives it."""
    port = names.port_id(attachment)
    name = names.linux_bridge_ends(port)[1] if kind is PortKind.HYBRID else names.host_device(port)
    nowhere = SocketPath("")
    return vif(
        attachment=attachment, **{"name": name, "socket": nowhere, "ovs_socket": nowhere, "kind": kind, **changes}
    )


def port_of(wanted: Vif, **changes: Any) -> SeenPort:
    """What OVSDB shows of a port that was plugged for `wanted` and taken by vswitchd, owner marks aside."""
    socket = wanted.kind is PortKind.VHOST_USER
    values: dict[str, Any] = {
        "name": wanted.name,
        "bridge": wanted.bridge,
        "type": OVS_TYPE[wanted.listener] if socket else "",
        "external_ids": {
            "iface-id": wanted.port_id,
            "iface-status": "active",
            "attached-mac": wanted.mac,
            "vm-uuid": wanted.port_id,
        },
        "vhost_server_path": wanted.socket if socket and wanted.listener is Listener.APPLICATION else None,
        "ofport": 1,
        "mtu_request": wanted.mtu if socket else None,
        "tag": wanted.vlan,
    }
    return SeenPort(**values | changes)


def entry(listener: Listener = Listener.APPLICATION, attachment: Attachment = ATTACHMENT, **changes: Any) -> Entry:
    """An attached interface without IPAM, as the journal has it."""
    values: dict[str, Any] = {
        "attachment": attachment,
        "network": "dpdk-net",
        "goal": Goal.ATTACHED,
        "vif": vif(listener, attachment),
        "created": 1.0,
    }
    return Entry(**values | changes)


def environment(command: str = "ADD", attachment: Attachment = ATTACHMENT, **changes: str) -> dict[str, str]:
    """The variables that a runtime sets; an empty string in `changes` leaves one out."""
    found = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": attachment.container_id,
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_IFNAME": attachment.ifname,
        "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
    }
    return {key: value for key, value in (found | changes).items() if value}


def config(**changes: Any) -> dict[str, Any]:
    """A standalone network configuration; a None in `changes` takes a key out."""
    found: dict[str, Any] = {"cniVersion": "1.1.0", "name": "dpdk-net", "type": "podvif-cni", "bridge": "br-dpdk"}
    return {key: value for key, value in (found | changes).items() if value is not None}


def request(
    command: str = "ADD",
    network: dict[str, Any] | None = None,
    attachment: Attachment = ATTACHMENT,
    **variables: str,
) -> Request:
    """A call of the runtime, parsed."""
    stdin = json.dumps(config() if network is None else network).encode()
    return parse_request(environment(command, attachment, **variables), stdin)
