"""kuryr.conf: the options of each program, as one frozen value.

Law: configuration is an argument and never a global.  What is in the file is honoured or refused at start, with file,
section and name; sections of Kuryr's and podvif's other programs are let be, since they share the file, and so are Kuryr's
own options in sections that podvif reads.  [neutron] is read by `podvif.neutron.access`: keystoneauth has most of its options.
"""

import itertools
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from oslo_config import cfg

from podvif import errors, names
from podvif.errors import Refused
from podvif.model import SocketDir

VHOSTUSER = [
    cfg.StrOpt(
        "mount_point",
        default="/var/run/vhostuser",
        help="Directory on the host in which pods find their vhost-user sockets and the files that describe them; pods mount"
        " it (hostPath). It has to lie on the same mount as ovs_vhu_path and is made at start if it is missing.",
    ),
    cfg.StrOpt(
        "ovs_vhu_path",
        default="/var/run/openvswitch",
        help="Directory in which ovs-vswitchd creates the sockets that it listens on itself (mode client): OVS's run"
        " directory, or other_config:vhost-sock-dir below it.",
    ),
    cfg.StrOpt(
        "vswitchd_user",
        default="",
        help="As whom ovs-vswitchd runs, USER or USER:GROUP, by names or numbers: sockets that applications make are opened to"
        " it. Needed only where podvif cannot see its process (another pid namespace). Empty: that process is asked.",
    ),
    cfg.StrOpt(
        "socket_group",
        default="",
        help="Group, by name or number, of mount_point and of the sockets that Open vSwitch makes there (mode client): pods that"
        " have it (supplementalGroups, fsGroup) need not be root. They can reach each other's sockets then; a directory of"
        " a pod's own has the pod's group instead. Empty: both are root's.",
    ),
    cfg.StrOpt(
        "socket_mode",
        default="",
        help="Mode, octal, of the sockets that Open vSwitch makes in mount_point. Empty: 0660 with socket_group, else as Open"
        " vSwitch made them.",
    ),
    cfg.StrOpt(
        "selinux_context",
        default="",
        help="SELinux context of pods' own directories and of the sockets that Open vSwitch makes, such as"
        " system_u:object_r:container_file_t:s0. Empty: what the kernel gives them.",
    ),
]

VIF_PLUG_OVS = [
    cfg.StrOpt(
        "ovsdb_connection",
        default="unix:/var/run/openvswitch/db.sock",
        help="Where ovsdb-server listens, as OVS writes it: unix:PATH, tcp:ADDRESS:PORT or ssl:ADDRESS:PORT.",
    ),
]

NODE = [
    cfg.StrOpt(
        "cni_socket",
        default=names.DEFAULT_CNI_SOCKET,
        help="Unix socket on which the CNI plugin reaches the node daemon (mode 0600). The plugin's own key for it is"
        " daemonSocket.",
    ),
    cfg.StrOpt(
        "state_dir",
        default="/var/lib/podvif",
        help="Directory of the journal, one file for each attachment. Only root may enter it; it has to outlive the daemon.",
    ),
    cfg.StrOpt(
        "run_dir",
        default="/var/run/podvif",
        help="Directory in which pods with a volume of csi.podvif.io have directories of their own (run_dir/pods/UID). It has to"
        " lie on the same mount as ovs_vhu_path, and no pod may mount it.",
    ),
    cfg.StrOpt(
        "source",
        default="standalone",
        choices=[
            ("standalone", "the CNI configuration and an IPAM plugin"),
            ("cluster", "the pod's PodVif, which `podvif controller` writes"),
        ],
        help="Where the node learns what a port shall be.",
    ),
    cfg.FloatOpt(
        "add_timeout",
        default=180.0,
        min=0.1,
        max=3600.0,
        help="Seconds after which an ADD that still waits (for vswitchd, for a socket) is rolled back and fails. The runtime's"
        " own limit has to be longer: kubelet's is 240 s.",
    ),
    cfg.FloatOpt(
        "ipam_timeout",
        default=60.0,
        min=0.1,
        max=3600.0,
        help="Seconds after which an IPAM plugin that has not ended is killed.",
    ),
    cfg.FloatOpt(
        "resync_interval",
        default=30.0,
        min=0.1,
        max=3600.0,
        help="Seconds between two rounds over all attachments, which catch what no event has told.",
    ),
    cfg.FloatOpt(
        "sweep_grace",
        default=60.0,
        min=0.0,
        max=86400.0,
        help="Seconds that an attachment whose sandbox is gone, and ports, files and volumes of ours without an owner, are"
        " left before they are removed. Whatever DEL comes in that time does the work.",
    ),
    cfg.StrOpt(
        "metrics_bind",
        default="127.0.0.1:9655",
        help="Address and port of /metrics (Prometheus), /healthz and /readyz, without TLS: keep it on the loopback or behind"
        " something that guards it. An IPv6 address stands in brackets, port 0 takes a free one, an empty value means none.",
    ),
    cfg.StrOpt(
        "log_format",
        default="console",
        choices=[("console", "for people"), ("json", "one JSON object a line, for collectors")],
        help="Form of the log lines on standard error.",
    ),
]

CSI = [
    cfg.StrOpt(
        "endpoint",
        default="",
        help="Unix socket on which kubelet reaches the CSI driver csi.podvif.io, which gives pods directories of their own; in"
        " Kubernetes /var/lib/kubelet/plugins/csi.podvif.io/csi.sock. Empty: no driver.",
    ),
    cfg.StrOpt(
        "registration_dir",
        default="/var/lib/kubelet/plugins_registry",
        help="Directory in which kubelet looks for drivers. Empty: somebody else registers this one (node-driver-registrar).",
    ),
]

KUBERNETES = [
    cfg.StrOpt(
        "kubeconfig",
        default="",
        help="Kubeconfig file, of which the current context is used. Empty: the pod's service account if there is one, else"
        " what the environment's KUBECONFIG names, else ~/.kube/config.",
    ),
    cfg.StrOpt(
        "node_name",
        default="",
        help="This node's name in Kubernetes; Neutron's agent on it has to have the same as its host. Empty: the host's name."
        " The controller does not read it.",
    ),
    cfg.BoolOpt(
        "cluster_network",
        default=True,
        help="podvif is the cluster network, as Kuryr was: every pod that is not in the node's own network gets a port for its"
        " eth0, and the pod's networks annotation is served with it. Without it podvif serves the pods alone that name it"
        " through Multus. The same for the controller and all nodes.",
    ),
    cfg.StrOpt(
        "additional_ifname_prefix",
        default="eth",
        help="Begins the names of additional interfaces that Multus does not name: a number follows, from 1. The"
        " specification's commands look for eth*.",
    ),
]

NEUTRON_DEFAULTS = [
    cfg.StrOpt(
        "project",
        default="",
        help="Project (UUID) of the pods' ports. Empty: the project of the credentials.",
    ),
    cfg.StrOpt(
        "pod_subnet",
        default="",
        help="Neutron subnet (name or UUID) of interfaces that name none: every pod's eth0 where podvif is the cluster network.",
    ),
    cfg.ListOpt(
        "pod_security_groups",
        default=[],
        help="Security groups (names or UUIDs, by comma) of the pods' ports. Empty: the project's default group.",
    ),
    cfg.ListOpt(
        "resource_tags",
        default=[],
        help="More tags for the pods' ports, by comma, beside podvif's own.",
    ),
]

CONTROLLER = [
    cfg.StrOpt(
        "metrics_bind",
        default="127.0.0.1:9656",
        help="Address and port of /metrics (Prometheus), /healthz and /readyz, without TLS. An IPv6 address stands in"
        " brackets, port 0 takes a free one, an empty value means none.",
    ),
    cfg.IntOpt(
        "workers",
        default=16,
        min=1,
        max=256,
        help="Pods that are worked on at once; each pod by one worker. Requests to Neutron have a limit of their own.",
    ),
    cfg.FloatOpt(
        "resync_interval",
        default=300.0,
        min=1.0,
        max=86400.0,
        help="Seconds between two rounds over all pods, which catch what no event has told, such as a port deleted by hand.",
    ),
    cfg.FloatOpt(
        "retry_max",
        default=60.0,
        min=1.0,
        max=3600.0,
        help="Seconds that a pod waits at most for another try; the first comes after one second, each later one after twice"
        " the time.",
    ),
    cfg.FloatOpt(
        "sweep_grace",
        default=300.0,
        min=0.0,
        max=86400.0,
        help="Seconds that ports of ours without a pod, and PodVifs without one, are left before they are removed.",
    ),
    cfg.StrOpt(
        "lease_name",
        default="podvif-controller",
        help="Name of the Lease by which replicas choose who works. One for each cluster: a second one would double every port.",
    ),
    cfg.StrOpt(
        "lease_namespace",
        default="",
        help="Its namespace. Empty: the controller's own, and kube-system outside of a cluster.",
    ),
    cfg.FloatOpt(
        "lease_duration",
        default=15.0,
        min=1.0,
        max=3600.0,
        help="Seconds after which another replica may take a Lease that was not renewed.",
    ),
    cfg.FloatOpt(
        "lease_renew_deadline",
        default=10.0,
        min=0.5,
        max=3600.0,
        help="Seconds without a renewal after which the leader stops to write; less than lease_duration.",
    ),
    cfg.FloatOpt(
        "lease_retry_period",
        default=2.0,
        min=0.1,
        max=3600.0,
        help="Seconds between two tries to renew or to take the Lease; less than lease_renew_deadline.",
    ),
    cfg.StrOpt(
        "log_format",
        default="console",
        choices=[("console", "for people"), ("json", "one JSON object a line, for collectors")],
        help="Form of the log lines on standard error.",
    ),
]

SECTIONS: dict[str, list[Any]] = {
    "vhostuser": VHOSTUSER,
    "vif_plug_ovs": VIF_PLUG_OVS,
    "node": NODE,
    "csi": CSI,
    "kubernetes": KUBERNETES,
}
"""The sections that the node daemon reads, for the generated reference."""

CONTROLLER_SECTIONS: dict[str, list[Any]] = {
    "neutron_defaults": NEUTRON_DEFAULTS,
    "kubernetes": KUBERNETES,
    "controller": CONTROLLER,
}
"""The sections that the controller reads, [neutron] aside."""

_KURYRS: dict[str, frozenset[str]] = {
    "kubernetes": frozenset(
        {
            "api_root",
            "controller_ha",
            "controller_ha_elector_port",
            "enable_manager",
            "enabled_handlers",
            "endpoints_driver_octavia_provider",
            "endpoints_lbaas_driver",
            "multi_vif_drivers",
            "namespace_project_driver",
            "network_policy_driver",
            "network_policy_project_driver",
            "pod_project_driver",
            "pod_security_groups_driver",
            "pod_subnets_driver",
            "pod_vif_driver",
            "port_debug",
            "service_project_driver",
            "service_public_ip_driver",
            "service_security_groups_driver",
            "service_subnets_driver",
            "ssl_ca_crt_file",
            "ssl_client_crt_file",
            "ssl_client_key_file",
            "ssl_verify_server_crt",
            "token_file",
            "use_events",
            "vif_pool_driver",
            "watch_connection_timeout",
            "watch_read_timeout",
            "watch_reconcile_period",
            "watch_retry_timeout",
        }
    ),
    "neutron_defaults": frozenset(
        {
            "external_svc_net",
            "external_svc_subnet",
            "lbaas_activation_timeout",
            "network_device_mtu",
            "ovs_bridge",
            "service_subnet",
            "subnet_mapping",
        }
    ),
}
"""Kuryr's options in sections that podvif reads: podvif has no use for them (bridge and MTU are Neutron's to say)."""

_OTHER_SECTIONS = frozenset(
    # podvif's other program, and what the adapter for Neutron reads
    {"DEFAULT", "controller", "csi", "neutron", "neutron_defaults", "node", "vhostuser", "vif_plug_ovs"}
    # Kuryr 10.0.0's own (kuryr_kubernetes/config.py), left where somebody comes from it
    | {
        "binding",
        "cache_defaults",
        "cni_daemon",
        "cni_health_server",
        "health_server",
        "ingress",
        "k8s_ovs_bridge",
        "namespace_sg",
        "namespace_subnet",
        "network_device_mtu",
        "node_driver_caching",
        "np_handler_caching",
        "octavia_defaults",
        "oslo_concurrency",
        "pod_vif_nested",
        "prometheus_exporter",
        "sg_mode",
        "sriov",
        "subnet_caching",
        "vif_pool",
        "vif_plug_linux_bridge_privileged",
        "vif_plug_ovs_privileged",
    }
)


class Settings(msgspec.Struct, frozen=True):
    """What the node daemon was told; the options' help texts have meanings and units."""

    mount_point: SocketDir
    ovs_vhu_path: SocketDir
    ovsdb_connection: str
    cni_socket: str
    state_dir: str
    source: str
    add_timeout: float
    ipam_timeout: float
    resync_interval: float
    sweep_grace: float
    log_format: str
    metrics_bind: str = ""
    kubeconfig: str = ""
    node_name: str = ""
    cluster_network: bool = True
    additional_ifname_prefix: str = "eth"
    vswitchd_user: str = ""
    socket_group: str = ""
    socket_mode: str = ""
    selinux_context: str = ""
    run_dir: str = "/var/run/podvif"
    csi_endpoint: str = ""
    csi_registration_dir: str = ""


class ControllerSettings(msgspec.Struct, frozen=True):
    """What the controller was told, [neutron] aside; the options' help texts have meanings and units."""

    project: str
    pod_subnet: str
    pod_security_groups: tuple[str, ...]
    resource_tags: tuple[str, ...]
    kubeconfig: str
    cluster_network: bool
    additional_ifname_prefix: str
    metrics_bind: str
    workers: int
    resync_interval: float
    retry_max: float
    sweep_grace: float
    lease_name: str
    lease_namespace: str
    lease_duration: float
    lease_renew_deadline: float
    lease_retry_period: float
    log_format: str


def load(files: Sequence[str]) -> Settings:
    """Read the node daemon's options, a later file over an earlier one; none of them means the defaults.

    Raises:
        Refused: a file cannot be read, an option is unknown or has a value that cannot work.
    """
    settings = Settings(**_read(files, SECTIONS))
    _refuse_unworkable(settings, files)
    return settings


def load_controller(files: Sequence[str]) -> ControllerSettings:
    """Likewise the controller's; [neutron] is for `podvif.neutron.access.load`, which refuses what it does not know.

    Raises:
        Refused: as `load` does.
    """
    values = _read(files, CONTROLLER_SECTIONS)
    del values["node_name"]  # the section is shared with the node daemon
    settings = ControllerSettings(**values)
    _refuse_unworkable_controller(settings, files)
    return settings


def _read(files: Sequence[str], sections: dict[str, list[Any]]) -> dict[str, Any]:
    """The value of each option of these sections by its name."""
    for file in files:
        _refuse_unknown(file, sections)
    conf = cfg.ConfigOpts()
    for section, options in sections.items():
        conf.register_opts(options, group=section)
    conf(
        [argument for file in files for argument in ("--config-file", file)],
        project="podvif",
        default_config_files=[],
        default_config_dirs=[],
    )
    values = {}
    for section, options in sections.items():
        for option in options:
            try:
                value = conf[section][option.name]
                values[field_of(section, option.name)] = tuple(value) if isinstance(value, list) else value
            except (cfg.Error, ValueError) as error:
                raise Refused(
                    f"{_in(files)}: [{section}] {option.name}: {error}",
                    "docs/reference/configuration.md has the options",
                ) from error
    return values


def field_of(section: str, option: str) -> str:
    """Name of an option's field in the settings: its own, but where that says nothing without its section."""
    return f"csi_{option}" if section == "csi" else option


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; a host in brackets is an IPv6 address, none means every address.

    Raises:
        ValueError: it is not of that form.
    """
    host, colon, port = text.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text} has no port")
    if ("[" in inner or "]" in inner) or (":" in inner and inner == host):
        raise ValueError(f"{text} has an IPv6 address without brackets")
    return inner, int(port)


def _in(files: Sequence[str]) -> str:
    return ", ".join(files) or "the defaults"


def _refuse_unknown(file: str, sections: dict[str, list[Any]]) -> None:
    found: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(file, found).parse()
    except OSError as error:
        raise Refused(
            f"configuration file {file} cannot be read: {error.strerror}", "mend --config-file", code=errors.IO_FAILURE
        ) from error
    except (cfg.ParseError, UnicodeDecodeError) as error:
        raise Refused(f"configuration file {file} is not INI: {error}", "mend the line it names") from error
    for section, options in found.items():
        if section not in sections:
            if section in _OTHER_SECTIONS:
                continue
            raise Refused(
                f"{file}: unknown section [{section}]", f"this program reads {', '.join(f'[{s}]' for s in sections)}"
            )
        known = {option.name for option in sections[section]}
        for name in options:
            if name not in known | _KURYRS.get(section, frozenset()):
                raise Refused(
                    f"{file}: [{section}] {name} is not an option", f"[{section}] has {', '.join(sorted(known))}"
                )


def _refuse_unworkable(settings: Settings, files: Sequence[str]) -> None:
    kind = settings.ovsdb_connection.partition(":")[0]
    if kind not in {"unix", "tcp", "ssl"}:
        raise Refused(
            f"{_in(files)}: [vif_plug_ovs] ovsdb_connection = {settings.ovsdb_connection} is no address of OVSDB",
            "write it as unix:PATH, tcp:ADDRESS:PORT or ssl:ADDRESS:PORT",
        )
    for name, seconds in (("add_timeout", settings.add_timeout), ("ipam_timeout", settings.ipam_timeout)):
        if not math.isfinite(seconds):  # no comparison with a bound finds it
            raise Refused(f"{_in(files)}: [node] {name} = {seconds} is no number of seconds", "write a number")
    if settings.socket_mode and not re.fullmatch(r"0?[0-7]{3}", settings.socket_mode):
        raise Refused(
            f"{_in(files)}: [vhostuser] socket_mode = {settings.socket_mode} is no mode", "write it in octal, as 0660"
        )
    _refuse_address("node", settings.metrics_bind, files)
    _refuse_prefix(settings.additional_ifname_prefix, files)
    paths = {
        "[vhostuser] mount_point": settings.mount_point,
        "[vhostuser] ovs_vhu_path": settings.ovs_vhu_path,
        "[node] cni_socket": settings.cni_socket,
        "[node] state_dir": settings.state_dir,
        "[node] run_dir": settings.run_dir,
        "[csi] endpoint": settings.csi_endpoint,
        "[csi] registration_dir": settings.csi_registration_dir,
    }
    paths = {name: path for name, path in paths.items() if path or not name.startswith("[csi]")}
    for name, path in paths.items():
        if not os.path.isabs(path):  # noqa: PTH117
            raise Refused(f"{_in(files)}: {name} = {path} is no absolute path", "write it from / on")
    longest = {
        "[vhostuser] mount_point": names.socket_path(settings.mount_point, "v" * names.VIF_NAME_LENGTH),
        "[vhostuser] ovs_vhu_path": names.socket_path(settings.ovs_vhu_path, "v" * names.VIF_NAME_LENGTH),
        "[node] cni_socket": settings.cni_socket,
        "[node] run_dir": names.socket_path(
            names.own_directory(settings.run_dir, "u" * names.POD_UID_MAX), "v" * names.VIF_NAME_LENGTH
        ),
    }
    if settings.csi_endpoint:
        # Both get their names by a rename from a hidden one.
        longest["[csi] endpoint"] = _hidden(settings.csi_endpoint)
        if settings.csi_registration_dir:
            longest["[csi] registration_dir"] = _hidden(names.registration_socket(settings.csi_registration_dir))
    for name, path in longest.items():
        size = len(os.fsencode(path))
        if size > names.SUN_PATH_MAX:
            raise Refused(
                f"{_in(files)}: {name} = {paths[name]} makes the socket path {path} {size} bytes long,"
                f" a Unix socket's has at most {names.SUN_PATH_MAX}",
                "choose a shorter directory",
            )
    if os.path.normpath(settings.mount_point) == os.path.normpath(settings.ovs_vhu_path):
        raise Refused(
            f"{_in(files)}: [vhostuser] mount_point and ovs_vhu_path are both {settings.mount_point}",
            "give pods a directory of their own: OVS's holds the sockets that control it",
        )
    own = names.own_directories(settings.run_dir)
    if _is_within(own, settings.mount_point) or _is_within(settings.mount_point, own):
        raise Refused(
            f"{_in(files)}: [vhostuser] mount_point = {settings.mount_point} and {own} of [node] run_dir lie one in the other",
            "keep them apart: what pods share must not show what one has for itself",
        )


def _hidden(path: str) -> str:
    directory, _, name = path.rpartition("/")
    return f"{directory}/.{name}"


def _is_within(path: str, directory: str) -> bool:
    path, directory = os.path.normpath(path), os.path.normpath(directory)
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _refuse_unworkable_controller(settings: ControllerSettings, files: Sequence[str]) -> None:
    _refuse_address("controller", settings.metrics_bind, files)
    _refuse_prefix(settings.additional_ifname_prefix, files)
    for name in ("resync_interval", "retry_max", "sweep_grace", *_LEASE):
        seconds = getattr(settings, name)
        if not math.isfinite(seconds):  # no comparison with a bound finds it
            raise Refused(f"{_in(files)}: [controller] {name} = {seconds} is no number of seconds", "write a number")
    if not settings.lease_name:
        raise Refused(f"{_in(files)}: [controller] lease_name is empty", "name the Lease, the same for all replicas")
    for longer, shorter in itertools.pairwise(_LEASE):
        if getattr(settings, longer) <= getattr(settings, shorter):
            raise Refused(
                f"{_in(files)}: [controller] {longer} = {getattr(settings, longer):g} has to be more than {shorter} ="
                f" {getattr(settings, shorter):g}",
                "else two replicas may lead at once; the defaults are 15, 10 and 2",
            )
    for tag in settings.resource_tags:
        if not tag or "," in tag or len(tag.split()) != 1:
            raise Refused(
                f"{_in(files)}: [neutron_defaults] resource_tags: {tag!r} is no tag", "write it without spaces"
            )


_LEASE = ("lease_duration", "lease_renew_deadline", "lease_retry_period")


def _refuse_address(section: str, address: str, files: Sequence[str]) -> None:
    if not address:
        return
    try:
        parse_address(address)
    except ValueError as error:
        raise Refused(
            f"{_in(files)}: [{section}] metrics_bind = {address} is no address: {error}",
            "write it as ADDRESS:PORT, or leave it empty for none",
        ) from error


def _refuse_prefix(prefix: str, files: Sequence[str]) -> None:
    # Two digits have to fit into the 15 characters of an interface's name.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,12}", prefix):
        raise Refused(
            f"{_in(files)}: [kubernetes] additional_ifname_prefix = {prefix} cannot begin an interface's name",
            "write a letter and at most 12 more letters or digits",
        )
