"""A sandbox: what a runtime would give a pod, a network namespace and a container id.

Law: names are unique by chance (64 random bits), so that tests, demos and a host's own namespaces never meet.
"""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from podvif.lab import programs
from podvif.lab.process import output

NETNS_DIR = Path("/var/run/netns")
"""Where `ip netns` binds namespaces to names (ip-netns(8))."""

PREFIX = "podvif-lab-"


def inside(name: str) -> list[str]:
    """What to put before a command so that it runs in the network namespace of that name, with the /sys that belongs to it.

    It becomes the command, and so keeps its process id.
    """
    return [programs.ip(), "netns", "exec", name]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox.

    Attributes:
        name: the network namespace's name, for `ip netns exec`.
        container_id: 64 hexadecimal digits, as runtimes give them.
    """

    name: str
    container_id: str

    @property
    def netns(self) -> Path:
        """The namespace's path, CNI_NETNS."""
        return NETNS_DIR / self.name


@contextlib.contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A sandbox with its loopback up; deleted at the end of the block.

    Raises:
        LabError: `ip` is not there, or it may not make namespaces (not root).
    """
    box = Sandbox(PREFIX + secrets.token_hex(8), secrets.token_hex(32))
    try:
        output([programs.ip(), "netns", "add", box.name])
        output([programs.ip(), "-n", box.name, "link", "set", "lo", "up"])
        yield box
    finally:
        if box.netns.exists():
            output([programs.ip(), "netns", "delete", box.name])
