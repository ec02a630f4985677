"""A cluster with somebody else's main network, where podvif adds interfaces through Multus."""

import json
import re

import pytest

from podvif.lab.node import DpdkNode
from podvif.lab.process import cpus
from podvif.lab.standing import EXAMPLES
from tests.cluster.conftest import SPECS_PAGES
from tests.cluster.support import IDLE, dpdk_pod, nad, pod, wait_for_packets, wait_until_clean


def test_examples(multus: DpdkNode) -> None:
    """The example pods of the documentation exchange packets, and when they are deleted nothing of them is left."""
    cluster = multus.cluster
    cluster.apply(EXAMPLES)
    cluster.wait_ready("sender", "receiver")
    wait_for_packets(cluster, "receiver")

    about = json.loads(cluster.kubectl("get", "pod", "receiver", "-o", "json"))
    status = json.loads(about["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"])
    assert [each["interface"] for each in status] == ["eth0", "net1"]
    assert about["status"]["podIP"].startswith("10.78.0.")

    cluster.delete("sender", "receiver")
    wait_until_clean(multus)


@pytest.mark.parametrize("mode", ["server", "client"])
def test_modes(multus: DpdkNode, mode: str) -> None:
    """Pods exchange packets whoever of application and switch listens."""
    cluster = multus.cluster
    cluster.apply(nad(mode, vhostuserMode=mode))
    cluster.apply(dpdk_pod("rx", "rxonly", mode), dpdk_pod("tx", "txonly", mode))
    cluster.wait_ready("rx", "tx")
    wait_for_packets(cluster, "rx")

    cluster.delete("rx", "tx")
    wait_until_clean(multus)


SPECS_ID = """\
CONTAINER_ID=`egrep -o '[a-f0-9]{64}/hostname' /proc/self/mountinfo |\\
              cut -c 1-64`
"""
SPECS_LIST = "ls $MOUNT_POINT/$CONTAINER_ID-eth*"
SPECS_TESTPMD = """\
testpmd -d librte_pmd_virtio.so.17.11 -m 1024 -c 0xC --file-prefix=testpmd_ \\
        --vdev=net_virtio_user0,path=/$MOUNT_POINT/$VHU_PORT \\
        --no-pci -- --no-lsc-interrupt --auto-start --tx-first \\
        --stats-period 1 --disable-hw-vlan;
"""
"""The commands of the specification, as they stand there."""

CHANGED = (
    # DPDK 22.11 has other names for the program and for the driver, and distributions keep the drivers in a folder of their own.
    ("testpmd -d", "dpdk-testpmd -d"),
    ("librte_pmd_virtio.so.17.11", "/usr/lib/*/dpdk/pmds-*/librte_net_virtio.so.??"),
    # Testpmd has lost this option: it does without VLANs unless told otherwise (--enable-hw-vlan).
    (" --disable-hw-vlan", ""),
    # A vhost-user application shows 8 pieces of memory at the most ("Too many memory regions"): one page of 1 GiB is one, 512 of 2 MiB
    # are when they are in one file.
    ("--no-pci", "--no-pci --single-file-segments"),
    # The machine's first two CPUs.
    ("-c 0xC", f"-c {sum(1 << cpu for cpu in cpus()[:2]):#x}"),
)
"""What of the specification's testpmd, which is DPDK 17.11's, is otherwise here."""


def test_specs_commands(multus: DpdkNode) -> None:
    """The commands that the specification gives find, in a pod, the container id, the files and the socket's name, and its testpmd receives packets on that socket."""
    cluster = multus.cluster
    cluster.apply(nad("spec", vhostuserMode="client"))
    testpmd = SPECS_TESTPMD
    for theirs, ours in CHANGED:
        assert theirs in testpmd
        testpmd = testpmd.replace(theirs, ours)
    find = SPECS_ID + """VHU_PORT=`sed -n 's/.*"vhostname": *"\\([^"]*\\).*/\\1/p' $MOUNT_POINT/$CONTAINER_ID-eth1`\n"""
    # Multus calls what it adds net1 unless asked otherwise; the specification's ports are called eth*.
    networks = json.dumps([{"name": "spec", "interface": "eth1"}])
    cluster.apply(pod("spec", f"{find}exec stdbuf -oL {testpmd}", networks=networks, pages=SPECS_PAGES))
    cluster.apply(dpdk_pod("tx", "txonly", "spec"))
    cluster.wait_ready("spec", "tx")

    found = cluster.execute("spec", SPECS_ID + "echo $CONTAINER_ID").strip()
    listed = cluster.execute("spec", SPECS_ID + SPECS_LIST).split()
    document = json.loads(cluster.execute("spec", SPECS_ID + "cat $MOUNT_POINT/$CONTAINER_ID-eth1"))

    assert found == cluster.runtime.sandbox_of("default", "spec")
    assert listed == [f"/var/run/vhostuser/{found}-eth1"]
    assert document.keys() == {"vhostname", "vhostmac", "mode"}
    assert document["mode"] == "client"
    assert re.fullmatch(r"vhu[0-9a-f]{8}-[0-9a-f]{2}", document["vhostname"])
    assert cluster.execute("spec", f"test -S $MOUNT_POINT/{document['vhostname']} && echo socket").strip() == "socket"
    wait_for_packets(cluster, "spec")

    cluster.delete("spec", "tx")
    wait_until_clean(multus)


def test_container_restarts(multus: DpdkNode) -> None:
    """An application that is killed comes back in the same sandbox, on the same port, and receives packets again."""
    cluster = multus.cluster
    cluster.apply(nad())
    cluster.apply(dpdk_pod("rx", "rxonly", "dpdk"), dpdk_pod("tx", "txonly", "dpdk"))
    cluster.wait_ready("rx", "tx")
    wait_for_packets(cluster, "rx")
    ports, sandbox = multus.switch.ports(), cluster.runtime.sandbox_of("default", "rx")

    about = json.loads(cluster.kubectl("get", "pod", "rx", "-o", "json"))["status"]["containerStatuses"][0]
    cluster.runtime.ctr("tasks", "kill", "--signal", "SIGKILL", about["containerID"].rpartition("/")[2])
    restarted = "jsonpath={.status.containerStatuses[0].restartCount}=1"
    cluster.kubectl("wait", "pod/rx", f"--for={restarted}", "--timeout=60s")
    cluster.wait_ready("rx")
    wait_for_packets(cluster, "rx")

    assert multus.switch.ports() == ports
    assert cluster.runtime.sandbox_of("default", "rx") == sandbox
    cluster.delete("rx", "tx")
    wait_until_clean(multus)


def test_kubelet_restarts(multus: DpdkNode) -> None:
    """A pod's port stays when kubelet is stopped and started again, and goes with the pod afterwards."""
    cluster = multus.cluster
    cluster.apply(nad())
    cluster.apply(pod("stays", IDLE, networks="dpdk"))
    cluster.wait_ready("stays")
    ports, sandbox = multus.switch.ports(), cluster.runtime.sandbox_of("default", "stays")

    cluster.kubelet.stop()
    cluster.kubelet.start()
    cluster.apply(pod("later", IDLE, networks="dpdk"))
    cluster.wait_ready("later")

    assert set(ports) <= set(multus.switch.ports())
    assert cluster.runtime.sandbox_of("default", "stays") == sandbox
    cluster.delete("stays", "later")
    wait_until_clean(multus)


def test_many_at_once(multus: DpdkNode) -> None:
    """Thirty pods that are created at once are all attached, each with a port and a socket of its own, and leave nothing."""
    cluster = multus.cluster
    cluster.apply(nad("many", vhostuserMode="client"))
    names = [f"many-{number}" for number in range(30)]
    items = [pod(name, IDLE, networks="many") for name in names]
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.wait_ready(*names, timeout=180)

    sockets = [path for path in multus.mount_point.iterdir() if path.is_socket()]
    assert len(multus.switch.ports()) == len(sockets) == 30

    cluster.delete(*names, timeout=180)
    wait_until_clean(multus)
