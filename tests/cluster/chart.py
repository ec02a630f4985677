"""podvif's chart on a cluster, as an administrator uses it.

Law: what is done here is what docs/install.md says, in another namespace; an uninstall is judged by what lies on the node afterwards.
"""

import os
from pathlib import Path

import pytest

from podvif.lab.machine import Machine
from podvif.lab.onenode import OneNode
from podvif.lab.process import output
from tests.cluster.support import wait_until_none

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
NAMESPACE = "podvif-system"

_CHART = ROOT / "deploy" / "helm" / "podvif"
_PLACES = (
    "/opt/cni/bin",
    "/etc/cni/net.d",
    "/var/lib/podvif",
    "/run/podvif",
    "/run/vhostuser",
    "/var/lib/kubelet/plugins",
    "/var/lib/kubelet/plugins_registry",
)
"""Where the chart's pods write on a node; what IPAM plugins keep in /var/lib/cni is theirs."""


def helm(cluster: OneNode, *arguments: str) -> str:
    """What helm prints, in podvif's namespace."""
    folder = Path(output([str(ROOT / "scripts" / "build-helm"), "--where"]).strip())
    if not (folder / "helm").exists():
        pytest.skip("helm is not there: run scripts/build-helm")
    env = os.environ | {"KUBECONFIG": str(cluster.plane.kubeconfig)}
    return output([str(folder / "helm"), f"--namespace={NAMESPACE}", *arguments], timeout=180, env=env)


def install(cluster: OneNode, *values: str) -> None:
    """Install the chart with these options of helm's, and wait until its pods are ready."""
    helm(cluster, "install", "podvif", str(_CHART), "--create-namespace", "--wait", "--timeout=90s", *values)


def upgrade(cluster: OneNode, *values: str) -> None:
    """Change these values, and wait until the pods that follow are ready."""
    helm(cluster, "upgrade", "podvif", str(_CHART), "--reset-then-reuse-values", "--wait", "--timeout=90s", *values)


def reset(cluster: OneNode) -> None:
    """Take back every value that was set since the installation of a chart without any."""
    helm(cluster, "upgrade", "podvif", str(_CHART), "--reset-values", "--wait", "--timeout=90s")


def uninstall(cluster: OneNode) -> None:
    """Uninstall the chart, and wait until its pods are gone."""
    helm(cluster, "uninstall", "podvif", "--wait", "--timeout=90s")
    cluster.kubectl("wait", "pods", "--all", "--for=delete", f"--namespace={NAMESPACE}", "--timeout=90s")


def files(machine: Machine) -> set[str]:
    """What lies on the node where the chart's pods write."""
    return {str(path) for place in _PLACES for path in machine.path(place).rglob("*")}


def wait_until_only(machine: Machine, before: set[str]) -> None:
    """Nothing lies there that did not lie there before, now or soon."""
    wait_until_none(lambda: sorted(files(machine) - before))
