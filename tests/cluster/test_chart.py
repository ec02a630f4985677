"""The Helm chart on a real cluster: what an administrator does, and what is left when it was undone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from podvif.lab.hugepages import hugepages
from podvif.lab.node import switch_of
from podvif.lab.onenode import OneNode, bridge
from tests.cluster.chart import EXAMPLES, files, install, uninstall, upgrade, wait_until_only
from tests.cluster.conftest import PAGES
from tests.cluster.support import delete_all, dpdk_pod, in_namespace, nad, wait_for_packets, with_own_directory


@pytest.fixture(scope="module")
def cluster(podvif_images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """A cluster with Multus and Open vSwitch, podvif's image, and no podvif."""
    folder = tmp_path_factory.mktemp("h")
    with hugepages(PAGES), OneNode(folder, network=bridge(), multus=True) as cluster, switch_of(cluster.machine):
        cluster.runtime.import_images([podvif_images["node"]])
        yield cluster


@pytest.fixture
def installed(cluster: OneNode) -> Iterator[None]:
    """The chart is installed; uninstalled, it leaves nothing of podvif on the node."""
    before = files(cluster.machine)
    install(cluster)
    yield
    delete_all(cluster)
    uninstall(cluster)
    wait_until_only(cluster.machine, before)


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
    with in_namespace(cluster, "dpdk"):
        cluster.wait_ready("sender", "receiver")
        wait_for_packets(cluster, "receiver")
        for pod in ("sender", "receiver"):
            listed = cluster.execute(pod, "ls /var/run/vhostuser").split()
            assert len([name for name in listed if name.startswith("vhu")]) == 1
            assert {"interfaces.json", "vhostuser.env"} < set(listed)

        upgrade(cluster, "--set", "config.node.resync_interval=31")
        wait_for_packets(cluster, "receiver")
        cluster.delete("sender", "receiver")


@pytest.mark.usefixtures("installed")
def test_pods_are_apart(cluster: OneNode) -> None:
    """A pod that is root in its container, and knows where the node has another's socket, cannot list, read, replace, link to or delete anything there."""
    cluster.apply(nad())
    pods = {
        name: dpdk_pod(name, forward, networks="dpdk") for name, forward in (("victim", "rxonly"), ("thief", "txonly"))
    }
    cluster.apply(*map(with_own_directory, pods.values()))
    cluster.wait_ready(*pods)
    wait_for_packets(cluster, "victim")  # its application has made the socket by then
    uid = cluster.kubectl("get", "pod", "victim", "-o", "jsonpath={.metadata.uid}")
    before = listing(cluster, uid)
    (socket,) = (name for name in before if name.startswith("vhu"))

    assert cluster.execute("thief", "id -u").strip() == "0"
    for run in ("/run", "/var/run", "/var/run/vhostuser/../..", "/proc/1/root/run"):
        there = f"{run}/podvif/pods/{uid}"
        for attempt in (
            f"ls {there}",
            f"cat {there}/vhostuser.env",
            f"echo > {there}/{socket}",
            f"rm {there}/{socket}",
            f"ln {there}/{socket} /tmp/x",
        ):
            assert (
                cluster.execute("thief", f"if {attempt}; then echo done; else echo refused; fi 2>&1").split()[-1]
                == "refused"
            ), attempt
    assert cluster.execute("thief", "ls /var/run/vhostuser | grep -c ^vhu").strip() == "1"
    assert listing(cluster, uid) == before
    wait_for_packets(cluster, "victim")
    cluster.delete(*pods)


def listing(cluster: OneNode, uid: str) -> dict[str, int]:
    """What lies in a pod's own directory on the node, with inodes."""
    return {path.name: path.lstat().st_ino for path in cluster.machine.path(f"/var/run/podvif/pods/{uid}").iterdir()}
