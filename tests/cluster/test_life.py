"""The life of a node that has podvif by its chart: upgrades under traffic, plugins of other versions, a drain, a power failure.

Law: each test leaves the node without a pod of its own and with podvif; the last ones fell the node.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hatch_build import build_shim

from podvif.lab.cluster import conditions_of
from podvif.lab.hugepages import hugepages
from podvif.lab.node import OWN_DIRECTORIES, SwitchedNode, switch_of
from podvif.lab.onenode import OneNode, bridge, why_not_here
from podvif.lab.process import wait_any
from tests.cluster.chart import EXAMPLES, NAMESPACE, ROOT, install, reset, uninstall, upgrade
from tests.cluster.conftest import PAGES
from tests.cluster.support import (
    IDLE,
    container_of,
    delete_all,
    deployment,
    dpdk_pod,
    in_namespace,
    nad,
    pod,
    pod_of,
    wait_for_packets,
    wait_until_clean,
    wait_until_none,
    with_own_directory,
)

SOON = 60.0
"""Seconds after which something that should come by itself counts as not coming."""

NOWHERE, SOMEWHERE = "node.nodeSelector.nowhere=here", "node.nodeSelector.nowhere=null"
"""A value of the chart that leaves no node for the daemon, and the one that takes that back."""


@pytest.fixture(scope="module")
def installed(podvif_images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwitchedNode]:
    """A cluster with containerd 2, Multus and Open vSwitch, whose node has podvif by the chart."""
    if reason := why_not_here(2):
        pytest.skip(reason)
    with (
        hugepages(PAGES),
        OneNode(tmp_path_factory.mktemp("l"), network=bridge(), multus=True, containerd=2) as cluster,
        switch_of(cluster.machine) as switch,
    ):
        cluster.runtime.import_images([podvif_images["node"]])
        install(cluster)
        cluster.apply(nad("server", vhostuserMode="server"), nad("client", vhostuserMode="client"))
        yield SwitchedNode(cluster, switch)
        uninstall(cluster)


@pytest.fixture
def node(installed: SwitchedNode) -> Iterator[SwitchedNode]:
    """The node; after each test it has podvif, its pods are deleted, and they have left nothing there."""
    yield installed
    cluster = installed.cluster
    cluster.kubectl("uncordon", cluster.node)
    reset(cluster)
    delete_all(cluster)
    wait_until_clean(installed)


@pytest.fixture
def pair(node: SwitchedNode) -> None:
    """Deployments `receiver` and `sender` of pods that exchange packets, in both modes."""
    cluster = node.cluster
    for name, forward, mode in (("receiver", "rxonly", "server"), ("sender", "txonly", "client")):
        cluster.apply(deployment(with_own_directory(dpdk_pod(name, forward, networks=mode))))
    wait_for_packets(cluster, pod_of(cluster, "receiver"))


def take_daemon_away(cluster: OneNode) -> None:
    """Upgrade the chart to have no node: its DaemonSet stays, and so does what it has installed."""
    upgrade(cluster, "--set", NOWHERE)
    cluster.kubectl("wait", "pods", "--all", "--for=delete", f"--namespace={NAMESPACE}", "--timeout=90s")


# -- upgrades ------------------------------------------------------------------------------------------------------------


def test_packets_during_an_upgrade(node: SwitchedNode) -> None:
    """Packets go on in both modes, between pods that are not root, under "restricted", while the chart is upgraded and while no daemon runs: no link, OVS port, socket or container is touched."""
    cluster = node.cluster
    cluster.apply(EXAMPLES / "csi.yaml")
    with in_namespace(cluster, "dpdk"):
        cluster.wait_ready("sender", "receiver")
        received = [wait_for_packets(cluster, "receiver")]
        before = what_carries_packets(node, "sender", "receiver")

        upgrade(cluster, "--set", "config.node.resync_interval=31")
        received.append(wait_for_packets(cluster, "receiver"))
        take_daemon_away(cluster)
        received.append(wait_for_packets(cluster, "receiver"))
        upgrade(cluster, "--set", SOMEWHERE)
        received.append(wait_for_packets(cluster, "receiver"))

        assert what_carries_packets(node, "sender", "receiver") == before
        assert received == sorted(set(received))
        cluster.delete("sender", "receiver")
    assert set(connections(node)) > set(before["connections"])  # they would have been noticed


def what_carries_packets(node: SwitchedNode, *pods: str) -> dict[str, Any]:
    """What packets between pods go through, so that each thing has a new value when it was made again."""
    ports = {port: node.switch.vsctl("get", "Interface", port, "_uuid", "ofport") for port in node.switch.ports()}
    sockets = {str(path): path.stat().st_ino for path in node.machine.path(OWN_DIRECTORIES).glob("*/vhu*")}
    containers = {name: container_of(node.cluster, name) for name in pods}
    assert len(ports) == len(sockets) == len(containers)
    return {"ports": ports, "sockets": sockets, "containers": containers, "connections": connections(node)}


def connections(node: SwitchedNode) -> list[str]:
    """What vswitchd has said of applications that were connected to a port, and of such as were not any more."""
    log = (node.switch.rundir / "ovs-vswitchd.log").read_text()
    return [line for line in log.splitlines() if "vHost Device" in line]


def test_plugins_of_other_versions(node: SwitchedNode, tmp_path: Path) -> None:
    """A plugin that calls itself older than the daemon and one that calls itself newer attach pods, and each removes what the other has attached; doctor names the one that is not the daemon's."""
    cluster, plugins = node.cluster, {}
    for version in ("0.0.1", "0.99.0"):
        folder = tmp_path / version
        folder.mkdir()
        plugins[version] = folder / "podvif-cni"
        build_shim(ROOT, version, plugins[version])
    ours = cluster.machine.path("/opt/cni/bin/podvif-cni").read_bytes()

    for version, name in (("0.0.1", "older"), ("0.99.0", "newer")):
        cluster.install_plugin(plugins[version])
        cluster.apply(pod(name, IDLE, networks="client"))
        cluster.wait_ready(name)
        assert f"podvif-cni is {version}" in doctor(cluster)["CNI plugin"]
    cluster.delete("older")
    cluster.install_plugin(plugins["0.0.1"])
    cluster.delete("newer")
    wait_until_clean(node)

    (tmp_path / "podvif-cni").write_bytes(ours)
    (tmp_path / "podvif-cni").chmod(0o755)
    cluster.install_plugin(tmp_path / "podvif-cni")
    cluster.apply(pod("ours", IDLE, networks="client"))
    cluster.wait_ready("ours")
    assert "podvif-cni, version" in doctor(cluster)["CNI plugin"]


def doctor(cluster: OneNode) -> dict[str, str]:
    """What `podvif doctor` says on the node: the reason of each check by its name."""
    command = ["podvif", "doctor", "--config-file=/etc/podvif/kuryr.conf", "--output=json"]
    where = ["daemonset/podvif-node", f"--namespace={NAMESPACE}", "--container=node"]
    found = json.loads(cluster.kubectl("exec", *where, "--", *command))
    return {check["name"]: check["reason"] for check in found["checks"]}


def test_pods_during_an_upgrade(node: SwitchedNode, tmp_path: Path) -> None:
    """Pods that are created while no daemon answers, and beside the upgrade that brings it back with another plugin, all come up."""
    cluster = node.cluster
    plugin = cluster.machine.path("/opt/cni/bin/podvif-cni")
    ours = plugin.read_bytes()
    build_shim(ROOT, "0.0.1", tmp_path / "podvif-cni")
    cluster.install_plugin(tmp_path / "podvif-cni")
    names = [f"early-{number}" for number in range(5)], [f"late-{number}" for number in range(5)]

    take_daemon_away(cluster)
    assert plugin.read_bytes() != ours
    create(cluster, names[0])
    wait_for_failure(cluster)
    with ThreadPoolExecutor() as pool:
        upgraded = pool.submit(upgrade, cluster, "--set", SOMEWHERE)
        create(cluster, names[1])
        upgraded.result()
    cluster.wait_ready(*names[0], *names[1], timeout=2 * SOON)

    wait_until_none(lambda: [] if plugin.read_bytes() == ours else [f"{plugin} is another's"])
    assert len(node.switch.ports()) == len(names[0] + names[1])


def create(cluster: OneNode, names: list[str]) -> None:
    """Create pods with a port, at once."""
    pods = [pod(name, IDLE, networks="client") for name in names]
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": pods})


def wait_for_failure(cluster: OneNode) -> None:
    """Wait until the runtime has failed to make the sandbox of an early pod because of podvif."""
    deadline = time.monotonic() + SOON
    which = "--field-selector=reason=FailedCreatePodSandBox,involvedObject.name=early-0"
    while "podvif daemon at" not in cluster.kubectl("get", "events", which):
        assert time.monotonic() < deadline, "every sandbox was made, or none was tried"
        wait_any([], 0.5)


# -- the node goes and comes ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pair")
def test_drain(node: SwitchedNode) -> None:
    """A drain leaves nothing of any DPDK pod on the node, and podvif; uncordoned, it has the Deployments' pods again, with packets."""
    cluster = node.cluster
    cluster.apply(pod("single", IDLE, networks="client"))
    cluster.wait_ready("single")
    daemon = daemons(cluster)

    cluster.kubectl("drain", cluster.node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s")
    wait_until_clean(node)
    assert cluster.kubectl("get", "pods", "--field-selector=spec.nodeName=" + cluster.node, "--output=name") == ""
    assert daemons(cluster) == daemon

    cluster.kubectl("uncordon", cluster.node)
    pod_of(cluster, "sender")
    wait_for_packets(cluster, pod_of(cluster, "receiver"))


def daemons(cluster: OneNode) -> set[tuple[str, bool]]:
    """The DaemonSet's pods, and whether they are ready."""
    found = json.loads(cluster.kubectl("get", "pods", f"--namespace={NAMESPACE}", "--output=json"))["items"]
    return {(each["metadata"]["uid"], conditions_of(each)["Ready"] == "True") for each in found}


@pytest.mark.parametrize("first", ["switch", "kubelet"])
@pytest.mark.usefixtures("pair")
def test_power_failure(node: SwitchedNode, first: str) -> None:
    """After a power failure the pods of before come up with packets, each with a new sandbox and one port, and nothing of the former sandboxes is left, whoever starts first: Open vSwitch, or kubelet and with it podvif."""
    cluster = node.cluster
    cluster.apply(pod("shared", IDLE, networks="client"))
    cluster.wait_ready("shared")
    pods = ["shared", pod_of(cluster, "sender"), pod_of(cluster, "receiver")]
    containers = {name: container_of(cluster, name) for name in pods}
    sandboxes = {cluster.runtime.sandbox_of("default", name) for name in pods}
    standing = kinds(node.left())
    assert owners(node) == sandboxes

    node.lose_power()
    if first == "switch":
        node.start_switch()
        node.start_kubelet()
    else:
        node.start_kubelet()
        socket = node.machine.path("/run/podvif/cni.sock")
        wait_until_none(lambda: [] if socket.exists() else [f"there is no {socket}"], SOON)
        node.start_switch()
    for name, former in containers.items():
        wait_for_another_container(cluster, name, former)
    wait_for_packets(cluster, pods[-1])

    now = {cluster.runtime.sandbox_of("default", name) for name in pods}
    assert not now & sandboxes
    deadline = time.monotonic() + SOON
    while owners(node) != now or kinds(node.left()) != standing or any(old in str(node.left()) for old in sandboxes):
        assert time.monotonic() < deadline, (sandboxes, now, node.left())
        wait_any([], 0.2)


def owners(node: SwitchedNode) -> set[str]:
    """The sandboxes that have an OVS port."""
    ids = [row["external_ids"] or {} for row in node.switch.interfaces().values()]
    return {each["podvif-container-id"] for each in ids if "podvif-container-id" in each}


def kinds(left: list[str]) -> Counter[str]:
    """How many of each kind of thing stand on the node."""
    return Counter(text.rpartition(" ")[0] for text in left)


def wait_for_another_container(cluster: OneNode, name: str, former: str) -> None:
    """Wait until a pod's container is ready and not the former one: before kubelet has looked, a pod is what it was."""
    deadline = time.monotonic() + 2 * SOON
    while container_of(cluster, name) in {"", former}:
        assert time.monotonic() < deadline, cluster.kubectl("describe", "pod", name)[-6000:]
        wait_any([], 0.5)
