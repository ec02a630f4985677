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

SETTINGS: Sections = {
    "vhostuser": {"mount_point": MOUNT_POINT, "ovs_vhu_path": OVS_VHU_PATH},
    "vif_plug_ovs": {"ovsdb_connection": f"unix:{OVS_VHU_PATH}/db.sock"},
    "node": {"cni_socket": "/var/run/podvif/cni.sock", "state_dir": "/var/lib/podvif"},
}


@dataclass(frozen=True, slots=True)
class DpdkNode:
    """A cluster's node with a switch and podvif.

    Attributes:
        cluster: the cluster.
        switch: the machine's Open vSwitch.
        daemon: podvif node.
    """

    cluster: OneNode
    switch: PrivateOvs
    daemon: NodeDaemon

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
        return self.machine.path("/var/lib/podvif") / "attachments"

    def left(self) -> list[str]:
        """What stands on the node although there is no pod, each as a short text."""
        namespaces = self.machine.path(str(NETNS_DIR))
        return [
            *leftovers.after_del(
                self.switch, self.mount_point, self.machine.path("/var/lib/cni/networks"), self.journal
            ),
            *(f"network namespace {path.name}" for path in sorted(namespaces.glob("cni-*"))),
        ]


def switch_of(machine: Machine) -> PrivateOvs:
    """An Open vSwitch with DPDK that runs on the machine, with its files where they usually are."""
    return PrivateOvs(machine.path(OVS_VHU_PATH), where=machine.inside)


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
