"""The story of `demo-neutron`: a cluster with a Neutron, two pods, their ports, their packets, and nothing left.

Law: it plays user, scheduler, kubelet and runtime, and nobody else: ports are Neutron's, PodVifs the controller's, sockets the
node's, and what is shown of them is asked of their owner.
"""

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podvif.cli import demo_tale
from podvif.cli.demo_screen import Screen
from podvif.cli.demo_tale import PAGES, Tale
from podvif.lab import kube, leftovers, neutron, programs
from podvif.lab.cluster import Cluster, conditions_of
from podvif.lab.controller import Controller
from podvif.lab.daemon import NodeDaemon
from podvif.lab.hugepages import hugepages
from podvif.lab.kube import KubeApi
from podvif.lab.neutron import Mechanism, PrivateNeutron
from podvif.lab.neutron_venv import neutron_venv
from podvif.lab.pod import Pod, pod
from podvif.lab.signals import Signals

CIDR = "10.20.0.0/24"
SUBNET = "pods"


@dataclass(frozen=True)
class _World:
    """All that was brought up."""

    folder: Path
    cluster: Cluster
    neutron: PrivateNeutron
    daemon: NodeDaemon

    @property
    def network(self) -> dict[str, Any]:
        """What the runtime has of the cluster network."""
        about = {"cniVersion": "1.1.0", "name": "podvif", "type": "podvif-cni"}
        return about | {"daemonSocket": str(self.daemon.socket)}

    def ports(self) -> list[dict[str, Any]]:
        """All Neutron ports."""
        return sorted(self.neutron.ask("GET", "/ports")["ports"], key=lambda port: str(port["name"]))

    def left(self) -> list[str]:
        """What stands although no pod should have anything."""
        places = (self.neutron.ovs, self.daemon.mount_point, self.folder / "leases", self.daemon.journal)
        ports = [f"Neutron port {port['name'] or port['id']}" for port in self.ports()]
        return [*ports, *self.cluster.left(), *leftovers.after_del(*places)]


class NeutronStory(Tale):
    """One run of the demo."""

    def play(self) -> bool:
        """Set the stage, show the pods' way, and clear up; whether it left nothing behind.

        Raises:
            LabError: something is missing, or did not come.
            Interrupted: a signal ended it.
        """
        self.screen.say("programs", "looked for; a first run installs Neutron from PyPI, into podvif's cache folder")
        _look_for_all()
        with contextlib.ExitStack() as made:
            self.folder = folder = Path(made.enter_context(tempfile.TemporaryDirectory(prefix="podvif-")))
            self.grant = made.enter_context(hugepages(PAGES))
            self.screen.say("hugepages", f"{PAGES} of 2 MiB (the machine had {self.grant.before})")
            world = self._bring_up(folder, made)
            self.signals.check()
            with contextlib.ExitStack() as pods:
                self._pods(world, pods)
            return self.report(world.left(), "Neutron ports, PodVifs, pods, OVS ports, sockets, files, journal entries")

    def _bring_up(self, folder: Path, made: contextlib.ExitStack) -> _World:
        say, took = self.screen.say, _Watch()
        api = made.enter_context(KubeApi(_made(folder / "kube")))
        cluster = Cluster(api, "demo")
        cluster.prepare()
        say("API server", f"a private kube-apiserver with etcd and podvif's CRD at {api.url}, {took()}")
        self.signals.check()
        say("Neutron", "a real one is coming up: MariaDB, OVN, Open vSwitch with DPDK …")
        took = _Watch()
        cloud = made.enter_context(PrivateNeutron(folder / "n", mechanism=Mechanism.OVN))
        self.namespaces.append(cloud.box.name)
        say("Neutron", f"answers at {cloud.url}, ML2/OVN, {took()}; this node is its chassis {cloud.host}")
        self.signals.check()
        cloud.network(CIDR, name=SUBNET)
        say("network", f"a Neutron network with the subnet {SUBNET}, {CIDR}: the pods' own (pod_subnet)")
        more = {"neutron_defaults": {"pod_subnet": SUBNET}}
        took = _Watch()
        made.enter_context(
            Controller(folder / "controller", kubeconfig=api.kubeconfig, neutron=cloud.options(), more=more)
        )
        say("controller", f"podvif controller stands for election, {took()}")
        daemon = NodeDaemon(
            folder / "node",
            ovsdb=cloud.ovs.ovsdb,
            mount_point=folder / "pods",
            ovs_vhu_path=cloud.ovs.rundir,
            more={
                "node": {"source": "cluster"},
                "kubernetes": {"kubeconfig": str(api.kubeconfig), "node_name": cloud.host},
            },
        )
        made.enter_context(daemon)
        say("node", f"podvif node follows this node's PodVifs, ready {daemon.started_in:.1f} s after its start")
        return _World(folder, cluster, cloud, daemon)

    def _pods(self, world: _World, made: contextlib.ExitStack) -> None:
        say, cluster, names = self.screen.say, world.cluster, ("a", "b")
        self.screen.chapter("two pods get Neutron ports")
        took = _Watch()
        uids = {
            name: cluster.create_pod(name, node=world.neutron.host, host_path=str(world.daemon.mount_point))
            for name in names
        }
        say("pods", f"created in the API, scheduled to {world.neutron.host}; each mounts {world.daemon.mount_point}")
        for name in names:
            cluster.wait_for_condition(name, "Bound")
        say("controller", f"made a Neutron port and a PodVif for each, and Neutron bound them, {took()}")
        boxes: dict[str, Pod] = {}
        for name in names:
            args = cluster.cni_args(name, uids[name])
            boxes[name] = made.enter_context(pod(world.network, world.daemon.mount_point, args=args))
            self.namespaces.append(boxes[name].box.name)
            milliseconds = boxes[name].added.seconds * 1000
            say(f"ADD pod {name}", f"podvif-cni plugged {boxes[name].port} in {milliseconds:.0f} ms; OVN has wired it")
        for port in world.ports():
            world.neutron.wait_for_status(port["id"], "ACTIVE")
        for name in names:
            cluster.wait_for_condition(name, "Plugged")
        self._tables(world)
        self.signals.check()
        self.traffic([boxes[name] for name in names], world.neutron.ovs, world.folder / "applications")
        self.screen.chapter("the pods are deleted")
        took = _Watch()
        for name in names:
            cluster.delete_pod(name)
            boxes[name].delete().checked()
            cluster.finish_pod(name)
        say(
            "DEL", "pods deleted in the API, podvif-cni unplugged both, kubelet's part was played: the objects are gone"
        )
        for name in names:
            cluster.wait_until_gone(name)
        say("controller", f"deleted both Neutron ports, and let the PodVifs go, {took()}")

    def _tables(self, world: _World) -> None:
        rows = []
        for podvif in world.cluster.podvifs():
            conditions = conditions_of(podvif)
            said = " ".join(kind for kind, status in sorted(conditions.items()) if status == "True")
            for interface in podvif["status"]["interfaces"]:
                addresses = ", ".join(ip["address"] for ip in interface["ips"])
                mode = interface["vifDetails"]["vhostuser_mode"]
                name = podvif["metadata"]["name"]
                rows.append([name, interface["name"], interface["portId"][:8], addresses, mode, said])
        self.screen.rows("PodVifs", ("pod", "interface", "port", "address", "mode", "conditions"), rows)
        keys = ("name", "id", "mac_address", "binding:vif_type", "binding:host_id", "status")
        ports = [[port[key][:8] if key == "id" else port[key] for key in keys] for port in world.ports()]
        self.screen.rows("Neutron ports", ("name", "port", "MAC", "vif_type", "host", "status"), ports)


class _Watch:
    """How long something took, in words."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> str:
        return f"in {time.monotonic() - self._began:.1f} s"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _look_for_all() -> None:
    """Look for all that is needed, before anything is made.

    Raises:
        LabError: something is not there; the message says what to do.
    """
    programs.look_for_all()
    neutron.look_for_all(Mechanism.OVN)
    kube.folder_of_programs()
    neutron_venv()


def tell(seconds: int, *, svg: Path | None) -> int:
    """Run the demo as root and return its exit code.

    Args:
        seconds: how long packets are watched.
        svg: where to write the screen as a picture; None for nowhere.
    """
    story = NeutronStory(Screen(), seconds, Signals())
    title = "podvif demo-neutron: two pods of a cluster get Neutron ports, and their packets cross a Neutron network"
    return demo_tale.tell(story, title, story.play, svg=svg)
