"""A switch with a daemon, and the network configuration that a runtime would have for it.

Law: whoever attaches a pod to the stage can ask it afterwards what is left.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podvif.lab import leftovers
from podvif.lab.daemon import NodeDaemon
from podvif.lab.ovs import PrivateOvs


@dataclass(frozen=True, slots=True)
class Stage:
    """A switch with a daemon.

    Attributes:
        folder: theirs; leases and logs of applications go there too.
        switch: the private OVS.
        daemon: podvif node, working on that switch.
    """

    folder: Path
    switch: PrivateOvs
    daemon: NodeDaemon

    @property
    def mount_point(self) -> Path:
        """Where pods find their sockets and files."""
        return self.daemon.mount_point

    @property
    def leases(self) -> Path:
        """Where host-local remembers addresses."""
        return self.folder / "leases"

    def config(self, mode: str) -> dict[str, Any]:
        """The network configuration that the runtime gives the plugin."""
        addresses = {"type": "host-local", "dataDir": str(self.leases), "ranges": [[{"subnet": "10.77.0.0/24"}]]}
        return {
            "cniVersion": "1.1.0",
            "name": "podvif-lab",
            "type": "podvif-cni",
            "bridge": "br-dpdk",
            "vhostuserMode": mode,
            "ipam": addresses,
            "daemonSocket": str(self.daemon.socket),
        }

    def left(self) -> list[str]:
        """What stands although no pod should have anything, each as a short text."""
        return leftovers.after_del(self.switch, self.mount_point, self.leases, self.daemon.journal)
