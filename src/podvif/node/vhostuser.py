"""VIFVHostUserDriver: observes and does one vhost-user attachment (the specification's binding driver).

Law: it decides nothing.  Each fact is asked of its owner at the moment of the question; each act is idempotent and leaves
deciding what comes next to the table in `podvif.core.attach`.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from podvif import names
from podvif.core import podfiles
from podvif.core.attach import Step, Want
from podvif.errors import Bug, PodvifError
from podvif.host import files, inotify, machine, netns, sockdiag
from podvif.model import Entry, Goal, Listener, Seen, SeenPort, SocketFile, SocketPath, Vif
from podvif.node.guard import Guard
from podvif.node.journal import Journal
from podvif.node.leases import Ipam, Leases
from podvif.settings import Settings

_LOG = logging.getLogger(__name__)

_OWN_NETNS = "/proc/self/ns/net"


class Switch(Protocol):
    """What the driver needs of Open vSwitch (`podvif.ovs.switch.Switch`)."""

    def trouble(self) -> str | None:
        """Why OVSDB cannot be asked, None when it can."""

    def port(self, name: str) -> SeenPort | None:
        """The OVS port called `name`."""

    def bridge_datapath(self, bridge: str) -> str | None:
        """The bridge's datapath type, None when there is no such bridge."""

    def settled(self, name: str) -> bool:
        """Whether vswitchd has seen our removal of the port called `name`."""

    async def changed(self, name: str) -> None:
        """Wait until something about the port called `name` has changed."""

    async def plug(self, vif: Vif, marks: Mapping[str, str]) -> None:
        """Make the port."""

    async def unplug(self, vif: Vif, bridge: str) -> None:
        """Remove the port."""

    async def write_marks(self, name: str, marks: Mapping[str, str]) -> None:
        """Write owner marks."""


class VIFVHostUserDriver:
    """Brings switch, host, IPAM and journal together for vhost-user ports."""

    def __init__(self, switch: Switch, journal: Journal, ipam: Ipam, settings: Settings) -> None:
        """Take the parts; nothing is asked of them yet."""
        self._switch = switch
        self._journal = journal
        self._leases = Leases(journal, ipam)
        self._ovs_rundirs = rundirs(settings)
        self.guard = Guard(settings, self.vswitchd)
        self._last_switch_netns: str | None = None
        self._has_run = False
        self._rendered: tuple[list[Entry], dict[str, str]] = ([], {})

    # -- observing -----------------------------------------------------------------------------------------------------

    def observe(self, want: Want) -> Seen:
        """The facts about one attachment, now."""
        vif, switch = want.vif, self._switch
        trouble = (
            switch.trouble()
        )  # first: what is read of a port while OVSDB comes back counts only when it was back before
        entry = self._journal.get(want.attachment)
        leaving = want.goal is Goal.LEAVING
        # What leaves loses its socket whether it lives or not, so nobody is asked; OVS's own side is asked of OVS alone.
        pod_side = () if leaving else self._namespaces(want.vif.listener, entry)
        port = switch.port(vif.name)
        # The pod's files are written last: until vswitchd has taken the port nobody asks whether they are as they should be.
        last = not leaving and port is not None and port.ofport is not None
        expected = self._texts(want) if leaving or last else {}
        ovs_side = leaving or vif.listener is Listener.OVS
        pod_socket = files.look_at_socket(vif.socket, pod_side)
        if port and pod_socket is SocketFile.DEAD and port.status.get("status") == "connected" and self._has_ended():
            # The row is vswitchd's last word: one that has ended is connected to nobody.
            port = msgspec.structs.replace(port, status={}, link_up=False)
        ovs_socket = self._ovs_socket(vif) if ovs_side else SocketFile.ABSENT
        access, living = entry.access if entry else None, _living(vif, pod_socket, ovs_socket)
        return Seen(
            switch_trouble=trouble,
            directory=files.is_directory(vif.directory),
            bridge_datapath=switch.bridge_datapath(vif.bridge),
            port=port,
            settled=switch.settled(vif.name),
            pod_socket=pod_socket,
            ovs_socket=ovs_socket,
            addresses=entry.addresses if entry else None,
            addresses_held=bool(entry and entry.ipam),
            files_current=last and all(files.read_text(vif.directory, name) == text for name, text in expected.items()),
            files_present=leaving and self._files_present(want, expected),
            journalled=entry is not None,
            directory_mended=leaving or self.guard.is_directory_mended(vif.directory, access),
            socket_mended=leaving or living is None or self.guard.is_socket_mended(living, vif, access),
        )

    def _ovs_socket(self, vif: Vif) -> SocketFile:
        return files.look_at_socket(vif.ovs_socket, self._namespaces(Listener.OVS, None))

    def _texts(self, want: Want) -> dict[str, str]:
        """The files of the sandbox as they should be: with this attachment, or without it when it is leaving.

        A pod's own directory is that of all its sandboxes, one after the other, and tells of the last one.
        """
        own = want.vif.mounted_at is not None
        siblings = (
            self._journal.of_directory(want.vif.directory)
            if own
            else self._journal.of_sandbox(want.attachment.container_id)
        )
        entries = [
            entry
            for entry in siblings
            if (entry.attachment != want.attachment or want.goal is not Goal.LEAVING)
            and (entry.ipam is None or entry.addresses is not None)
            and (entry.vif.mounted_at is not None) is own
        ]
        if own and entries:
            last = entries[-1].attachment.container_id
            entries = [entry for entry in entries if entry.attachment.container_id == last]
        if self._rendered[0] != entries:  # looking, writing and looking again follow upon each other
            self._rendered = (entries, podfiles.render(entries))
        return self._rendered[1]

    def _files_present(self, want: Want, expected: dict[str, str]) -> bool:
        directory = want.vif.directory
        if files.present(directory, _own_files(want)):
            return True
        shared = _sandbox_files(want)
        if not expected:
            return files.present(directory, _with_temporary(shared))
        return any(
            files.present(directory, [name]) and files.read_text(directory, name) != expected[name] for name in shared
        )

    def _namespaces(self, listener: Listener, entry: Entry | None) -> Iterator[str | None]:
        """Where a socket's listener may live: the pod, this host, or wherever vswitchd was started.

        Found out when it is asked for: where no socket lies nobody asks.
        """
        if listener is Listener.OVS:
            # Bound is bound, whoever runs by now: who vswitchd is, is asked only when nobody is found where it was last.
            last = self._last_switch_netns
            yield last
            self._last_switch_netns = self.switch_netns()
            if self._last_switch_netns != last:
                yield self._last_switch_netns
            return
        if entry and entry.netns and netns.is_still(entry.netns, entry.netns_inode):
            yield entry.netns
        yield None

    def vswitchd(self) -> machine.PidFile | None:
        """What the pid file of ovs-vswitchd says; None when there is none."""
        found = machine.vswitchd(self._ovs_rundirs)
        self._has_run = self._has_run or (found is not None and found.alive)
        return found

    def _has_ended(self) -> bool:
        """Whether no vswitchd runs: its pid file is a dead one's, or it has gone with one that was seen before."""
        found = self.vswitchd()
        return self._has_run if found is None else not found.alive

    def switch_netns(self) -> str | None:
        """Path of the namespace that vswitchd was started in; None when it is ours, or nothing is known of it."""
        found = self.vswitchd()
        if found is None or found.pid is None:
            return None
        path = f"/proc/{found.pid}/ns/net"
        if not os.path.exists(path) or netns.same(path, _OWN_NETNS):  # noqa: PTH110
            return None
        sockdiag.keep(path)
        return path

    # -- doing ---------------------------------------------------------------------------------------------------------

    async def do(self, want: Want, step: Step, seen: Seen) -> None:
        """One idempotent act.

        Raises:
            Retry: the world is not ready.
            Refused: it cannot be done.
        """
        vif = want.vif
        match step:
            case Step.RESERVE_ADDRESSES:
                await self._leases.reserve(want.attachment)
            case Step.MEND_DIRECTORY | Step.MEND_SOCKET | Step.REMOVE_STALE_SOCKET:
                self._mend(want, step, seen)
            case Step.PLUG:
                await self._switch.plug(vif, names.marks(want.attachment, str(want.pod)))
            case Step.UNPLUG:
                if seen.port is None:
                    raise Bug(f"{want.attachment} is to be unplugged without an OVS port")
                await self._switch.unplug(vif, seen.port.bridge or vif.bridge)
            case Step.TAKE_SOCKET:
                files.move(vif.ovs_socket, vif.socket)
            case Step.WRITE_MARKS:
                await self._switch.write_marks(vif.name, names.marks(want.attachment, str(want.pod)))
            case Step.WRITE_FILES:
                files.write_texts(vif.directory, self._texts(want))
            case Step.REMOVE_FILES:
                self._remove_files(want)
            case Step.REMOVE_SOCKETS:
                for path in (vif.socket, vif.ovs_socket) if seen.ovs_socket is SocketFile.DEAD else (vif.socket,):
                    directory, _, name = path.rpartition("/")
                    files.remove(directory, [name])
            case Step.RELEASE_ADDRESSES:
                await self._leases.release(want.attachment)
            case Step.FORGET:
                self._journal.remove(want.attachment)
            case _:
                raise Bug(f"{step.value} is no act")

    def _mend(self, want: Want, step: Step, seen: Seen) -> None:
        entry = self._journal.get(want.attachment)
        access = entry.access if entry else None
        if step is Step.REMOVE_STALE_SOCKET:
            self._remove_stale_socket(want)
        elif step is Step.MEND_DIRECTORY and access is not None:
            # The way there too: nobody knew as whom vswitchd runs if it did not when the directory was made.
            self.guard.make_parent(want.vif.directory.rpartition("/")[0])
            self.guard.make_directory(want.vif.directory, access)
        elif step is Step.MEND_SOCKET and (living := _living(want.vif, seen.pod_socket, seen.ovs_socket)):
            self.guard.mend_socket(living, want.vif, access)

    def _remove_stale_socket(self, want: Want) -> None:
        if want.vif.listener is Listener.OVS:
            files.remove_dead_socket(want.vif.ovs_socket, [self.switch_netns()])
        else:
            namespaces = list(self._namespaces(want.vif.listener, self._journal.get(want.attachment)))
            files.remove_dead_socket(want.vif.socket, namespaces)

    def clear_the_way(self) -> None:
        """Remove what a vswitchd that has ended left where the next one binds; the caller knows that none runs.

        One that finds a file there not only fails to bind: DPDK 22.11 closes a descriptor twice then, which is another
        port's by that time.  So nobody may be too busy for it, and the table, which is asked under a lock, is not.

        Raises:
            Retry: an I/O error.
            Refused: a directory lies there.
        """
        self.guard.forget_process()
        failures, namespaces = [], [self.switch_netns()]
        for entry in self._journal.all():
            if entry.vif.ovs_socket and entry.vif.listener is Listener.OVS:
                try:
                    files.remove_dead_socket(entry.vif.ovs_socket, namespaces)
                except PodvifError as error:  # one bad name must not leave all others in the way
                    failures.append(error)
        if failures:
            raise failures[0]

    async def wait(self, want: Want, step: Step, seen: Seen) -> None:
        """Return when what `step` waits for may have come."""
        name = want.vif.name
        if self._switch.port(name) != seen.port or self._switch.settled(name) != seen.settled:
            return
        if step is Step.AWAIT_SOCKET:
            await self._socket_or_port(want)
        else:
            await self._switch.changed(name)

    async def _socket_or_port(self, want: Want) -> None:
        # The port may turn bad (or go) while we wait for its socket, and another ADD of the same may have taken it: then the
        # table has something else to say.
        def there() -> bool:
            at_pod = files.look_at_socket(want.vif.socket, self._namespaces(Listener.OVS, None))
            return SocketFile.BOUND in {self._ovs_socket(want.vif), at_pod}

        socket = asyncio.ensure_future(inotify.until(want.vif.ovs_socket, there))
        port = asyncio.ensure_future(self._switch.changed(want.vif.name))
        try:
            done, _ = await asyncio.wait({socket, port}, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            socket.cancel()
            port.cancel()

    def _remove_files(self, want: Want) -> None:
        directory, remaining = want.vif.directory, self._texts(want)
        going = [*_own_files(want), *([] if remaining else _with_temporary(_sandbox_files(want)))]
        # One by one: what a pod has laid in the place of one of them keeps none of the others from going.
        files.remove(directory, [name for name in going if files.present(directory, [name])])
        changed = {name: remaining[name] for name in _sandbox_files(want) if remaining}
        files.write_texts(directory, {name: text for name, text in changed.items() if files.present(directory, [name])})


def _living(vif: Vif, pod_socket: SocketFile, ovs_socket: SocketFile) -> SocketPath | None:
    """Where a socket lies that somebody listens on, None when nowhere: OVS's new one before it is moved counts first."""
    if ovs_socket is SocketFile.BOUND:
        return vif.ovs_socket
    return vif.socket if pod_socket is SocketFile.BOUND else None


def _own_files(want: Want) -> list[str]:
    return _with_temporary([names.attachment_file(want.attachment)])


def _sandbox_files(want: Want) -> list[str]:
    return [*podfiles.whole_names(want.attachment, want.vif)]


def _with_temporary(listed: list[str]) -> list[str]:
    return [*listed, *(files.temporary_name(name) for name in listed)]


def rundirs(settings: Settings) -> list[str]:
    """Where vswitchd's pid file may lie: beside OVSDB's socket, or where vswitchd makes its vhost-user sockets."""
    kind, _, path = settings.ovsdb_connection.partition(":")
    beside = [path.rpartition("/")[0]] if kind == "unix" else []
    return [*beside, settings.ovs_vhu_path, settings.ovs_vhu_path.rstrip("/").rpartition("/")[0]]
