"""The chart with helm alone: what it renders, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from podvif import settings
from podvif.neutron import access
from tests.chart.helm import Helm

STANDALONE: dict[str, Any] = {}
NEUTRON: dict[str, Any] = {"profile": "neutron", "neutron": {"secretName": "account", "cloud": "dpdk"}}


def one(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The object of that kind and name."""
    (document,) = (item for item in found if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return document


def kinds(found: list[dict[str, Any]]) -> set[str]:
    return {item["kind"] for item in found}


@pytest.mark.parametrize("values", [STANDALONE, NEUTRON], ids=["standalone", "neutron"])
def test_lint(helm: Helm, values: dict[str, Any]) -> None:
    """Helm finds nothing to say about the chart."""
    done = helm.run("lint", values, "--strict")
    assert done.returncode == 0, done.stdout + done.stderr


def test_standalone_needs_no_cluster_parts(helm: Helm) -> None:
    """The profile standalone has neither controller nor CRD, no right but its installer's one, and no CNI configuration."""
    found = helm.rendered(STANDALONE)

    assert kinds(found) == {"ConfigMap", "CSIDriver", "DaemonSet", "Pod", "Role", "RoleBinding", "ServiceAccount"}
    assert set(one(found, "ConfigMap", "podvif-node")["data"]) == {"kuryr.conf"}
    assert one(found, "Role", "podvif-node")["rules"] == [
        {"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": ["podvif-node"], "verbs": ["get"]}
    ]


@pytest.mark.parametrize("values", [STANDALONE, NEUTRON], ids=["standalone", "neutron"])
def test_node_reads_its_configuration(helm: Helm, values: dict[str, Any], tmp_path: Path) -> None:
    """The daemon takes the kuryr.conf that the chart writes, with the profile's source."""
    file = tmp_path / "kuryr.conf"
    file.write_text(one(helm.rendered(values), "ConfigMap", "podvif-node")["data"]["kuryr.conf"])

    loaded = settings.load([str(file)])

    neutron = values is NEUTRON
    assert (loaded.source, loaded.cluster_network) == (("cluster", True) if neutron else ("standalone", False))
    assert loaded.csi_endpoint == "/var/lib/kubelet/plugins/csi.podvif.io/csi.sock"


def test_controller_reads_its_configuration(helm: Helm, tmp_path: Path) -> None:
    """The controller takes the kuryr.conf that the chart writes, with options of every type in it."""
    values = NEUTRON | {
        "config": {
            "neutron_defaults": {"pod_security_groups": ["a", "b"], "pod_subnet": "pods"},
            "controller": {"workers": 4, "resync_interval": 86400, "lease_name": "one"},
            "kubernetes": {"cluster_network": False},
        }
    }
    found = helm.rendered(values)
    file = tmp_path / "kuryr.conf"
    file.write_text(one(found, "ConfigMap", "podvif-controller")["data"]["kuryr.conf"])

    loaded = settings.load_controller([str(file)])

    assert (loaded.pod_security_groups, loaded.pod_subnet, loaded.workers) == (("a", "b"), "pods", 4)
    assert (loaded.resync_interval, loaded.lease_name, loaded.cluster_network) == (86400.0, "one", False)
    (rule,) = (rule for rule in one(found, "Role", "podvif-controller")["rules"] if "resourceNames" in rule)
    assert rule["resourceNames"] == ["one"]


def test_every_section_reaches_a_program(helm: Helm) -> None:
    """Each section of kuryr.conf can be set, and stands in the file of each program that reads it."""
    some = {"vhostuser": "mount_point", "vif_plug_ovs": "ovsdb_connection", "node": "state_dir", "csi": "endpoint"}
    some |= {"kubernetes": "node_name", "neutron_defaults": "project", "controller": "lease_name", "neutron": "cloud"}
    assert set(some) == {*settings.SECTIONS, *settings.CONTROLLER_SECTIONS, access.SECTION}
    config = {section: {option: f"/{section}"} for section, option in some.items()}

    found = helm.rendered(NEUTRON | {"config": config})

    for program, sections in (
        ("node", set(settings.SECTIONS)),
        ("controller", {*settings.CONTROLLER_SECTIONS, access.SECTION}),
    ):
        text = one(found, "ConfigMap", f"podvif-{program}")["data"]["kuryr.conf"]
        assert {section for section in some if f"{some[section]} = /{section}\n" in f"{text}\n"} == sections


def test_cluster_network(helm: Helm) -> None:
    """Where podvif is the cluster network the installer has a configuration, and it can be switched off."""
    off = {"cni": {"configuration": {"enabled": False}}}
    for values, there in ((NEUTRON, True), (NEUTRON | off, False)):
        found = helm.rendered(values)
        (installer,) = one(found, "DaemonSet", "podvif-node")["spec"]["template"]["spec"]["initContainers"]

        assert ("10-podvif.conflist" in one(found, "ConfigMap", "podvif-node")["data"]) is there
        assert any(argument.startswith("--configuration=") for argument in installer["args"]) is there


def test_privileges(helm: Helm) -> None:
    """The daemon is privileged for the CSI driver's mounts alone; without it there are the capabilities that it needs."""
    (node,) = one(helm.rendered(), "DaemonSet", "podvif-node")["spec"]["template"]["spec"]["containers"]
    assert node["securityContext"]["privileged"]

    found = helm.rendered({"csi": {"enabled": False}})
    (node,) = one(found, "DaemonSet", "podvif-node")["spec"]["template"]["spec"]["containers"]
    assert "privileged" not in node["securityContext"]
    assert node["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert "CSIDriver" not in kinds(found)


def test_changed_configuration_restarts(helm: Helm) -> None:
    """A changed option changes its program's pods, and not the other program's."""

    def marks(values: dict[str, Any]) -> list[str]:
        found = helm.rendered(values)
        owners = (one(found, "DaemonSet", "podvif-node"), one(found, "Deployment", "podvif-controller"))
        return [owner["spec"]["template"]["metadata"]["annotations"]["podvif.io/configuration"] for owner in owners]

    node, controller = marks(NEUTRON)
    other_node, other_controller = marks(NEUTRON | {"config": {"controller": {"workers": 3}}})

    assert node == other_node
    assert controller != other_controller


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such profile": ({"profile": "calico"}, "profile"),
    "no such value": ({"nodes": {}}, "nodes"),
    "no such section": ({"config": {"nodee": {}}}, "nodee"),
    "no such option": ({"config": {"node": {"add_timeot": 1}}}, "add_timeot"),
    "an option out of range": ({"config": {"node": {"add_timeout": 0}}}, "add_timeout"),
    "an option of another type": ({"config": {"controller": {"workers": "many"}}}, "workers"),
    "an option that is no choice": ({"config": {"node": {"source": "neutron"}}}, "source"),
    "a relative path": ({"cni": {"binDir": "opt/cni/bin"}}, "binDir"),
    "a configuration that no runtime takes": ({"cni": {"configuration": {"name": "podvif"}}}, "name"),
    "a network of two kinds": ({"networks": [{"name": "n", "config": {}, "kuryr": {}}]}, "networks"),
    "no account for Neutron": ({"profile": "neutron"}, "neutron.secretName"),
    "metrics that nobody reaches": ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "monitoring.expose"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(helm: Helm, what: str) -> None:
    """A value that cannot work is refused before anything is installed, by its name."""
    values, name = REFUSED[what]

    done = helm.run("template", values)

    assert done.returncode != 0
    assert name in done.stderr
