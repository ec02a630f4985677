"""The Helm chart on a real cluster: what an administrator does, and what is left when it was undone."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podvif.lab.hugepages import hugepages
from podvif.lab.node import switch_of
from podvif.lab.onenode import OneNode, bridge
from podvif.lab.process import output, wait_any
from podvif.lab.standing import EXAMPLES
from tests.cluster.conftest import PAGES
from tests.cluster.support import wait_for_packets

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "podvif"
NAMESPACE = "podvif-system"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """A cluster with Multus and Open vSwitch, podvif's image, and no podvif."""
    folder = tmp_path_factory.mktemp("h")
    archives = folder / "podvif"
    output([sys.executable, str(ROOT / "scripts" / "build-image"), "--output", str(archives), "node"], timeout=300)
    with hugepages(PAGES), OneNode(folder, network=bridge(), multus=True) as cluster, switch_of(cluster.machine):
        cluster.runtime.import_images(archives.glob("*.tar"))
        yield cluster


def helm(cluster: OneNode, *arguments: str) -> str:
    """What helm prints, in podvif's namespace."""
    folder = Path(output([str(ROOT / "scripts" / "build-helm"), "--where"]).strip())
    if not (folder / "helm").exists():
        pytest.skip("helm is not there: run scripts/build-helm")
    env = os.environ | {"KUBECONFIG": str(cluster.plane.kubeconfig)}
    return output([str(folder / "helm"), f"--namespace={NAMESPACE}", *arguments], timeout=180, env=env)


def test_install_use_uninstall(cluster: OneNode) -> None:
    """The chart is installed, example pods exchange packets, the chart is uninstalled, and nothing of podvif is on the node."""
    plugins, configuration = cluster.machine.path("/opt/cni/bin"), cluster.machine.path("/etc/cni/net.d")
    before = {path.name for folder in (plugins, configuration) for path in folder.iterdir()}

    helm(cluster, "install", "podvif", str(CHART), "--create-namespace")
    cluster.kubectl("rollout", "status", "daemonset/podvif-node", f"--namespace={NAMESPACE}", "--timeout=60s")
    cluster.apply(EXAMPLES)
    cluster.wait_ready("sender", "receiver")
    wait_for_packets(cluster, "receiver")
    cluster.delete("sender", "receiver")
    helm(cluster, "uninstall", "podvif")
    cluster.kubectl("wait", "pods", "--all", "--for=delete", f"--namespace={NAMESPACE}", "--timeout=90s")

    def left() -> set[str]:
        names = {path.name for folder in (plugins, configuration) for path in folder.iterdir()} - before
        return names | {path.name for path in cluster.machine.path("/var/run/vhostuser").glob("*")}

    deadline = time.monotonic() + 20
    while left():
        assert time.monotonic() < deadline, left()
        wait_any([], 0.1)
