"""The chart's profile neutron on a real cluster that has no other network, on a real Neutron with OVN.

Law: podvif comes by the chart alone, with the values of docs/examples and what is this cluster's own.  What is believed of a port,
Neutron says itself.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from podvif.lab.hugepages import hugepages
from podvif.lab.machine import Machine
from podvif.lab.neutron import Mechanism, PrivateNeutron, look_for_all
from podvif.lab.onenode import OneNode
from podvif.lab.process import LabError, wait_any
from tests.cluster.chart import EXAMPLES, NAMESPACE, files, helm, install, uninstall, upgrade, wait_until_only
from tests.cluster.conftest import PAGES
from tests.cluster.support import IDLE, delete_all, dpdk_pod, in_namespace, pod, wait_for_packets, wait_until_none

SERVE = "mkdir -p /tmp/www && echo well >/tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"

ASK = 'exec 3<>/dev/tcp/{address}/8080; echo "GET /index.html HTTP/1.0" >&3; echo >&3; timeout 10 cat <&3'

TO_ALL = "--eth-peer=0,ff:ff:ff:ff:ff:ff --eth-peer=1,ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True)
class World:
    """A cluster and its cloud.

    Attributes:
        cluster: its one node has no network for pods but what podvif makes of Neutron's.
        cloud: Neutron.
        more: UUID of a subnet beside the pods' own.
    """

    cluster: OneNode
    cloud: PrivateNeutron
    more: str

    @property
    def values(self) -> list[str]:
        """The chart's values, as options of helm's."""
        here = f"apiServer.host={self.cluster.machine.address},apiServer.port={self.cluster.plane.port}"
        networks = [{"name": "more", "namespace": "default", "kuryr": {"subnetId": self.more}}]
        return [
            f"--values={EXAMPLES / 'values-neutron.yaml'}",
            f"--set={here}",
            f"--set-json=networks={json.dumps(networks)}",
        ]

    def ports(self, **of: str) -> list[dict[str, Any]]:
        """Neutron's ports of pods."""
        query = "&".join(f"{name}={value}" for name, value in {"device_owner": "compute:kuryr", **of}.items())
        return list(self.cloud.ask("GET", f"/ports?{query}")["ports"])

    def left(self) -> list[str]:
        """What there is of pods in Neutron, in Open vSwitch and in the cluster, each as a short text."""
        devices = [name for name in self.cloud.ovs.interfaces() if name.startswith(("vhu", "tap"))]
        podvifs = self.cluster.kubectl("get", "podvifs", "--all-namespaces", "--output=name").split()
        return [*podvifs, *devices, *(f"Neutron port {port['id']}" for port in self.ports())]


@pytest.fixture(scope="module")
def world(podvif_images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A cluster whose node is not ready, since it has no network; podvif's images and the account for Neutron are there."""
    try:
        look_for_all(Mechanism.OVN)
    except LabError as error:
        pytest.fail(str(error), pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("n")
    with (
        hugepages(PAGES),
        Machine(folder) as machine,
        PrivateNeutron(folder / "neutron", machine=machine) as cloud,
        OneNode(folder, network=None, node=cloud.host, machine=machine) as cluster,
    ):
        network, subnet = cloud.network("10.20.0.0/24", name="pods")
        connect_node(machine, cloud, network, subnet)
        cluster.runtime.import_images(podvif_images.values())
        cluster.kubectl("create", "namespace", NAMESPACE)
        account = f"--from-literal=clouds.yaml={json.dumps(clouds(cloud))}"  # JSON is YAML
        cluster.kubectl("create", "secret", "generic", "podvif-neutron", f"--namespace={NAMESPACE}", account)
        why = "{.status.conditions[?(@.type=='Ready')].message}"
        cluster.kubectl("wait", f"node/{cloud.host}", "--for=condition=Ready=False", "--timeout=60s")
        assert "cni plugin not initialized" in cluster.kubectl("get", "node", cloud.host, f"--output=jsonpath={why}")
        yield World(cluster, cloud, cloud.network("10.21.0.0/24", name="more")[1])
        cloud.ovs.vsctl("del-port", "pods0")


def clouds(cloud: PrivateNeutron) -> dict[str, Any]:
    """A clouds.yaml."""
    options = cloud.options()
    auth = {name: options[name] for name in ("endpoint", "username", "password")}
    about = {"auth_type": options["auth_type"], "auth": auth, "network_endpoint_override": options["endpoint_override"]}
    return {"clouds": {"dpdk": about}}


def connect_node(machine: Machine, cloud: PrivateNeutron, network: str, subnet: str) -> None:
    """Give the node a device in the pods' network, as whoever makes Neutron the network of a cluster has to: for probes."""
    address = {"subnet_id": subnet, "ip_address": "10.20.0.254"}
    port = cloud.create("port", network_id=network, fixed_ips=[address], **{"binding:host_id": cloud.host})
    ids = [f"external_ids:iface-id={port['id']}", "external_ids:iface-status=active"]
    mac = [f'mac="{port["mac_address"]}"', f'external_ids:attached-mac="{port["mac_address"]}"']
    cloud.ovs.vsctl("add-port", "br-int", "pods0", "--", "set", "Interface", "pods0", "type=internal", *ids, *mac)
    machine.run("ip", "address", "add", f"{address['ip_address']}/24", "dev", "pods0")
    machine.run("ip", "link", "set", "pods0", "up")


@pytest.fixture(scope="module")
def installed(world: World) -> Iterator[World]:
    """The chart is installed, and the node ready; uninstalled, it leaves nothing on the node, in Neutron or of PodVifs."""
    cluster = world.cluster
    before = files(cluster.machine)
    install(cluster, *world.values)
    cluster.wait_for_node()
    helm(cluster, "test", "podvif", "--timeout=60s")
    yield world
    wait_until_none(world.left)
    uninstall(cluster)
    wait_until_only(cluster.machine, before)


@pytest.fixture(autouse=True)
def pods_go(installed: World) -> Iterator[None]:
    """No test has pods of another that failed."""
    yield
    delete_all(installed.cluster)


def test_ordinary_pods(installed: World) -> None:
    """Ordinary pods have a kernel interface in the Neutron network: kubelet's HTTP probe and other pods reach them by TCP."""
    cluster = installed.cluster
    server = pod("web", SERVE, sockets=False)
    probe = {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 2}
    server["spec"]["containers"][0]["readinessProbe"] = probe
    cluster.apply(server, pod("client", IDLE, sockets=False))
    cluster.wait_ready("web", "client")
    address = cluster.kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}")

    assert address.startswith("10.20.0.")
    assert cluster.execute("client", f"bash -c '{ASK.format(address=address)}'").endswith("well\n")

    cluster.delete("web", "client")
    wait_until_none(installed.left)


def test_dpdk_pods(installed: World) -> None:
    """Example pods that are not root, under PodSecurity "restricted", exchange packets on their main interface in Neutron's mode, before and after the chart was upgraded under them; then nothing of them is left."""
    cluster = installed.cluster
    cluster.apply(EXAMPLES / "neutron.yaml")
    with in_namespace(cluster, "dpdk"):
        cluster.wait_ready("sender", "receiver")
        wait_for_packets(cluster, "receiver")
        (eth0,) = json.loads(cluster.execute("receiver", "cat /var/run/vhostuser/interfaces.json"))["interfaces"]
        (port,) = installed.ports(mac_address=eth0["mac"])
        assert (eth0["mode"], port["binding:vif_type"], port["status"]) == ("server", "vhostuser", "ACTIVE")

        upgrade(cluster, "--set", "config.node.resync_interval=31,config.controller.resync_interval=31")
        wait_for_packets(cluster, "receiver")
        cluster.delete("sender", "receiver")
    wait_until_none(installed.left)


def test_additional_interfaces(installed: World) -> None:
    """Pods that name a NetworkAttachmentDefinition of the chart's have a second port, in its subnet, and packets on both; they find them by the specification's own commands."""
    cluster = installed.cluster
    cluster.apply(dpdk_pod("rx", "rxonly", networks="more"), dpdk_pod("tx", "txonly", networks="more", extra=TO_ALL))
    cluster.wait_ready("rx", "tx")
    wait_for_packets(cluster, "rx")
    wait_for_packets(cluster, "rx", port=1)

    document = json.loads(cluster.kubectl("get", "pod", "rx", "--output=json"))
    status = json.loads(document["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"])
    assert [network["ips"][0].rpartition(".")[0] for network in status] == ["10.20.0", "10.21.0"]

    cluster.delete("rx", "tx")
    wait_until_none(installed.left)
    assert not list(cluster.machine.path("/run/vhostuser").iterdir())


def test_leader_is_killed(installed: World) -> None:
    """When the controller that leads is killed another one takes over, and a new pod gets its port."""
    cluster = installed.cluster
    # Where a node has to bear both of them they can have no port, and so no probe.
    options = {"metrics_bind": "", "lease_duration": 5, "lease_renew_deadline": 3, "lease_retry_period": 0.5}
    upgrade(cluster, "--set=controller.replicas=2", f"--set-json=config.controller={json.dumps(options)}")
    former, killed = leader(cluster)
    uid = cluster.kubectl("get", f"pod/{killed}", f"--namespace={NAMESPACE}", "--output=jsonpath={.metadata.uid}")
    os.kill(process_of(uid), signal.SIGKILL)

    cluster.apply(pod("after", IDLE, sockets=False))
    cluster.wait_ready("after")

    assert leader(cluster)[0] != former
    assert len(installed.ports()) == 1
    cluster.delete("after")
    wait_until_none(installed.left)


def test_uninstalled_too_early(installed: World) -> None:
    """Pods that stand when the chart is uninstalled go on exchanging packets but cannot be deleted, and go with all that is their own when the chart is installed again."""
    cluster = installed.cluster
    cluster.apply(EXAMPLES / "neutron.yaml")
    with in_namespace(cluster, "dpdk"):
        cluster.wait_ready("sender", "receiver")
        uninstall(cluster)
        wait_for_packets(cluster, "receiver")
        cluster.kubectl("delete", "pod/receiver", "--grace-period=1", "--wait=false")
        failed = "--field-selector=reason=FailedKillPod,involvedObject.name=receiver"
        wait_until_none(lambda: [] if cluster.kubectl("get", "events", failed, "--output=name") else ["no event"], 60)
        assert len(installed.left()) == 6, "both have a PodVif, an OVS port and a Neutron port"

        install(cluster, *installed.values)
        cluster.kubectl("wait", "pod/receiver", "--for=delete", "--timeout=90s")
        cluster.delete("sender")
    wait_until_none(installed.left)


def leader(cluster: OneNode) -> tuple[str, str]:
    """Who leads, now or soon, as the Lease has it, and whose pod that is; a pod that was killed comes back as another."""
    there = f"--namespace={NAMESPACE}"
    deadline = time.monotonic() + 30
    while True:
        holder = cluster.kubectl("get", "lease/podvif-controller", there, "--output=jsonpath={.spec.holderIdentity}")
        name = holder.partition("_")[0]
        pods = [pod["metadata"] for pod in json.loads(cluster.kubectl("get", "pods", there, "--output=json"))["items"]]
        if name in {pod["name"] for pod in pods if "deletionTimestamp" not in pod}:
            return holder, name
        assert time.monotonic() < deadline, f"the Lease names {holder}"
        wait_any([], 0.1)


def process_of(uid: str) -> int:
    """The process of the controller in a pod's control group."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"pod{uid}" in (folder / "cgroup").read_text() and b"controller" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:  # it ended while we looked
            continue
    raise LabError(f"there is no process of the pod {uid}")
