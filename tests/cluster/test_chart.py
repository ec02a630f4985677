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
from tests.cluster.conftest import PAGES
from tests.cluster.support import wait_for_packets

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
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


@pytest.fixture
def installed(cluster: OneNode) -> Iterator[None]:
    """The chart is installed; uninstalled, it leaves nothing of podvif on the node."""
    folders = [cluster.machine.path(path) for path in ("/opt/cni/bin", "/etc/cni/net.d")]
    own, shared = cluster.machine.path("/var/run/podvif/pods"), cluster.machine.path("/var/run/vhostuser")
    before = {path.name for folder in folders for path in folder.iterdir()}

    def left() -> set[str]:
        names = {path.name for folder in folders for path in folder.iterdir()} - before
        return names | {path.name for folder in (own, shared) for path in folder.glob("*")}

    helm(cluster, "install", "podvif", str(CHART), "--create-namespace")
    cluster.kubectl("rollout", "status", "daemonset/podvif-node", f"--namespace={NAMESPACE}", "--timeout=60s")
    yield
    helm(cluster, "uninstall", "podvif")
    cluster.kubectl("wait", "pods", "--all", "--for=delete", f"--namespace={NAMESPACE}", "--timeout=90s")
    deadline = time.monotonic() + 20
    while left():
        assert time.monotonic() < deadline, left()
        wait_any([], 0.1)


@pytest.mark.usefixtures("installed")
def test_shared_directory(cluster: OneNode) -> None:
    """Example pods that mount the shared directory exchange packets once the chart is installed."""
    cluster.apply(EXAMPLES / "multus.yaml")
    cluster.wait_ready("sender", "receiver")
    wait_for_packets(cluster, "receiver")
    cluster.delete("sender", "receiver")


@pytest.mark.usefixtures("installed")
def test_own_directories(cluster: OneNode) -> None:
    """Example pods that are not root, under PodSecurity "restricted", find each its own port alone and exchange packets, in client and server mode, before and after the chart was upgraded under them."""
    cluster.apply(EXAMPLES / "csi.yaml")
    cluster.kubectl("config", "set-context", "--current", "--namespace=dpdk")
    try:
        cluster.wait_ready("sender", "receiver")
        wait_for_packets(cluster, "receiver")
        for pod in ("sender", "receiver"):
            listed = cluster.execute(pod, "ls /var/run/vhostuser").split()
            assert len([name for name in listed if name.startswith("vhu")]) == 1
            assert {"interfaces.json", "vhostuser.env"} < set(listed)

        helm(cluster, "upgrade", "podvif", str(CHART), "--set", "config.node.resync_interval=31")
        cluster.kubectl("rollout", "status", "daemonset/podvif-node", f"--namespace={NAMESPACE}", "--timeout=60s")
        wait_for_packets(cluster, "receiver")
        cluster.delete("sender", "receiver")
    finally:
        cluster.kubectl("config", "set-context", "--current", "--namespace=default")
