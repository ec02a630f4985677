"""The files that a private Neutron is configured by."""

import configparser
import json
import sys
from pathlib import Path

import pytest

from podvif.lab import neutron_files
from podvif.lab.neutron_files import AGENTS, Auth, Mechanism, Places
from podvif.lab.process import output

PLACES = Places(Path("/f"), Path("/v"), Path("/f/ovs"))

PASTE = """[composite:neutronapi_v2_0]
use = call:neutron.auth:pipeline_factory
noauth = cors request_id fake_project_id catch_errors extensions neutronapiapp_v2_0
[composite:neutronversions_composite]
noauth = cors http_proxy_to_wsgi neutronversions
"""


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    ("mechanism", "transport"), [(Mechanism.OVN, "fake://"), (Mechanism.OVS, "rabbit://guest:guest@127.0.0.1:5672/")]
)
def test_server(mechanism: Mechanism, transport: str) -> None:
    """With OVN Neutron has no broker, with the agent its own; quotas are unlimited but for those given."""
    conf = parsed(neutron_files.neutron_conf(PLACES, mechanism, Auth.NONE, {"port": 3}))
    assert conf["DEFAULT"]["transport_url"] == transport
    assert (conf["quotas"]["quota_port"], conf["quotas"]["quota_network"]) == ("3", "-1")


def test_sockets() -> None:
    """Server and agent name the switch's own folder for sockets: in mode client OVS makes them there."""
    ovn = parsed(neutron_files.ml2_ini(PLACES, Mechanism.OVN, ["port_security"]))
    agent = parsed(neutron_files.agent_ini(PLACES, Path("/f/neutron.conf"), Path("/f/agent.ini")))
    assert ovn["ovn"]["vhost_sock_dir"] == agent["ovs"]["vhostuser_socket_dir"] == "/f/ovs"
    assert agent["ovs"]["datapath_type"] == "netdev"


def test_firewall() -> None:
    """The agent has no firewall, unless its kind has one; then security groups are in force."""
    paths = (Path("/f/neutron.conf"), Path("/f/agent.ini"))
    for firewall, enabled in (("noop", "false"), (AGENTS["hybrid"].firewall, "true")):
        section = parsed(neutron_files.agent_ini(PLACES, *paths, firewall))["securitygroup"]
        assert (section["firewall_driver"], section["enable_security_group"]) == (firewall, enabled)


AGENT = """
import json
from neutron.agent import rpc

def main():
    own = {"datapath_type": "netdev", "ovs_hybrid_plug": False,
           "ovs_capabilities": {"iface_types": ["internal", "dpdkvhostuser", "dpdkvhostuserclient"]}}
    before = json.dumps(own)
    rpc.PluginReportStateAPI().report_state(None, {"configurations": own})
    assert json.dumps(own) == before
"""
RPC = """
import json

class PluginReportStateAPI:
    def report_state(self, context, agent_state, use_call=False):
        print(json.dumps(agent_state["configurations"]))
"""


@pytest.mark.parametrize("mode", AGENTS)
def test_altered_agent(mode: str, tmp_path: Path) -> None:
    """What an agent of each kind reports is known for that kind's and for no other's; what it has itself stays as it is."""
    for path, text in (("agent/rpc.py", RPC), ("cmd/agents/ovs_neutron_agent.py", AGENT)):
        file = tmp_path / "neutron" / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
    program = tmp_path / "altered_agent.py"
    program.write_text(neutron_files.altered_agent(AGENTS[mode]))

    said = json.loads(output([sys.executable, str(program)]))

    said["ovs_hybrid_plug"] = mode == "hybrid"  # which its firewall says, and nobody alters
    assert {name for name, kind in AGENTS.items() if neutron_files.is_of_kind(said, kind)} == {mode}
    assert "internal" in said["ovs_capabilities"]["iface_types"]


def test_basic_is_a_strategy_of_both_composites() -> None:
    """Basic authentication stands where Neutron's token filter would, in every composite that has strategies."""
    paste = parsed(neutron_files.api_paste(PASTE))
    pipeline = paste["composite:neutronapi_v2_0"][Auth.BASIC.value].split()
    assert pipeline == [
        "cors",
        "request_id",
        "catch_errors",
        "podvif_basic",
        "keystonecontext",
        "extensions",
        "neutronapiapp_v2_0",
    ]
    assert Auth.BASIC.value in paste["composite:neutronversions_composite"]
    assert "filter:podvif_basic" in paste


def test_basic_filter() -> None:
    """The filter lets a known account through with its role, and nobody else."""
    module: dict[str, object] = {}
    exec(compile(neutron_files.basic_module(), "podvif_lab_basic", "exec"), module)  # noqa: S102  it is our own text
    seen: list[dict[str, str]] = []
    statuses: list[str] = []

    def app(environ: dict[str, str], _start: object) -> list[bytes]:
        seen.append(environ)
        return [b"ok"]

    factory = module["factory"]
    assert callable(factory)
    serve = factory({})(app)
    for account in ("Basic c2VydmljZTpzZWNyZXQ=", "Basic c2VydmljZTp3cm9uZw==", ""):  # service:secret, service:wrong
        serve({"HTTP_AUTHORIZATION": account}, lambda status, _headers: statuses.append(status))
    assert [environ["HTTP_X_ROLES"] for environ in seen] == ["service"]
    assert statuses == ["401 Unauthorized"] * 2
