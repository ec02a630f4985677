"""What the application reads: the text of the files in the pod's mount.

Law: these files are output.  They are written last and removed first, and nobody of ours ever reads them to learn
something: the pod can write there.  The specification's file keeps its three keys and its form byte for byte.  In a pod's
own directory the other two have fixed names, and all name the directory as the pod has mounted it.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

import msgspec

from podvif import names
from podvif.core.translate import mode_of
from podvif.model import Addresses, Attachment, Entry, Listener, PortKind, SocketPath, Vif


def render(entries: Sequence[Entry]) -> dict[str, str]:
    """File name to text for the interfaces of one sandbox that have a socket, in the order of their ADD.

    Args:
        entries: every attached interface of one container id in one directory; empty when there is none left.
    """
    entries = [entry for entry in entries if entry.vif.kind is PortKind.VHOST_USER]
    if not entries:
        return {}
    container_id = entries[0].attachment.container_id
    whole_json, whole_env = whole_names(entries[0].attachment, entries[0].vif)
    interfaces = [_interface(entry, index) for index, entry in enumerate(entries)]
    files = {names.attachment_file(entry.attachment): _specification(entry) for entry in entries}
    files[whole_json] = _json({"containerId": container_id, "interfaces": interfaces})
    files[whole_env] = _env(interfaces)
    return files


def whole_names(attachment: Attachment, vif: Vif) -> tuple[str, str]:
    """Names of the two files that describe all interfaces of an attachment's sandbox: as JSON, and for a shell."""
    if vif.mounted_at is not None:
        return names.OWN_JSON, names.OWN_ENV
    return names.sandbox_json(attachment.container_id), names.sandbox_env(attachment.container_id)


def socket_in_pod(vif: Vif) -> SocketPath:
    """The socket's path as the application has it."""
    return vif.socket if vif.mounted_at is None else names.socket_path(vif.mounted_at, vif.name)


def vdev(entry: Entry, index: int) -> str:
    """The argument of DPDK's --vdev for this port (virtio_user, DPDK 22.11 and later)."""
    parts = [f"net_virtio_user{index}", f"path={socket_in_pod(entry.vif)}", f"mac={entry.vif.mac}"]
    if entry.vif.listener is Listener.APPLICATION:
        parts.append("server=1")
    parts.append(f"queues={entry.vif.queues}")
    return ",".join(parts)


def _specification(entry: Entry) -> str:
    return _json({"vhostname": entry.vif.name, "vhostmac": entry.vif.mac, "mode": mode_of(entry.vif.listener)})


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _interface(entry: Entry, index: int) -> dict[str, Any]:
    vif = entry.vif
    addresses = entry.addresses or Addresses()
    gateways = [ip.gateway for ip in addresses.ips if ip.gateway]
    return {
        "ifname": entry.attachment.ifname,
        "socket": socket_in_pod(vif),
        "mode": mode_of(vif.listener),
        "listener": vif.listener.value,
        "mac": vif.mac,
        "mtu": vif.mtu,
        "queues": vif.queues,
        "vlan": vif.vlan,
        "ips": [str(ipaddress.ip_interface(ip.address)) for ip in addresses.ips],
        "gateway": gateways[0] if gateways else None,
        "routes": [msgspec.to_builtins(route) for route in addresses.routes],
        "dns": msgspec.to_builtins(addresses.dns),
        "vdev": vdev(entry, index),
    }


def _env(interfaces: Sequence[dict[str, Any]]) -> str:
    lines = [f"VHOSTUSER_COUNT={_quote(str(len(interfaces)))}"]
    for index, interface in enumerate(interfaces):
        for key in ("ifname", "socket", "mode", "listener", "mac", "mtu", "queues", "vlan", "ips", "gateway", "vdev"):
            value = interface[key]
            text = " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
            lines.append(f"VHOSTUSER_{index}_{key.upper()}={_quote(text)}")
    vdevs = " ".join(f"--vdev={interface['vdev']}" for interface in interfaces)
    lines.append(f"VHOSTUSER_VDEVS={_quote(vdevs)}")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    # Always in quotes, also where the shell would not need them: one form to read, and to grep for.
    return "'" + text.replace("'", "'\"'\"'") + "'"
