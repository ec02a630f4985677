"""A cluster whose network is podvif's, on a real Neutron with OVN: DPDK pods beside ordinary ones."""

import json

from podvif.lab.node import DpdkNode
from tests.cluster.support import IDLE, dpdk_pod, pod, wait_for_packets

SERVE = "mkdir -p /tmp/www && echo well >/tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"

ASK = 'exec 3<>/dev/tcp/{address}/8080; echo "GET /index.html HTTP/1.0" >&3; echo >&3; timeout 10 cat <&3'


def test_ordinary_pods(neutron: DpdkNode) -> None:
    """Ordinary pods have a kernel interface in the Neutron network: kubelet's HTTP probe and other pods reach them by TCP."""
    cluster = neutron.cluster
    server = pod("web", SERVE, sockets=False)
    probe = {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 2}
    server["spec"]["containers"][0]["readinessProbe"] = probe
    cluster.apply(server, pod("client", IDLE, sockets=False))
    cluster.wait_ready("web", "client")
    address = cluster.kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}")

    assert address.startswith("10.20.0.")
    assert cluster.execute("client", f"bash -c '{ASK.format(address=address)}'").endswith("well\n")

    cluster.delete("web", "client")
    assert not [port for port in neutron.switch.ports() if port.startswith(("tap", "vhu"))]


def test_dpdk_pods(neutron: DpdkNode) -> None:
    """DPDK pods have a vhost-user socket as their main port and exchange packets, found by the specification's own commands."""
    cluster = neutron.cluster
    cluster.apply(dpdk_pod("rx", "rxonly"))
    cluster.wait_ready("rx")
    find = "CONTAINER_ID=`egrep -o '[a-f0-9]{64}/hostname' /proc/self/mountinfo | cut -c 1-64`\n"
    listed = cluster.execute("rx", find + "ls $MOUNT_POINT/$CONTAINER_ID-eth*").split()
    document = json.loads(cluster.execute("rx", f"cat {listed[0]}"))
    assert document["mode"] == "server"

    cluster.apply(dpdk_pod("tx", "txonly", extra=f"--eth-peer=0,{document['vhostmac']}"))
    cluster.wait_ready("tx")
    wait_for_packets(cluster, "rx")

    cluster.delete("rx", "tx")
    assert not [port for port in neutron.switch.ports() if port.startswith(("tap", "vhu"))]
    assert not list(neutron.mount_point.iterdir())
