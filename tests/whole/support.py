"""A cluster with one node, all of it real; what a user, a scheduler and kubelet do on it; and what is left.

Law: the daemon runs in vswitchd's network namespace, as on a node, and reaches the API server by a way through that wall.
"""

import asyncio
import contextlib
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podvif.host import netns
from podvif.lab import leftovers, programs
from podvif.lab import ovs as lab_ovs
from podvif.lab import testpmd as lab_testpmd
from podvif.lab.cluster import Cluster
from podvif.lab.controller import Controller
from podvif.lab.daemon import NodeDaemon
from podvif.lab.kube import KubeApi
from podvif.lab.neutron import PrivateNeutron
from podvif.lab.pod import Pod, pod
from podvif.lab.process import output
from podvif.lab.sandbox import Sandbox
from tests.kube.way import Way

PAGES = lab_ovs.PAGES + 2 * (lab_testpmd.PAGES + 2 * lab_ovs.PAGES_PER_PORT)
"""Hugepages for the switch and two applications with two ports each."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Running:
    """A pod that has its interfaces.

    Attributes:
        name: the pod's object.
        pod: its sandbox.
        podvif: as it was when the ports were bound.
    """

    name: str
    pod: Pod
    podvif: Document

    def interface(self, name: str = "eth0") -> Document:
        """What the PodVif says of an interface."""
        found = self.podvif["status"]["interfaces"]
        return next(each for each in found if each["name"] == name)

    @property
    def result(self) -> Document:
        """The answer of ADD."""
        return self.pod.added.document or {}


@dataclass(frozen=True)
class Whole:
    """One node of a cluster, with a Neutron.

    Attributes:
        cluster: a namespace of the API server.
        neutron: the Neutron, with its switch.
        daemon: podvif node.
    """

    cluster: Cluster
    neutron: PrivateNeutron
    daemon: NodeDaemon

    @property
    def network(self) -> Document:
        """What the runtime has of the cluster network."""
        about = {"cniVersion": "1.1.0", "name": "podvif", "type": "podvif-cni"}
        return about | {"daemonSocket": str(self.daemon.socket)}

    @contextlib.contextmanager
    def pod(self, name: str, *, sockets: bool = True, networks: str = "") -> Iterator[Running]:
        """A pod from its creation until nothing of it is left in the cluster.

        Args:
            name: of the pod.
            sockets: whether it mounts the directory of sockets.
            networks: its annotation.
        """
        try:
            with self.running(name, sockets=sockets, networks=networks) as running:
                yield running
                self.cluster.delete_pod(name)
        finally:
            self.cluster.finish_pod(name)
            self.cluster.wait_until_gone(name)

    @contextlib.contextmanager
    def running(self, name: str, *, sockets: bool = True, networks: str = "") -> Iterator[Running]:
        """A pod from its creation until its sandbox is taken from the node; its object stays.

        Args:
            name: of the pod.
            sockets: whether it mounts the directory of sockets.
            networks: its annotation.
        """
        mounted = str(self.daemon.mount_point) if sockets else ""
        uid = self.cluster.create_pod(name, node=self.neutron.host, host_path=mounted, networks=networks)
        podvif = self.cluster.wait_for_condition(name, "Bound")
        with pod(self.network, self.daemon.mount_point, args=self.cluster.cni_args(name, uid)) as made:
            yield Running(name, made, podvif)

    def port(self, interface: Document) -> Document:
        """A Neutron port, as the administrator sees it."""
        return dict(self.neutron.ask("GET", f"/ports/{interface['portId']}")["port"])

    def left(self) -> list[str]:
        """What stands although there is no pod, in every place where something might, each as a short text."""
        ports = self.neutron.ask("GET", "/ports")["ports"]
        links = json.loads(output([programs.ip(), "-n", self.neutron.box.name, "-json", "link", "show"]))
        return [
            *self.cluster.left(),
            *(f"Neutron port {port['id']} {port['name']} of {port['device_owner']}" for port in ports),
            *leftovers.after_del(
                self.neutron.ovs, self.daemon.mount_point, self.daemon.folder / "leases", self.daemon.journal
            ),
            *(f"device {link['ifname']}" for link in links if link["ifname"][:3] in {"tap", "qbr", "qvb", "qvo"}),
        ]


@contextlib.contextmanager
def whole(folder: Path, neutron: PrivateNeutron) -> Iterator[Whole]:
    """API server, controller and node, with a Neutron where pods have a network of their own.

    No two share an API server: each controller would serve the pods of both.
    """
    name = f"pods-{secrets.token_hex(4)}"
    (folder / "kube").mkdir()
    network, _ = neutron.network("10.20.0.0/24", name=name)
    # A round finds what somebody did by hand; no test waits for it as long as a cluster may.
    more = {"neutron_defaults": {"pod_subnet": name}, "controller": {"resync_interval": "2"}}
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(KubeApi(folder / "kube"))
        cluster = Cluster(api, "whole")
        cluster.prepare()
        options = neutron.options()
        stack.enter_context(Controller(folder / "controller", kubeconfig=api.kubeconfig, neutron=options, more=more))
        port = stack.enter_context(way_into(neutron.box, api))
        kubeconfig = api.write_kubeconfig(folder / "node.kubeconfig", url=f"https://127.0.0.1:{port}")
        node = {"node": {"source": "cluster"}, "kubernetes": {"kubeconfig": str(kubeconfig), "node_name": neutron.host}}
        daemon = NodeDaemon(
            folder / "node",
            ovsdb=neutron.ovs.ovsdb,
            mount_point=folder / "pods",
            ovs_vhu_path=neutron.ovs.rundir,
            more=node,
            netns=neutron.box.name,
        )
        yield Whole(cluster, neutron, stack.enter_context(daemon))
    neutron.remove_ports()
    neutron.ask("DELETE", f"/networks/{network}")


@contextlib.contextmanager
def way_into(box: Sandbox, api: KubeApi) -> Iterator[int]:
    """A way from the loopback of a network namespace to the API server on ours; the port where it begins."""
    listening = netns.inside(str(box.netns), lambda: socket.create_server(("127.0.0.1", 0)))
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def stand() -> None:
        async with Way(api.address, api.port, listening):
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(stand(),))
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
