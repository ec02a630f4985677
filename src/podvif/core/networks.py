"""Which interfaces a pod asks podvif for: its annotation and NetworkAttachmentDefinitions, read once.

Law: what an entry of ours asks for is honoured or refused with the entry's name, never forgotten; entries that other
plugins serve are theirs, and are left alone.  Sources: Network Plumbing Working Group, multi-network specification 1.3
sections 3 and 4; Kuryr-Kubernetes 10.0.0 (controller/drivers/multi_vif.py); Multus 4.3 (pkg/types/conf.go).

There are two ways to an additional interface:

| the NetworkAttachmentDefinition has                                    | way                                           |
|------------------------------------------------------------------------|-----------------------------------------------|
| `spec.config` of type podvif-cni, alone or in a list of plugins        | Multus delegates; Multus names the interface: net1, net2 … by place among *all* entries |
| the annotation `openstack.org/kuryr-config`, and podvif is the cluster network | Kuryr's: comes with the ADD of eth0; eth1, eth2 … by place among such entries |
| `spec.config` of another type, no annotation                           | not ours                                      |
| neither, and podvif is the cluster network                             | refused: nobody would serve it                |

An interface is called what the entry asks for, or that.
"""

import enum
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from podvif.core.cni import why_not_ifname
from podvif.core.podfiles import socket_in_pod
from podvif.core.translate import mode_of, why_not_mac
from podvif.errors import Refused
from podvif.model import ClusterPod, Nad, Vif
from podvif.podvifs import INTERFACES_MAX, Interface, Spec, WantedInterface

NETWORKS = "k8s.v1.cni.cncf.io/networks"
"""Pod annotation: which NetworkAttachmentDefinitions."""

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
"""Pod annotation: what came of it."""

KURYR_CONFIG = "openstack.org/kuryr-config"
"""Annotation of a NetworkAttachmentDefinition: Kuryr's configuration of an additional interface."""

MAIN = "eth0"
"""The pod's main interface: what every runtime calls it."""

CNI_TYPE = "podvif-cni"

DRIVER = "neutron-vif"
"""Kuryr's name of the driver that makes a port on the pod's own node (NeutronPodVIFDriver)."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HONOURED = frozenset({"name", "namespace", "interface", "mac", "ips"})
# A plugin that is chained behind ours may serve these; podvif itself does not.
_OF_CHAINED_PLUGINS = frozenset({"cni-args", "portMappings", "bandwidth", "infiniband-guid", "deviceID"})


class Entry(msgspec.Struct, frozen=True):
    """One entry of the annotation.

    Attributes:
        attachment: `namespace/name` of the NetworkAttachmentDefinition.
        interface: the name asked for, or empty.
        keys: of the JSON form, all of them; empty in the short form.
    """

    attachment: str
    interface: str = ""
    keys: dict[str, Any] = {}


class _Way(enum.Enum):
    KURYR = "Kuryr's"
    MULTUS = "Multus delegates"
    OTHERS = "not ours"


class _Network(msgspec.Struct, frozen=True):
    """What a NetworkAttachmentDefinition says: the way, the place, and whether podvif-cni is its only plugin."""

    way: _Way
    subnet_id: str = ""
    network_id: str = ""
    alone: bool = True


def wanted_interfaces(
    pod: ClusterPod, nads: Mapping[str, Nad], *, cluster_network: bool, prefix: str = "eth"
) -> tuple[WantedInterface, ...]:
    """The interfaces that a pod wants of podvif, in order; none means that the pod is not podvif's business.

    Args:
        pod: whose annotation is read.
        nads: NetworkAttachmentDefinitions by `namespace/name`.
        cluster_network: podvif is the cluster network: eth0 is its own, and Kuryr's way is open.
        prefix: of the names in Kuryr's way ([kubernetes] additional_ifname_prefix).

    Raises:
        Refused: an entry cannot be served as it asks; the message names it.
    """
    wanted = [WantedInterface(name=MAIN)] if cluster_network else []
    # eth0 is there in every pod, whoever made it.
    names: dict[str, str] = {MAIN: "" if cluster_network else "another plugin"}
    served = 0
    for place, entry in enumerate(parse_annotation(pod), start=1):
        nad = nads.get(entry.attachment)
        if nad is None:
            raise _missing(entry, nads)
        network = _network_of(nad, cluster_network=cluster_network)
        served += network.way is _Way.KURYR
        by_place = f"{prefix}{served}" if network.way is _Way.KURYR else f"net{place}"
        name = entry.interface or by_place
        ours = network.way is not _Way.OTHERS
        if name in names and (ours or not names[name]):
            raise Refused(
                f"networks entry {entry.attachment}: the pod has an interface {name} already",
                'ask for another name: "interface" in the JSON form, @NAME in the short one',
            )
        names[name] = "" if ours else entry.attachment
        if ours:
            wanted.append(_wanted(entry, network, name))
    _refuse_impossible(wanted)
    return tuple(wanted)


def attachments_of(pod: ClusterPod) -> frozenset[str]:
    """The NetworkAttachmentDefinitions that a pod names, `namespace/name`; none where the annotation is broken."""
    try:
        return frozenset(entry.attachment for entry in parse_annotation(pod))
    except Refused:
        return frozenset()


def parse_annotation(pod: ClusterPod) -> tuple[Entry, ...]:
    """The entries of the pod's annotation, in either form.

    Raises:
        Refused: it is neither form; the message says where.
    """
    text = pod.annotations.get(NETWORKS, "").strip()
    if not text:
        return ()
    # Multus's own rule of which form it is.
    found = _parse_json(text) if any(character in text for character in '[{"') else _parse_short(text)
    return tuple(_entry(keys, pod, number) for number, keys in enumerate(found, start=1))


def _parse_short(text: str) -> Iterator[dict[str, Any]]:
    for item in (part.strip() for part in text.split(",")):
        path, at, interface = item.partition("@")
        namespace, slash, name = path.partition("/")
        keys = {"name": name, "namespace": namespace} if slash else {"name": path}
        if (at and not interface) or (slash and not namespace):
            raise Refused(f"{NETWORKS}: {item!r} is not of the form [NAMESPACE/]NAME[@INTERFACE]", _FORMS)
        yield {**keys, "interface": interface} if at else keys


_FORMS = 'write NAD, namespace/NAD@net1, or a JSON list like [{"name": "NAD", "interface": "net1"}]'


def _parse_json(text: str) -> list[dict[str, Any]]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as cause:
        raise Refused(f"{NETWORKS} is broken JSON: {cause}", _FORMS) from cause
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Refused(f"{NETWORKS} is no JSON list of objects", _FORMS)
    return found


def _entry(keys: dict[str, Any], pod: ClusterPod, number: int) -> Entry:
    for key in ("name", "namespace", "interface"):
        if not isinstance(keys.get(key, ""), str):
            raise Refused(f"{NETWORKS} entry {number}: {key} is no string", _FORMS)
    name, namespace = keys.get("name", ""), keys.get("namespace") or pod.namespace
    for key, value in (("name", name), ("namespace", namespace)):
        if not _NAME.fullmatch(value):
            raise Refused(f"{NETWORKS} entry {number}: {key} {value!r} is no Kubernetes name", _FORMS)
    interface = keys.get("interface", "")
    if interface and (reason := why_not_ifname(interface)):
        raise Refused(
            f"{NETWORKS} entry {number} ({namespace}/{name}): interface {interface!r} cannot be one: {reason}",
            "ask for another name",
        )
    return Entry(f"{namespace}/{name}", interface, keys)


def _missing(entry: Entry, nads: Mapping[str, Nad]) -> Refused:
    name = entry.attachment.partition("/")[2]
    elsewhere = sorted(nad.namespace for nad in nads.values() if nad.name == name)
    if elsewhere:
        return Refused(
            f"NetworkAttachmentDefinition {entry.attachment} is missing; there is one in namespace {elsewhere[0]}",
            f"write {elsewhere[0]}/{name}, or make one in the pod's namespace",
        )
    return Refused(f"NetworkAttachmentDefinition {entry.attachment} is missing", "make it: the pod waits for it")


# -- the NetworkAttachmentDefinition ----------------------------------------------------------------------------------


def _network_of(nad: Nad, *, cluster_network: bool) -> _Network:
    subject = f"NetworkAttachmentDefinition {nad}"
    plugins = _plugins(nad)
    own = [plugin for plugin in plugins if plugin.get("type") == CNI_TYPE]
    annotation = nad.annotations.get(KURYR_CONFIG)
    if own and annotation is not None:
        raise Refused(
            f"{subject} has both a spec.config of type {CNI_TYPE} and the annotation {KURYR_CONFIG}", "keep one of them"
        )
    if own:
        return _delegated(subject, own, alone=len(plugins) == 1)
    if annotation is not None and cluster_network:
        return _of_kuryr(subject, annotation)
    if plugins:
        return _Network(_Way.OTHERS)
    if annotation is not None:
        raise Refused(
            f"{subject}: the annotation {KURYR_CONFIG} is served only where podvif is the cluster network",
            f"set [kubernetes] cluster_network, or write a spec.config of type {CNI_TYPE} for Multus",
        )
    if cluster_network:
        raise Refused(
            f"{subject} has neither the annotation {KURYR_CONFIG} nor a spec.config",
            f"""annotate it: {KURYR_CONFIG}: '{{"subnetId": "UUID"}}'""",
        )
    return _Network(_Way.OTHERS)  # Multus looks for a file of that name on the node


def _plugins(nad: Nad) -> list[dict[str, Any]]:
    if not nad.config.strip():
        return []
    config = _object(nad.config, f"NetworkAttachmentDefinition {nad}: spec.config")
    plugins = config.get("plugins", [config])
    if not isinstance(plugins, list) or not all(isinstance(plugin, dict) for plugin in plugins):
        raise Refused(
            f"NetworkAttachmentDefinition {nad}: spec.config's plugins is no list of objects", "see CNI SPEC.md"
        )
    return plugins


def _delegated(subject: str, own: list[dict[str, Any]], *, alone: bool) -> _Network:
    if len(own) > 1:
        raise Refused(
            f"{subject}: spec.config has {CNI_TYPE} {len(own)} times", "one attachment is one port: use two NADs"
        )
    subnet, network = (_uuid(own[0], key, f"{subject}: spec.config") for key in ("subnetId", "networkId"))
    if not subnet and not network:
        if "bridge" in own[0]:
            return _Network(_Way.OTHERS)  # standalone: the node makes it of the configuration alone
        raise Refused(
            f"{subject}: spec.config has neither subnetId nor networkId", "name a Neutron subnet or network by its UUID"
        )
    return _Network(_Way.MULTUS, subnet, network, alone)


def _of_kuryr(subject: str, annotation: str) -> _Network:
    config = _object(annotation, f"{subject}: annotation {KURYR_CONFIG}")
    subnet = _uuid(config, "subnetId", f"{subject}: annotation {KURYR_CONFIG}")
    if not subnet:
        raise Refused(f"{subject}: annotation {KURYR_CONFIG} has no subnetId", "name a Neutron subnet by its UUID")
    driver = config.get("driverType") or DRIVER
    if driver != DRIVER:
        raise Refused(
            f"{subject}: annotation {KURYR_CONFIG} has driverType {driver!r}", f"podvif serves {DRIVER}; leave it out"
        )
    return _Network(_Way.KURYR, subnet)


def _object(text: str, subject: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as cause:
        raise Refused(f"{subject} is broken JSON: {cause}", "mend it") from cause
    if not isinstance(found, dict):
        raise Refused(f"{subject} is no JSON object", "mend it")
    return found


def _uuid(config: Mapping[str, Any], key: str, subject: str) -> str:
    value = config.get(key, "")
    if value == "":
        return ""
    if not isinstance(value, str) or not _UUID.fullmatch(value.lower()):
        raise Refused(f"{subject}: {key} {value!r} is no UUID", "`openstack subnet list` and `network list` show them")
    return value.lower()


# -- what the entry asks for ------------------------------------------------------------------------------------------


def _wanted(entry: Entry, network: _Network, name: str) -> WantedInterface:
    subject = f"networks entry {entry.attachment}"
    _refuse_unserved(entry.keys, network, subject)
    mac = entry.keys.get("mac", "")
    if not isinstance(mac, str):
        raise Refused(f"{subject}: mac is no string", "write it as 02:00:00:00:00:01")
    if mac and (reason := why_not_mac(mac)):
        raise Refused(f"{subject}: mac {mac} {reason}", "write it as 02:00:00:00:00:01")
    return WantedInterface(
        name=name,
        subnet_id=network.subnet_id,
        network_id=network.network_id,
        attachment=entry.attachment,
        delegated=network.way is _Way.MULTUS,
        mac=mac.lower(),
        ips=_ips(entry.keys.get("ips"), subject),
    )


def _refuse_unserved(keys: Mapping[str, Any], network: _Network, subject: str) -> None:
    for key, value in keys.items():
        if key in _HONOURED or "." in key or value in (None, "", [], {}):  # a dot: other implementations' keys
            continue
        if key == "default-route":
            raise Refused(
                f"{subject}: default-route cannot be honoured",
                "a vhost-user interface has no routes in the kernel; give the Neutron subnet a gateway instead",
            )
        chained = key in _OF_CHAINED_PLUGINS and network.way is _Way.MULTUS and not network.alone
        if not chained:
            raise Refused(f"{subject}: podvif does not serve {key}", f"it serves {', '.join(sorted(_HONOURED))}")
        if key == "cni-args" and isinstance(value, dict) and value.keys() & {"mac", "ips"}:
            raise Refused(
                f"{subject}: cni-args with mac or ips comes too late: Neutron gives them", "use the keys mac and ips"
            )


def _ips(asked: Any, subject: str) -> tuple[str, ...]:
    if asked in (None, []):
        return ()
    if not isinstance(asked, list):
        raise Refused(f"{subject}: ips is no list", 'write it as ["10.0.0.5"]')
    found = []
    for item in asked:
        try:
            if not isinstance(item, str):
                raise ValueError(item)  # noqa: TRY301, TRY004  ip_interface takes numbers, and says ValueError itself
            found.append(str(ipaddress.ip_interface(item).ip))
        except ValueError:
            raise Refused(f"{subject}: {item!r} in ips is no IP address", 'write it as ["10.0.0.5"]') from None
    if len(set(found)) < len(found):
        raise Refused(f"{subject}: ips has an address twice", "name each once")
    return tuple(found)


def _refuse_impossible(wanted: list[WantedInterface]) -> None:
    if len(wanted) > INTERFACES_MAX:
        raise Refused(
            f"{NETWORKS} asks for {len(wanted)} interfaces, podvif gives a pod {INTERFACES_MAX}",
            "a DPDK application takes no more (RTE_MAX_ETHPORTS)",
        )
    macs: dict[str, str] = {}
    for interface in wanted:
        if interface.mac and interface.mac in macs:
            raise Refused(
                f"networks entry {interface.attachment}: mac {interface.mac} is {macs[interface.mac]}'s already",
                "ask for each MAC once",
            )
        macs[interface.mac] = interface.name


# -- what came of it --------------------------------------------------------------------------------------------------


def render_network_status(
    spec: Spec, interfaces: Mapping[str, Interface], vifs: Mapping[str, Vif], network: str
) -> str | None:
    """The text of the pod annotation network-status; None where Multus delegates, who writes it himself.

    Args:
        spec: the PodVif's.
        interfaces: Neutron's facts by interface name; what is missing is left out.
        vifs: the ports that are vhost-user sockets, by interface name; the others are network interfaces.
        network: name of the cluster network, for the main interface's entry.
    """
    if any(wanted.delegated for wanted in spec.interfaces):
        return None
    entries = [
        _status_entry(wanted, interfaces[wanted.name], vifs.get(wanted.name), network)
        for wanted in spec.interfaces
        if wanted.name in interfaces
    ]
    return msgspec.json.encode(entries).decode()


def _status_entry(wanted: WantedInterface, interface: Interface, vif: Vif | None, network: str) -> dict[str, Any]:
    main = not wanted.attachment
    entry: dict[str, Any] = {
        "name": wanted.attachment or network,
        "interface": wanted.name,
        "ips": [ip.address.partition("/")[0] for ip in interface.ips],
        "mac": interface.mac,
        "mtu": interface.mtu,
        "dns": msgspec.to_builtins(interface.dns),
        "gateway": [ip.gateway for ip in interface.ips if ip.gateway],
    }
    if main:
        entry["default"] = True
    if vif is not None:  # device-info specification 1.1.0, section 3.1.5; "mode" is the application's
        where = {"mode": mode_of(vif.listener), "path": socket_in_pod(vif)}
        entry["device-info"] = {"type": "vhost-user", "version": "1.1.0", "vhost-user": where}
    return entry
