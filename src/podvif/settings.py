"""kuryr.conf: the options of this program, as one frozen value.

Law: configuration is an argument and never a global.  What is in the file is honoured or refused at start, with file,
section and name; sections of Kuryr's and podvif's other programs are let be, since they share the file.
"""

import math
import os
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
        "source",
        default="standalone",
        choices=[("standalone", "the CNI configuration and an IPAM plugin")],
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
        help="Seconds that an attachment whose sandbox is gone, and ports and files of ours without an owner, are left"
        " before they are removed. Whatever DEL comes in that time does the work.",
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

SECTIONS: dict[str, list[Any]] = {"vhostuser": VHOSTUSER, "vif_plug_ovs": VIF_PLUG_OVS, "node": NODE}
"""The sections that this program reads, for the generated reference."""

_OTHER_SECTIONS = frozenset(
    # podvif's controller
    {"DEFAULT", "neutron", "neutron_defaults", "kubernetes"}
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


def load(files: Sequence[str]) -> Settings:
    """Read the files, a later one over an earlier one; none of them means the defaults.

    Raises:
        Refused: a file cannot be read, an option is unknown or has a value that cannot work.
    """
    for file in files:
        _refuse_unknown(file)
    conf = cfg.ConfigOpts()
    for section, options in SECTIONS.items():
        conf.register_opts(options, group=section)
    conf(
        [argument for file in files for argument in ("--config-file", file)],
        project="podvif",
        default_config_files=[],
        default_config_dirs=[],
    )
    values = {}
    for section, options in SECTIONS.items():
        for option in options:
            try:
                values[option.name] = conf[section][option.name]
            except (cfg.Error, ValueError) as error:
                raise Refused(
                    f"{_in(files)}: [{section}] {option.name}: {error}",
                    "docs/reference/configuration.md has the options",
                ) from error
    settings = Settings(**values)
    _refuse_unworkable(settings, files)
    return settings


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


def _refuse_unknown(file: str) -> None:
    sections: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(file, sections).parse()
    except OSError as error:
        raise Refused(
            f"configuration file {file} cannot be read: {error.strerror}", "mend --config-file", code=errors.IO_FAILURE
        ) from error
    except (cfg.ParseError, UnicodeDecodeError) as error:
        raise Refused(f"configuration file {file} is not INI: {error}", "mend the line it names") from error
    for section, options in sections.items():
        if section in _OTHER_SECTIONS:
            continue
        if section not in SECTIONS:
            raise Refused(
                f"{file}: unknown section [{section}]", f"the node daemon reads {', '.join(f'[{s}]' for s in SECTIONS)}"
            )
        known = {option.name for option in SECTIONS[section]}
        for name in options:
            if name not in known:
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
    if settings.metrics_bind:
        try:
            parse_address(settings.metrics_bind)
        except ValueError as error:
            raise Refused(
                f"{_in(files)}: [node] metrics_bind = {settings.metrics_bind} is no address: {error}",
                "write it as ADDRESS:PORT, or leave it empty for none",
            ) from error
    paths = {
        "[vhostuser] mount_point": settings.mount_point,
        "[vhostuser] ovs_vhu_path": settings.ovs_vhu_path,
        "[node] cni_socket": settings.cni_socket,
        "[node] state_dir": settings.state_dir,
    }
    for name, path in paths.items():
        if not os.path.isabs(path):  # noqa: PTH117
            raise Refused(f"{_in(files)}: {name} = {path} is no absolute path", "write it from / on")
    longest = {
        "[vhostuser] mount_point": names.socket_path(settings.mount_point, "v" * names.VIF_NAME_LENGTH),
        "[vhostuser] ovs_vhu_path": names.socket_path(settings.ovs_vhu_path, "v" * names.VIF_NAME_LENGTH),
        "[node] cni_socket": settings.cni_socket,
    }
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
