"""What a person is told about the node: the answer to `podvif status`.

Law: everything is observed for the answer; the journal says which attachments there are, OVSDB and the file system how
they are.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from podvif.core import decide, translate
from podvif.core.attach import Link
from podvif.model import Addresses, Attachment, Entry, Goal, PortKind
from podvif.node.converge import World
from podvif.node.journal import Journal
from podvif.node.readiness import Switch
from podvif.node.recover import LinkState
from podvif.node.verbs import want_attached


async def status(
    journal: Journal,
    switch: Switch,
    driver: World,
    links: Mapping[Attachment, LinkState],
    apiserver: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The switch, and every attachment with its state, ready to be JSON.

    Args:
        journal: which attachments there are.
        switch: the switch's own facts.
        driver: observes each.
        links: since when each link has been in the state it was last seen in.
        apiserver: what is known of it, where the node learns from it.
    """
    facts = switch.facts()
    return {
        "switch": {
            "trouble": switch.trouble(),
            "ovs_version": facts.ovs_version,
            "dpdk_version": facts.dpdk_version,
            "dpdk_initialized": facts.dpdk_initialized,
        },
        "apiserver": apiserver,
        "attachments": [await _attachment(entry, driver, links) for entry in journal.all()],
    }


async def _attachment(entry: Entry, driver: World, links: Mapping[Attachment, LinkState]) -> dict[str, Any]:
    await asyncio.sleep(0)  # a node with many attachments goes on serving while it counts them
    want = want_attached(entry)
    seen = driver.observe(want)
    vif = entry.vif
    addresses = entry.addresses or Addresses()
    attached = entry.goal is Goal.ATTACHED
    known = links.get(entry.attachment)
    state = known.link if known and known.link is Link.GONE else decide.link(want, seen)
    return {
        "container_id": entry.attachment.container_id,
        "ifname": entry.attachment.ifname,
        "pod": str(entry.pod),
        "network": entry.network,
        "goal": entry.goal.value,
        "port": vif.name,
        "port_id": vif.port_id,
        "bridge": vif.bridge,
        "kind": vif.kind.value,
        "mode": translate.mode_of_port(vif),
        "listener": vif.listener.value if vif.kind is PortKind.VHOST_USER else None,
        "socket": vif.socket or None,
        "link": str(state.value if attached else entry.goal.value),
        "link_since": known.since if known and attached else None,
        "trouble": decide.why_not_attached(want, seen) if attached else None,
        "mac": vif.mac,
        "mtu": vif.mtu,
        "vlan": vif.vlan,
        "queues": vif.queues,
        "ips": [ip.address for ip in addresses.ips],
        "age_seconds": max(0, int(time.time() - entry.created)),
    }
