"""VIFKernelDriver: observes and does one kernel port, a pair of network devices.

Law: it decides nothing (`podvif.core.veth` does).  The devices are asked of the kernel at the moment of the question; each
act is idempotent.  On the way to absent it needs neither the pod's namespace nor anything but the attachment's names.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from podvif import names
from podvif.core.attach import Step, Want
from podvif.core.veth import pair_of, wanted_addresses, wanted_routes, why_not_usable
from podvif.errors import Bug, Refused, Retry
from podvif.host import netns
from podvif.model import Addresses, Entry, Goal, Pair, PortKind, Route, Seen, SeenDevice, SeenPair, SocketFile
from podvif.node.journal import Journal
from podvif.node.leases import Ipam, Leases
from podvif.node.vhostuser import Switch


class Devices(Protocol):
    """What the driver needs of network devices (`podvif.host.veth`)."""

    def look_at(self, name: str) -> SeenDevice | None:
        """The device of that name in our own namespace."""

    def look_into(self, namespace: str, name: str) -> SeenDevice | None:
        """The device of that name in another one."""

    def make(self, pair: Pair) -> None:
        """Make a pair."""

    def set_up(self, pair: Pair, addresses: Iterable[str], routes: Sequence[Route]) -> None:
        """Give both ends what they lack."""

    def join(self, host: str, bridge: str) -> None:
        """Put a host end into a Linux bridge."""

    def remove(self, host: str, index: int) -> None:
        """Remove a pair."""


class VIFKernelDriver:
    """Brings switch, devices, IPAM and journal together for kernel ports."""

    def __init__(
        self, switch: Switch, journal: Journal, ipam: Ipam, devices: Devices, switch_netns: Callable[[], str | None]
    ) -> None:
        """Take the parts; `switch_netns` says where vswitchd lives if that is not our own network namespace."""
        self._devices = devices
        self._switch = switch
        self._journal = journal
        self._leases = Leases(journal, ipam)
        self._switch_netns = switch_netns

    # -- observing -----------------------------------------------------------------------------------------------------

    def observe(self, want: Want) -> Seen:
        """The facts about one attachment, now."""
        vif, switch = want.vif, self._switch
        entry = self._journal.get(want.attachment)
        return Seen(
            switch_trouble=switch.trouble(),
            directory=True,
            bridge_datapath=switch.bridge_datapath(vif.bridge),
            port=switch.port(vif.name),
            settled=switch.settled(vif.name),
            pod_socket=SocketFile.ABSENT,
            ovs_socket=SocketFile.ABSENT,
            addresses=entry.addresses if entry else None,
            addresses_held=bool(entry and entry.ipam),
            files_current=True,
            files_present=False,
            journalled=entry is not None,
            pair=self._pair(want, entry),
        )

    def _pair(self, want: Want, entry: Entry | None) -> SeenPair:
        host = self._devices.look_at(names.host_device(want.vif.port_id))
        if want.goal is Goal.LEAVING or entry is None:
            return SeenPair(switch_apart=False, sandbox=False, host=host, pod=None)
        sandbox, pod = netns.is_still(entry.netns, entry.netns_inode), None
        if sandbox:
            try:
                pod = self._devices.look_into(entry.netns, want.attachment.ifname)
            except Retry:
                sandbox = netns.is_still(entry.netns, entry.netns_inode)
                if sandbox:  # it has not gone between the two questions
                    raise
        return SeenPair(
            switch_apart=self._switch_netns() is not None,
            sandbox=sandbox,
            host=host,
            pod=pod,
            linux_bridge=want.vif.kind is PortKind.HYBRID and self._has_linux_bridge(want.vif.port_id),
        )

    # -- doing ---------------------------------------------------------------------------------------------------------

    async def do(self, want: Want, step: Step, seen: Seen) -> None:
        """One idempotent act.

        Raises:
            Retry: the world is not ready.
            Refused: it cannot be done.
        """
        vif, pair = want.vif, pair_of(seen)
        match step:
            case Step.RESERVE_ADDRESSES:
                await self._reserve(want)
            case Step.MAKE_PAIR:
                await asyncio.to_thread(self._devices.make, self._wanted_pair(want))
            case Step.SET_UP_PAIR:
                addresses = seen.addresses or Addresses()
                await asyncio.to_thread(
                    self._devices.set_up, self._wanted_pair(want), wanted_addresses(addresses), wanted_routes(addresses)
                )
            case Step.REMOVE_PAIR if pair.host:
                await asyncio.to_thread(self._devices.remove, names.host_device(vif.port_id), pair.host.index)
            case Step.PLUG if pair.host:
                await self._switch.plug(
                    vif, names.marks(want.attachment, str(want.pod)) | {names.MARK_DEVICE: str(pair.host.index)}
                )
            case Step.UNPLUG if seen.port:
                await self._switch.unplug(vif, seen.port.bridge or vif.bridge)
            case Step.JOIN_LINUX_BRIDGE:
                host, bridge = names.host_device(vif.port_id), names.linux_bridge(vif.port_id)
                await asyncio.to_thread(self._devices.join, host, bridge)
            case Step.WRITE_MARKS:
                await self._switch.write_marks(vif.name, names.marks(want.attachment, str(want.pod)))
            case Step.RELEASE_ADDRESSES:
                await self._leases.release(want.attachment)
            case Step.FORGET:
                self._journal.remove(want.attachment)
            case _:
                raise Bug(f"{step.value} is no act, or {want.attachment} has nothing for it")

    async def wait(self, want: Want, step: Step, seen: Seen) -> None:
        """Return when what `step` waits for may have come: OVSDB tells of all of it, the agent's word too."""
        del step
        name = want.vif.name
        if self._switch.port(name) == seen.port and self._switch.settled(name) == seen.settled:
            await self._switch.changed(name)

    async def _reserve(self, want: Want) -> None:
        await self._leases.reserve(want.attachment)
        entry = self._journal.get(want.attachment)
        addresses = entry.addresses if entry else None
        if reason := why_not_usable(addresses or Addresses()):
            raise Refused(f"IPAM gave {want.attachment} something that is no address: {reason}", "mend the IPAM plugin")

    def _entry(self, want: Want) -> Entry:
        entry = self._journal.get(want.attachment)
        if entry is None:
            raise Bug(f"{want.attachment} is to have devices and is not in the journal")
        return entry

    def _wanted_pair(self, want: Want) -> Pair:
        vif, attachment, entry = want.vif, want.attachment, self._entry(want)
        device, mac = names.host_device(vif.port_id), names.host_mac(attachment)
        return Pair(device, mac, entry.netns, attachment.ifname, vif.mac, vif.mtu)

    def _has_linux_bridge(self, port_id: str) -> bool:
        near, far = (self._devices.look_at(end) for end in names.linux_bridge_ends(port_id))
        return near is not None and far is not None and near.master == names.linux_bridge(port_id)
