"""What a person is told about the node: the answer to `podvif status`.

Law: everything is observed for the answer; the journal says which attachments there are, OVSDB and the file system how
they are.
"""

import asyncio
import time
from typing import Any

from podvif.core import attach, translate
from podvif.model import Addresses, Entry, Goal, Seen
from podvif.node.journal import Journal
from podvif.node.readiness import Switch
from podvif.node.verbs import want_attached
from podvif.node.vhostuser import VIFVHostUserDriver


async def status(journal: Journal, switch: Switch, driver: VIFVHostUserDriver) -> dict[str, Any]:
    """The switch, and every attachment with its state, ready to be JSON."""
    facts = switch.facts()
    return {
        "switch": {
            "trouble": switch.trouble(),
            "ovs_version": facts.ovs_version,
            "dpdk_version": facts.dpdk_version,
            "dpdk_initialized": facts.dpdk_initialized,
        },
        "attachments": [await _attachment(entry, driver) for entry in journal.all()],
    }


async def _attachment(entry: Entry, driver: VIFVHostUserDriver) -> dict[str, Any]:
    await asyncio.sleep(0)  # a node with many attachments goes on serving while it counts them
    want = want_attached(entry)
    seen = driver.observe(want)
    vif = entry.vif
    addresses = entry.addresses or Addresses()
    return {
        "container_id": entry.attachment.container_id,
        "ifname": entry.attachment.ifname,
        "pod": str(entry.pod),
        "network": entry.network,
        "goal": entry.goal.value,
        "port": vif.name,
        "port_id": vif.port_id,
        "bridge": vif.bridge,
        "mode": translate.mode_of(vif.listener),
        "listener": vif.listener.value,
        "socket": vif.socket,
        "link": _link(entry, seen),
        "trouble": attach.why_not_attached(want, seen) if entry.goal is Goal.ATTACHED else None,
        "mac": vif.mac,
        "mtu": vif.mtu,
        "vlan": vif.vlan,
        "queues": vif.queues,
        "ips": [ip.address for ip in addresses.ips],
        "age_seconds": max(0, int(time.time() - entry.created)),
    }


def _link(entry: Entry, seen: Seen) -> str:
    """Up when OVS says that the application drives the port; else what is waited for."""
    if entry.goal is not Goal.ATTACHED:
        return str(entry.goal.value)
    if seen.switch_trouble:
        return "unknown"
    if seen.port is None:
        return "no port"
    return "up" if seen.port.link_up else "waiting for the application"
