"""What is left behind, looked for with the machine's own tools.

Law: every place that podvif or the lab writes to is looked at, and what was found is named; nothing is taken for granted
because a command said that it succeeded.
"""

import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from podvif.lab.hugepages import Grant, why_not_restored
from podvif.lab.ovs_client import OvsClient
from podvif.lab.sandbox import NETNS_DIR


def after_del(ovs: OvsClient, mount_point: Path, leases: Path, journal: Path) -> list[str]:
    """OVS ports, sockets, the pods' files, address leases and journal entries that still stand, each as a short text.

    Args:
        ovs: the switch; its `rundir` is where it makes sockets.
        mount_point: where pods find their files.
        leases: host-local's `dataDir`.
        journal: the daemon's folder with a file per attachment.
    """
    sockets = [path for path in ovs.rundir.iterdir() if path.name.startswith("vhu")]
    addresses = [path for path in leases.glob("*/*") if _is_address(path.name)]
    return [
        *(f"OVS port {port}" for port in ovs.ports()),
        *(f"socket {path}" for path in sorted(sockets)),
        *(f"{'socket' if path.is_socket() else 'file'} {path}" for path in sorted(mount_point.rglob("*"))),
        *(f"lease {path}" for path in sorted(addresses)),
        *(f"journal entry {path}" for path in sorted(journal.glob("*"))),
    ]


def on_machine(folder: Path, namespaces: Iterable[str], pages: Grant | None) -> list[str]:
    """Processes, network namespaces, folders and hugepages that still stand, each as a short text.

    Args:
        folder: the private folder; every process of ours has its path in its command line.
        namespaces: names of the network namespaces made.
        pages: what was done to the hugepages, if anything.
    """
    kept = why_not_restored(pages) if pages else None
    return [
        *(f"process {pid} ({command})" for pid, command in processes(str(folder))),
        *(f"network namespace {name}" for name in namespaces if (NETNS_DIR / name).exists()),
        *([f"folder {folder}"] if folder.exists() else []),
        *([kept] if kept else []),
    ]


def processes(marker: str) -> list[tuple[int, str]]:
    """Process ids and names of all processes but this one that have `marker` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended while we looked
            continue
        if any(marker in word for word in command):
            found.append((int(entry.name), Path(command[0]).name))
    return sorted(found)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
