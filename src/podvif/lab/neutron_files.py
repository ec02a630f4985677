"""The files that a private Neutron is configured by, as text.

Law: what is said here is said once, from one frozen value; nothing here starts a program.  The option names are Neutron's
(`neutron.conf`, `ml2_conf.ini`, `openvswitch_agent.ini`, `api-paste.ini`).
"""

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "podvif-host"
"""The node's name: binding:host_id of the ports that bind here."""

BRIDGE = "br-int"
PROVIDER = "br-phy"
PHYSICAL_NETWORK = "physnet1"

PASSWORD = "secret"  # noqa: S105  of a server that lives as long as a test, on the loopback
USERS: Mapping[str, tuple[str, str]] = {
    "admin": ("lab", "admin"),
    "service": ("services", "service"),
    "member": ("lab", "member"),
    "reader": ("lab", "reader"),
}
"""Project and role by user, where `Auth.BASIC` is in force."""


class Mechanism(enum.Enum):
    """Neutron's mechanism driver."""

    OVN = "ovn"
    OVS = "openvswitch"


@dataclass(frozen=True, slots=True)
class AgentKind:
    """What the Open vSwitch agent tells Neutron of its node; by that Neutron binds the node's ports.

    Attributes:
        hidden: interface types of Open vSwitch that it does not tell of.
        firewall: its firewall_driver.
        datapath: what it says its bridges have; they have netdev.
    """

    hidden: tuple[str, ...] = ()
    firewall: str = "noop"
    datapath: str = "netdev"

    @property
    def is_altered(self) -> bool:
        """Whether it says something else than what is so."""
        return bool(self.hidden) or self.datapath != "netdev"


_VHOST_USER = ("dpdkvhostuser", "dpdkvhostuserclient")

AGENTS: Mapping[str, AgentKind] = {
    "server": AgentKind(),
    "client": AgentKind(hidden=("dpdkvhostuserclient",)),
    "ovs": AgentKind(hidden=_VHOST_USER),
    "hybrid": AgentKind(hidden=_VHOST_USER, firewall="iptables_hybrid"),
    "system": AgentKind(hidden=_VHOST_USER, datapath="system"),
}
"""By what Neutron then says of a port: its vhostuser_mode; or vif_type ovs, in a bridge of netdev, with ovs_hybrid_plug, or in one
of the kernel.  `client` is an Open vSwitch before 2.6, `ovs` and `hybrid` one that runs without DPDK."""


class Auth(enum.Enum):
    """Who may call."""

    NONE = "noauth"
    """Everybody, as the administrator of `fake_project_id`."""
    BASIC = "podvif"
    """The `USERS`, by HTTP's basic authentication, each with the role that Neutron's own policies then judge."""


OTHER_HOSTS = "podvif_lab_hosts"
"""Our mechanism driver, and the module that it is in."""

Bindings = Mapping[str, tuple[str, Mapping[str, object]]]
"""vif_type and vif_details by host."""

Sections = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything of one private Neutron lies.

    Attributes:
        folder: the root of it all.
        venv: Neutron's virtual environment.
        rundir: the switch's folder.
    """

    folder: Path
    venv: Path
    rundir: Path

    @property
    def database(self) -> Path:
        """MariaDB's socket."""
        return self.folder / "maria.sock"

    @property
    def northbound(self) -> str:
        """OVN's northbound database, as OVSDB writes addresses."""
        return f"unix:{self.folder}/nb.sock"

    @property
    def southbound(self) -> str:
        """OVN's southbound database."""
        return f"unix:{self.folder}/sb.sock"


def ini(sections: Sections) -> str:
    """An INI file."""
    blocks = (
        "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in keys.items())])
        for name, keys in sections.items()
    )
    return "\n\n".join(blocks) + "\n"


def database_url(places: Places) -> str:
    """Neutron's database, as SQLAlchemy writes it."""
    return f"mysql+pymysql://root@localhost/neutron?unix_socket={places.database}&charset=utf8mb3"


def neutron_conf(places: Places, mechanism: Mechanism, auth: Auth, quota: Mapping[str, int]) -> str:
    """`neutron.conf`; quotas are without limit but for those given, as `quota_port`."""
    unlimited = dict.fromkeys(("network", "subnet", "port", "security_group", "security_group_rule"), -1)
    return ini(
        {
            "DEFAULT": {
                "host": HOST,
                "auth_strategy": auth.value,
                "core_plugin": "ml2",
                "service_plugins": "",
                "api_paste_config": places.folder / "api-paste.ini",
                "state_path": places.folder / "state",
                "transport_url": "rabbit://guest:guest@127.0.0.1:5672/" if mechanism is Mechanism.OVS else "fake://",
                "notify_nova_on_port_status_changes": "false",
                "notify_nova_on_port_data_changes": "false",
                "dhcp_agent_notification": "false",
                "rpc_workers": 1,
                "rpc_state_report_workers": 0,
                # The agent may ask before the server listens: it shall not wait a minute to ask again.
                "rpc_response_timeout": 10,
            },
            "oslo_concurrency": {"lock_path": places.folder / "lock"},
            "database": {"connection": database_url(places)},
            "oslo_messaging_notifications": {"driver": "noop"},
            "quotas": {"default_quota": -1}
            | {f"quota_{key}": value for key, value in (unlimited | dict(quota)).items()},
            "agent": {"report_interval": 5},
        }
    )


def ml2_ini(places: Places, mechanism: Mechanism, extension_drivers: Sequence[str]) -> str:
    """`ml2_conf.ini`: Geneve networks with OVN, VLAN networks with the OVS agent; our driver has the hosts that those leave."""
    tenant = "geneve" if mechanism is Mechanism.OVN else "vlan"
    sections: dict[str, Mapping[str, object]] = {
        "ml2": {
            "type_drivers": f"flat,vlan,local,{'geneve' if mechanism is Mechanism.OVN else 'vxlan'}",
            "tenant_network_types": tenant,
            "mechanism_drivers": f"{mechanism.value},{OTHER_HOSTS}",
            "extension_drivers": ",".join(extension_drivers),
        },
        "ml2_type_flat": {"flat_networks": PHYSICAL_NETWORK},
        "ml2_type_vlan": {"network_vlan_ranges": f"{PHYSICAL_NETWORK}:100:1000"},
        "ml2_type_geneve": {"vni_ranges": "1:65536", "max_header_size": 38},
        # Off on the server, bulk requests for ports end in a TypeError (Neutron 29).
        "securitygroup": {"enable_security_group": "true"},
    }
    if mechanism is Mechanism.OVN:
        sections["ovn"] = {
            "ovn_nb_connection": places.northbound,
            "ovn_sb_connection": places.southbound,
            "vhost_sock_dir": places.rundir,
            "ovn_metadata_enabled": "false",
            "ovsdb_probe_interval": 0,
        }
    return ini(sections)


def agent_ini(places: Places, neutron: Path, agent: Path, firewall: str = "noop") -> str:
    """`openvswitch_agent.ini`; `neutron` and `agent` are the configuration files that its helpers read."""
    helper = f"{places.venv}/bin/privsep-helper --config-file {neutron} --config-file {agent}"
    # There is no sudo: the helpers are started directly, as root.
    privileged = ("privsep", "privsep_ovs_vsctl", "privsep_namespace", "privsep_conntrack", "privsep_link")
    return ini(
        {
            "ovs": {
                "bridge_mappings": f"{PHYSICAL_NETWORK}:{PROVIDER}",
                "datapath_type": "netdev",
                "vhostuser_socket_dir": places.rundir,
                "ovsdb_connection": f"unix:{places.rundir}/db.sock",
                "of_listen_address": "127.0.0.1",
                "of_listen_port": 6633,
            },
            "agent": {"tunnel_types": "", "root_helper": "", "polling_interval": 1, "minimize_polling": "true"},
            "securitygroup": {
                "enable_security_group": "false" if firewall == "noop" else "true",
                "firewall_driver": firewall,
                "enable_ipset": "false",
            },
            **{section: {"helper_command": helper} for section in privileged},
        }
    )


def api_paste(original: str) -> str:
    """Neutron's `api-paste.ini` with one strategy more: `Auth.BASIC` in front of Neutron's own reading of roles."""

    def with_basic(found: "re.Match[str]") -> str:
        pipeline = (
            found[1].replace("fake_project_id ", "").replace("extensions ", "podvif_basic keystonecontext extensions ")
        )
        return f"{found[0]}\n{Auth.BASIC.value} = {pipeline}"

    filtered = "\n\n[filter:podvif_basic]\npaste.filter_factory = podvif_lab_basic:factory\n"
    return re.sub(r"^noauth = (.*)$", with_basic, original, flags=re.MULTILINE) + filtered


def basic_module() -> str:
    """The Python module of that filter: it stands where keystonemiddleware would, and says the same headers."""
    return f'''"""WSGI: basic authentication in place of keystonemiddleware; the headers are those that it would set."""

import base64

USERS = {dict(USERS)!r}


def factory(global_conf, **local_conf):
    def wrap(app):
        def serve(environ, start_response):
            kind, _, blob = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
            user, _, password = base64.b64decode(blob).decode().partition(":") if kind == "Basic" else ("", "", "")
            if password != {PASSWORD!r} or user not in USERS:
                start_response("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Type", "application/json")])
                return [b'{{"error": {{"code": 401, "title": "Unauthorized", "message": "The request you have made requires '
                        b'authentication."}}}}']
            project, role = USERS[user]
            environ |= {{"HTTP_X_USER_ID": user, "HTTP_X_PROJECT_ID": project, "HTTP_X_ROLES": role,
                        "HTTP_X_IDENTITY_STATUS": "Confirmed"}}
            return app(environ, start_response)
        return serve
    return wrap
'''


def other_hosts_module(bindings: Bindings) -> str:
    """The Python module of a mechanism driver for hosts of other kinds, as SR-IOV's: it binds their ports as `bindings` says."""
    return f'''"""ML2 mechanism driver: it binds the ports of hosts that have no agent."""

from neutron_lib.plugins.ml2 import api

HOSTS = {dict(bindings)!r}


class Driver(api.MechanismDriver):
    def initialize(self):
        pass

    def bind_port(self, context):
        if context.host in HOSTS:
            vif_type, vif_details = HOSTS[context.host]
            context.set_binding(context.segments_to_bind[0][api.ID], vif_type, dict(vif_details))
'''


def other_hosts_files() -> Mapping[str, str]:
    """What tells Python of that driver, beside the module: text by path."""
    about = f"{OTHER_HOSTS}-1.dist-info"
    return {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {OTHER_HOSTS}\nVersion: 1\n",
        f"{about}/entry_points.txt": f"[neutron.ml2.mechanism_drivers]\n{OTHER_HOSTS} = {OTHER_HOSTS}:Driver\n",
    }


def gunicorn_conf(descriptor: int) -> str:
    """`gunicorn.conf.py`: one process with four threads on a listening socket that it inherits.

    The configuration stands in a file because neutron.wsgi.api takes the command line for its own.
    """
    return (
        'wsgi_app = "neutron.wsgi.api:application"\n'
        f'bind = "fd://{descriptor}"\n'
        'worker_class = "gthread"\nworkers = 1\nthreads = 4\ntimeout = 300\nkeepalive = 30\ngraceful_timeout = 1\n'
    )


def altered_agent(kind: AgentKind) -> str:
    """The program of an agent that tells Neutron of another Open vSwitch than it has; it works with the one that it has."""
    return f'''"""The real agent; only its report to Neutron is altered."""

import sys

from neutron.agent import rpc

_report = rpc.PluginReportStateAPI.report_state


def _altered(self, context, agent_state, use_call=False):
    said = dict(agent_state["configurations"], datapath_type={kind.datapath!r})
    found = said["ovs_capabilities"]
    kinds = [each for each in found["iface_types"] if each not in {kind.hidden!r}]
    said["ovs_capabilities"] = dict(found, iface_types=kinds)
    return _report(self, context, dict(agent_state, configurations=said), use_call)


rpc.PluginReportStateAPI.report_state = _altered

from neutron.cmd.agents.ovs_neutron_agent import main

sys.exit(main())
'''


def is_of_kind(configurations: Mapping[str, Any], kind: AgentKind) -> bool:
    """Whether what Neutron knows of an agent (`configurations` of its document) is what an agent of this kind says."""
    kinds = configurations.get("ovs_capabilities", {}).get("iface_types", ())
    told = {each for each in _VHOST_USER if each in kinds}
    hybrid = bool(configurations.get("ovs_hybrid_plug"))
    return (told, configurations.get("datapath_type"), hybrid) == (
        set(_VHOST_USER) - set(kind.hidden),
        kind.datapath,
        kind.firewall == "iptables_hybrid",
    )


SCHEMA = '''"""Neutron's tables straight from its models: the migrations would take twice as long."""

import sys

import sqlalchemy
from neutron.db.migration.models import head

head.get_metadata().create_all(sqlalchemy.create_engine(sys.argv[1]))
'''
