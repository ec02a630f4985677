"""Every name and path that podvif derives, in one place.

Law: all of them are functions of the attachment and the settings alone, so that DEL, recovery and a person with a shell
find what ADD made even when every record of it is lost.
"""

import hashlib
import re
import uuid

from podvif.model import Attachment, Goal, SocketDir, SocketPath

DEAD_VLAN = 4095
"""The tag of a port that belongs to no network (neutron_lib.constants, DEAD_VLAN_TAG)."""

SUN_PATH_MAX = 107
"""Longest path of a Unix socket in bytes: sun_path has 108 with the closing zero (unix(7)); DPDK cuts longer ones silently."""

VIF_NAME_LENGTH = 14
"""os-vif's NIC_NAME_LEN: `vhu` and 11 characters of the port id."""

VIF_NAME = r"vhu[0-9a-f]{8}-[0-9a-f]{2}"
"""Regular expression of an OVS port's name, which is its socket's file name."""

DEFAULT_CNI_SOCKET = "/var/run/podvif/cni.sock"
"""Where plugin and daemon meet unless they are told otherwise; the plugin has it built in (shim/main.go)."""

LABEL_MAX = 63
"""Characters of a Kubernetes label's value."""

CONTAINER_ID_MAX = 200
"""Bytes; a file name of 255 has to hold the container id, the interface name and a suffix."""

MARK_CONTAINER = "podvif-container-id"
MARK_IFNAME = "podvif-ifname"
MARK_POD = "podvif-pod"
MARK_DEVICE = "podvif-device"
"""Number of the host end that a kernel port was plugged on: OVS passes nothing over one that was made again."""

CSI_DRIVER = "csi.podvif.io"
"""Name of the CSI driver, in a pod's volume and in the object CSIDriver."""

POD_UID = r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,34}[0-9A-Za-z])?"
"""Regular expression of a pod's UID: a UUID, of a static pod a hash.  It names a directory, so it has neither dot nor slash."""

POD_UID_MAX = 36
"""Characters of a UUID (RFC 9562); a socket's path has to have room for one."""

OWN_JSON = "interfaces.json"
"""Name of the JSON file with all interfaces in a pod's own directory."""

OWN_ENV = "vhostuser.env"
"""Name of the shell file there."""

_PORTS = uuid.UUID("6a0f9f2e-6d0a-5a57-9d7e-2b1f6f3c7a41")
"""Namespace of our UUIDv5 port ids; it must never change, or a new daemon would not find the ports of the old one."""


def port_id(attachment: Attachment) -> str:
    """The port id of a standalone attachment: UUIDv5 of container id and ifname, so that a repeat finds its own port."""
    return str(uuid.uuid5(_PORTS, f"{attachment.container_id}/{attachment.ifname}"))


def mac(attachment: Attachment) -> str:
    """A MAC that is stable per attachment: unicast and locally administered (IEEE 802, section 8.2.2)."""
    digest = hashlib.sha256(f"mac/{attachment.container_id}/{attachment.ifname}".encode()).digest()
    first = digest[0] & 0b11111100 | 0b00000010
    return ":".join(f"{octet:02x}" for octet in (first, *digest[1:6]))


def vif_name(port: str) -> str:
    """The OVS port's name, and the file name of its socket: os-vif's rule, the specification's `vhu9c9cc8f5-88`."""
    return f"vhu{port}"[:VIF_NAME_LENGTH]


def host_device(port: str) -> str:
    """The host end of a kernel port's pair: libvirt's and Neutron's name for it."""
    return f"tap{port}"[:VIF_NAME_LENGTH]


def linux_bridge(port: str) -> str:
    """The Linux bridge of a hybrid port."""
    return f"qbr{port}"[:VIF_NAME_LENGTH]


def linux_bridge_ends(port: str) -> tuple[str, str]:
    """The pair between a hybrid port's Linux bridge and OVS: os-vif's names; the second is the OVS port's."""
    return f"qvb{port}"[:VIF_NAME_LENGTH], f"qvo{port}"[:VIF_NAME_LENGTH]


def host_mac(attachment: Attachment) -> str:
    """The MAC of the host end of an attachment's pair: by it we know our own.

    It begins with fe, as libvirt's do, so that it is never the lowest in a Linux bridge, which would take it for its own.
    """
    digest = hashlib.sha256(f"host/{attachment.container_id}/{attachment.ifname}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0xFE, *digest[1:6]))


def socket_path(directory: SocketDir, name: str) -> SocketPath:
    """The socket called `name` in `directory`."""
    return SocketPath(f"{directory.rstrip('/')}/{name}")


def attachment_file(attachment: Attachment) -> str:
    """Name of the specification's configuration file for the application."""
    return f"{attachment.container_id}-{attachment.ifname}"


def sandbox_json(container_id: str) -> str:
    """Name of the JSON file with all interfaces of a sandbox."""
    return f"{container_id}.json"


def sandbox_env(container_id: str) -> str:
    """Name of the shell file with all interfaces of a sandbox."""
    return f"{container_id}.env"


def own_directories(run_dir: str) -> str:
    """The directory of the pods' own directories."""
    return f"{run_dir.rstrip('/')}/pods"


def own_directory(run_dir: str, uid: str) -> SocketDir:
    """The directory that a pod with a volume of ours has for itself.

    Raises:
        ValueError: that is no UID of a pod.
    """
    if not re.fullmatch(POD_UID, uid):
        raise ValueError(f"{uid!r} is no UID of a pod")
    return SocketDir(f"{own_directories(run_dir)}/{uid}")


def registration_socket(directory: str) -> str:
    """Where kubelet finds the driver's registration."""
    return f"{directory.rstrip('/')}/{CSI_DRIVER}-reg.sock"


def volume_directory(state_dir: str) -> str:
    """The directory of the volumes' records."""
    return f"{state_dir.rstrip('/')}/volumes"


def volume_file(volume_id: str) -> str:
    """Name of a volume's record: whatever kubelet calls it."""
    return f"{hashlib.sha256(volume_id.encode()).hexdigest()}.json"


def node_label(node_name: str) -> str:
    """Value of the label that a PodVif has for its node: the name, or one made of it where a label cannot hold it.

    A node's name has up to 253 characters, a label's value 63 (Kubernetes, "Labels: syntax").
    """
    if len(node_name) <= LABEL_MAX:
        return node_name
    digest = hashlib.sha256(node_name.encode()).hexdigest()[:16]
    return f"{node_name[: LABEL_MAX - 17]}-{digest}"


def journal_file(attachment: Attachment, goal: Goal) -> str:
    """Name of the journal's file: a colon can stand in neither part, so no two attachments share one."""
    return f"{attachment.container_id}:{attachment.ifname}.{goal.value}.json"


def journal_directory(state_dir: str) -> str:
    """The directory of the journal's files."""
    return f"{state_dir.rstrip('/')}/attachments"


def marks(attachment: Attachment, pod: str) -> dict[str, str]:
    """The external_ids by which people and recovery know our Interface rows."""
    owner = {MARK_CONTAINER: attachment.container_id, MARK_IFNAME: attachment.ifname}
    return owner | {MARK_POD: pod} if pod else owner
