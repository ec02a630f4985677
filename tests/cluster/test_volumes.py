"""Pods with directories of their own, by the cluster's own kubelet, without the chart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from podvif import names
from podvif.lab.hugepages import hugepages
from podvif.lab.node import DpdkNode, podvif_on, switch_of
from podvif.lab.onenode import OneNode, bridge
from tests.cluster.conftest import PAGES
from tests.cluster.support import IDLE, START_IN_OWN, dpdk_pod, nad, pod, wait_for_packets, wait_until_clean

KUBELET = "/var/lib/kubelet"
CSI = {"endpoint": f"{KUBELET}/plugins/{names.CSI_DRIVER}/csi.sock", "registration_dir": f"{KUBELET}/plugins_registry"}
DRIVER = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "CSIDriver",
    "metadata": {"name": names.CSI_DRIVER},
    "spec": {
        "attachRequired": False,
        "podInfoOnMount": True,
        "volumeLifecycleModes": ["Ephemeral"],
        "fsGroupPolicy": "None",
    },
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DpdkNode]:
    """A cluster with Multus whose kubelet has podvif's driver."""
    with (
        hugepages(PAGES),
        OneNode(tmp_path_factory.mktemp("v"), network=bridge(), multus=True) as cluster,
        switch_of(cluster.machine) as switch,
    ):
        cluster.apply(DRIVER)
        with podvif_on(cluster, switch, {"csi": CSI}) as node:
            yield node
            cluster.delete_pods()


@pytest.mark.parametrize("mode", ["server", "client"])
def test_user(node: DpdkNode, mode: str) -> None:
    """Pods that are neither root nor of a group exchange packets when they say their user; one that does not is kept out."""
    cluster, user = node.cluster, 61001
    cluster.apply(nad(mode, vhostuserMode=mode))
    volume = {"driver": names.CSI_DRIVER}
    said = volume | {"volumeAttributes": {"user": str(user)}}
    pods = {name: dpdk_pod(name, forward, mode) for name, forward in (("rx", "rxonly"), ("tx", "txonly"))}
    pods["silent"] = pod("silent", IDLE)
    for name, document in pods.items():
        spec = document["spec"]
        spec["securityContext"] = {"runAsUser": user, "runAsGroup": user}
        spec["volumes"][0] = {"name": "vhostuser", "csi": volume if name == "silent" else said}
        if name != "silent":
            spec["containers"][0]["command"][-1] = START_IN_OWN
        cluster.apply(document)
    cluster.wait_ready(*pods)
    wait_for_packets(cluster, "rx")

    look = "id -u; ls /var/run/vhostuser >/dev/null 2>&1 && echo seen || echo refused"
    found = {name: cluster.execute(name, look).split() for name in pods}
    assert found == {name: [str(user), "refused" if name == "silent" else "seen"] for name in pods}

    cluster.delete(*pods)
    wait_until_clean(node)
    assert list(Path(node.machine.path("/var/run/podvif/pods")).iterdir()) == []
