"""podvif on a private machine, as a host process on an Open vSwitch with DPDK of the machine's own.

Law: its paths are the defaults of kuryr.conf, so that what the documentation says of them is true on the machine.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from podvif.lab import leftovers, programs
from podvif.lab.daemon import NodeDaemon, Sections
from podvif.lab.machine import Machine
from podvif.lab.onenode import OneNode
from podvif.lab.ovs import PrivateOvs
from podvif.lab.sandbox import NETNS_DIR

MOUNT_POINT = "/var/run/vhostuser"
OVS_VHU_PATH = "/var/run/openvswitch"
OWN_DIRECTORIES = "/var/run/podvif/pods"

SETTINGS: Sections = {
    "vhostuser": {"mount_point": MOUNT_POINT, "ovs_vhu_path": OVS_VHU_PATH},
    "vif_plug_ovs": {"ovsdb_connection": f"unix:{OVS_VHU_PATH}/db.sock"},
    "node": {"cni_socket": "/var/run/podvif/cni.sock", "state_dir": "/var/lib/podvif"},
}


@dataclass(frozen=True, slots=True)
class SwitchedNode:
    """A cluster's node with a switch; podvif runs there as a pod, if at all.

    Attributes:
        cluster: the cluster.
        switch: the machine's Open vSwitch.
    """

    cluster: OneNode
    switch: PrivateOvs

    @property
    def machine(self) -> Machine:
        """The node's machine."""
        return self.cluster.machine

    @property
    def mount_point(self) -> Path:
        """Where pods find their sockets, as we see it."""
        return self.machine.path(MOUNT_POINT)

    @property
    def journal(self) -> Path:
        """Where the daemon has a file per attachment, as we see it."""
        return self.machine.path("/var/lib/podvif/attachments")

    def left(self) -> list[str]:
        """What stands on the node although there is no pod, each as a short text."""
        namespaces = self.machine.path(str(NETNS_DIR))
        volumes = self.machine.path("/var/lib/podvif/volumes")
        return [
            *leftovers.after_del(
                self.switch, self.mount_point, self.machine.path("/var/lib/cni/networks"), self.journal
            ),
            *(f"network namespace {path.name}" for path in sorted(namespaces.glob("cni-*"))),
            *(f"directory {path}" for path in sorted(self.machine.path(OWN_DIRECTORIES).glob("*"))),
            *(f"volume record {path}" for path in sorted(volumes.glob("*"))),
        ]

    def lose_power(self) -> None:
        """Power fails: nobody says goodbye, disks are kept.  The cluster has not noticed: it takes its pods for what they were."""
        self.cluster.kubelet.kill()
        self.cluster.runtime.kill()
        self.switch.kill_vswitchd()
        self.switch.kill_ovsdb()
        self.machine.lose_power()

    def start_switch(self) -> None:
        """Start Open vSwitch again, on the database that it has."""
        self.switch.start_ovsdb()
        self.switch.start_vswitchd()

    def start_kubelet(self) -> None:
        """Start the runtime and kubelet again, which will find that no pod runs any more."""
        self.cluster.runtime.start()
        self.cluster.kubelet.start()


@dataclass(frozen=True, slots=True)
class DpdkNode(SwitchedNode):
    """A cluster's node with a switch and podvif.

    Attributes:
        daemon: podvif node, a process of the node.
    """

    daemon: NodeDaemon


def switch_of(machine: Machine) -> PrivateOvs:
    """An Open vSwitch with DPDK that runs on the machine, with its files where they usually are."""
    return PrivateOvs(machine.path(OVS_VHU_PATH), where=machine.inside, dbdir=machine.folder / "ovsdb")


@contextlib.contextmanager
def podvif_on(cluster: OneNode, switch: PrivateOvs, more: Sections | None = None) -> Iterator[DpdkNode]:
    """`podvif node` and its plugin on a cluster's node.

    Args:
        cluster: the cluster.
        switch: its machine's switch, which runs.
        more: more configuration, option by section; it wins.
    """
    machine = cluster.machine
    cluster.install_plugin(programs.shim())
    sections = {name: {**SETTINGS.get(name, {}), **(more or {}).get(name, {})} for name in {*SETTINGS, *(more or {})}}
    daemon = NodeDaemon(
        machine.folder / "node",
        ovsdb=switch.ovsdb,
        mount_point=machine.path(MOUNT_POINT),
        ovs_vhu_path=machine.path(OVS_VHU_PATH),
        more=sections,
        where=machine.inside,
    )
    with daemon:
        yield DpdkNode(cluster, switch, daemon)
