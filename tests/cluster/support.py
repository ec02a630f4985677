"""Pods of the cluster tests, and what their applications say.

Law: a pod is written as a user writes it; its application finds its port by the spec's own commands.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from podvif.lab import image
from podvif.lab.node import SwitchedNode
from podvif.lab.onenode import OneNode
from podvif.lab.process import LabError, wait_any
from podvif.lab.testpmd import Screen

Document = dict[str, Any]

START = """\
CONTAINER_ID=`egrep -o '[a-f0-9]{64}/hostname' /proc/self/mountinfo | cut -c 1-64`
. $MOUNT_POINT/$CONTAINER_ID.env
exec stdbuf -oL dpdk-testpmd --lcores 0,1@0 --no-pci --in-memory --single-file-segments -m 128 \
    $VHOSTUSER_VDEVS -- --total-num-mbufs=8192 --stats-period=1 --forward-mode=$FORWARD $EXTRA
"""

START_IN_OWN = ". $MOUNT_POINT/vhostuser.env\n" + START[START.index("exec ") :]
"""How an application starts that has a directory of its own: no container id is needed."""

IDLE = "trap 'exit 0' TERM; while :; do sleep 1 & wait; done"


def nad(name: str = "dpdk", **keys: Any) -> Document:
    """A network for DPDK ports that podvif serves standalone."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}
    config = {"cniVersion": "1.0.0", "name": name, "type": "podvif-cni", "bridge": "br-dpdk", "ipam": addresses} | keys
    about = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
    return about | {"metadata": {"name": name}, "spec": {"config": json.dumps(config)}}


def pod(name: str, script: str, *, networks: str = "", sockets: bool = True, pages: int = 0, **env: str) -> Document:
    """A pod whose one container runs a shell script.

    Args:
        name: of the pod.
        script: what it runs.
        networks: the annotation that asks for additional interfaces.
        sockets: whether it mounts the directory of sockets.
        pages: hugepages of 2 MiB that it asks for.
        env: more variables of the script.
    """
    container: Document = {
        "name": "app",
        "image": image.APP,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": key, "value": value} for key, value in ({"MOUNT_POINT": "/var/run/vhostuser"} | env).items()],
        "resources": {"requests": {"cpu": "20m", "memory": "16Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [],
    }
    volumes: list[Document] = []
    if sockets:
        container["volumeMounts"].append({"name": "vhostuser", "mountPath": "/var/run/vhostuser"})
        volumes.append({"name": "vhostuser", "hostPath": {"path": "/var/run/vhostuser", "type": "Directory"}})
    if pages:
        container["resources"]["limits"] |= {"hugepages-2Mi": f"{2 * pages}Mi", "cpu": "500m"}
        container["resources"]["requests"]["hugepages-2Mi"] = f"{2 * pages}Mi"
        container["volumeMounts"].append({"name": "hugepages", "mountPath": "/dev/hugepages"})
        volumes.append({"name": "hugepages", "emptyDir": {"medium": "HugePages-2Mi"}})
    annotations = {"k8s.v1.cni.cncf.io/networks": networks} if networks else {}
    spec = {"dnsPolicy": "Default", "terminationGracePeriodSeconds": 5, "containers": [container], "volumes": volumes}
    about = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations}}
    return about | {"spec": spec}


def dpdk_pod(name: str, forward: str, networks: str = "", extra: str = "") -> Document:
    """A pod that runs dpdk-testpmd in this forward mode on all of its ports."""
    return pod(name, START, networks=networks, pages=64, FORWARD=forward, EXTRA=extra)


def with_own_directory(pod: Document) -> Document:
    """A DPDK pod that has a directory of its own, and not the one that it would share with others."""
    pod["spec"]["volumes"][0] = {"name": "vhostuser", "csi": {"driver": "csi.podvif.io"}}
    pod["spec"]["containers"][0]["command"][-1] = START_IN_OWN
    return pod


def deployment(pod: Document) -> Document:
    """A Deployment of the pod's name that makes one such pod, and another when that one is gone."""
    name, labels = pod["metadata"]["name"], {"app": pod["metadata"]["name"]}
    template = {"metadata": {"labels": labels, "annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def pod_of(cluster: OneNode, name: str) -> str:
    """The pod of a Deployment, when it is ready."""
    cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
    (pod,) = cluster.kubectl("get", "pods", f"--selector=app={name}", "--output=name").split()
    return pod.removeprefix("pod/")


def container_of(cluster: OneNode, name: str) -> str:
    """The id of a pod's container while that is ready, else nothing."""
    about = json.loads(cluster.kubectl("get", "pod", name, "--output=json"))
    (container,) = about["status"].get("containerStatuses") or [{}]
    return str(container["containerID"]) if container.get("ready") else ""


def wait_for_packets(cluster: OneNode, name: str, port: int = 0, timeout: float = 60.0) -> int:
    """Wait until a pod's testpmd has received packets on one of its ports since this began; how many it has.

    Raises:
        LabError: it had not; the message has its last lines.
    """
    screen, first, line, whole = Screen(), -1, "", False
    deadline = time.monotonic() + timeout
    with cluster.following(name) as log:
        while time.monotonic() < deadline and wait_any([log.stdout.fileno()], deadline - time.monotonic()):
            if not (text := _available(log.stdout.fileno())):
                break  # its container has ended
            *lines, line = (line + text.decode(errors="replace")).split("\n")
            for each in lines:
                whole = whole or "NIC statistics" in each  # what was printed before may be the half of another port's
                if whole and screen.feed(each.rstrip()) and port in screen.ports:
                    now = screen.ports[port].rx_packets
                    first = now if first < 0 else first
                    if now > first:
                        return now
    raise LabError(
        f"pod {name} ended, or received no packets on port {port} within {timeout:g} s; its last lines:\n"
        + cluster.kubectl("logs", name, "--tail=15")
    )


def _available(descriptor: int) -> bytes:
    return os.read(descriptor, 65536)


def wait_until_clean(node: SwitchedNode, timeout: float = 20.0) -> None:
    """Nothing of any pod is left on the node, now or soon: the runtime takes sandboxes away after their pods are gone."""
    wait_until_none(node.left, timeout)


def wait_until_none(look: Callable[[], Sequence[object]], timeout: float = 20.0) -> None:
    """What one looks for is not there, now or soon."""
    deadline = time.monotonic() + timeout
    while left := look():
        assert time.monotonic() < deadline, left
        wait_any([], 0.1)


def delete_all(cluster: OneNode) -> None:
    """Delete the pods of users, and what would make them again, whatever a test that failed has left."""
    for namespace in ("default", "dpdk"):
        there = ["--all", f"--namespace={namespace}", "--timeout=90s"]
        # A ReplicaSet that outlives its Deployment for a moment makes another pod of each that is deleted.
        cluster.kubectl("delete", "deployments", "--cascade=foreground", *there)
        cluster.kubectl("delete", "pods", "--grace-period=1", *there)


@contextlib.contextmanager
def in_namespace(cluster: OneNode, name: str) -> Iterator[None]:
    """In the block kubectl works in this namespace and not in `default`."""
    cluster.namespace = name
    try:
        yield
    finally:
        cluster.namespace = ""
