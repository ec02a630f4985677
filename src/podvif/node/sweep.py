"""The sweep: what has no owner any more goes.

Law: nothing is assumed of the runtime, which may never send DEL, nor of kubelet, which does not unpublish what it was refused.
An attachment whose sandbox is gone goes after a time of grace; so does a volume that is mounted nowhere, and what carries our
marks or names and is in no journal.  What has no mark of ours is never touched, and neither
is a port that an application still drives: somebody is there, whatever the records say.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from podvif import names
from podvif.core import translate
from podvif.errors import PodvifError
from podvif.host import files, netns
from podvif.model import Attachment, Entry, Goal, SeenPort, SocketDir, SocketFile, Volume
from podvif.node.journal import Journal
from podvif.settings import Settings

_LOG = logging.getLogger(__name__)

# Runtimes' container ids are 32 random bytes in hexadecimal; a file of another form may be the pods' own.
_FILE = re.compile(r"\.?([0-9a-f]{64})(?:\.json|\.env|-([^/]+?))(\.new)?")
_SOCKET = re.compile(rf"{names.VIF_NAME}|\.{names.VIF_NAME}\.new")
_OWN_FILES = frozenset(name for each in (names.OWN_JSON, names.OWN_ENV) for name in (each, files.temporary_name(each)))


class Switch(Protocol):
    """What the sweep needs of Open vSwitch (`podvif.ovs.switch.Switch`)."""

    def trouble(self) -> str | None:
        """Why OVSDB cannot be asked, None when it can."""

    def ports(self) -> Mapping[str, SeenPort]:
        """All OVS ports by name."""


class Sockets(Protocol):
    """What the sweep needs to know of vswitchd (`podvif.node.drivers.Drivers`)."""

    def switch_netns(self) -> str | None:
        """Path of the network namespace that vswitchd listens in, None for our own."""


class Volumes(Protocol):
    """What the sweep needs of the pods' own directories (`podvif.node.volumes.Volumes`)."""

    def directories(self) -> list[SocketDir]:
        """All of them."""

    def directory_of(self, volume: Volume) -> SocketDir:
        """The directory behind a volume."""

    async def unmounted(self) -> list[Volume]:
        """The volumes that are mounted nowhere."""

    async def forget_unmounted(self, volume: Volume, used: Callable[[], bool]) -> bool:
        """Have a volume no more, unless it is mounted or used by now; whether it went."""


_TURN = 0.01
"""Seconds of a round without a pause, and of a pause."""

_REMOVED_MAX = 1000
"""Files that one round removes."""


class Sweep:
    """One pass over attachments, volumes, ports and files at a time."""

    def __init__(
        self, journal: Journal, switch: Switch, sockets: Sockets, settings: Settings, volumes: Volumes
    ) -> None:
        """Take the parts."""
        self._journal = journal
        self._switch = switch
        self._sockets = sockets
        self._settings = settings
        self._volumes = volumes
        self._missing: dict[Attachment, float] = {}
        self._unmounted: dict[str, float] = {}
        self.swept = 0

    def without_owner(self) -> list[Entry]:
        """The attachments that have had no owner for longer than the grace: the caller has them leave."""
        now = time.monotonic()
        gone = [*self._without_sandbox(), *self._without_journal()]
        self._missing = {entry.attachment: self._missing.get(entry.attachment, now) for entry in gone}
        due = [entry for entry in gone if now - self._missing[entry.attachment] >= self._settings.sweep_grace]
        for entry in due:
            self.swept += 1
            _LOG.info("%s has no owner any more, and leaves", entry.attachment)
        return due

    def _without_sandbox(self) -> list[Entry]:
        return [
            entry
            for entry in self._journal.all()
            if entry.goal is Goal.ATTACHED and not netns.is_still(entry.netns, entry.netns_inode)
        ]

    def _without_journal(self) -> list[Entry]:
        found = []
        for port in self._switch.ports().values():
            attachment = translate.owner_of(port)
            if attachment is None or self._journal.get(attachment) or port.link_up:
                continue
            directory = self._directory_of(port)
            if vif := translate.vif_of_port(port, directory, self._settings.ovs_vhu_path):
                if directory != self._settings.mount_point:
                    vif = translate.in_own_directory(vif, directory)
                found.append(Entry(attachment, "", Goal.LEAVING, vif))
        return found

    def _directory_of(self, port: SeenPort) -> SocketDir:
        """Where its socket lies: OVS says that of those that the application makes, the rest is found by its name."""
        directory = SocketDir((port.vhost_server_path or "").rpartition("/")[0])
        return directory if directory in self._volumes.directories() else self._settings.mount_point

    async def remove_volumes(self) -> None:
        """Remove the volumes that have had no owner for longer than the grace; a failure is said.

        Kubelet asks again for a publishing that failed for a while, and not to unpublish one that then was refused for good.
        """
        try:
            unmounted = await self._volumes.unmounted()
        except PodvifError as error:
            _LOG.warning("which volumes are mounted cannot be told: %s", error.message)
            return
        now = time.monotonic()
        gone = [volume for volume in unmounted if not self._is_used(volume)]
        self._unmounted = {volume.id: self._unmounted.get(volume.id, now) for volume in gone}
        for volume in gone:
            if now - self._unmounted[volume.id] >= self._settings.sweep_grace:
                await self._remove_volume(volume)

    def _is_used(self, volume: Volume) -> bool:
        return bool(self._journal.of_directory(self._volumes.directory_of(volume)))

    async def _remove_volume(self, volume: Volume) -> None:
        try:
            if not await self._volumes.forget_unmounted(volume, lambda: self._is_used(volume)):
                return
        except PodvifError as error:
            _LOG.warning("volume %s has no owner and could not be removed: %s", volume.id, error.message)
        else:
            self.swept += 1
            _LOG.info("volume %s of pod %s was mounted nowhere and is removed", volume.id, volume.pod)

    async def remove_files(self) -> None:
        """Remove the files and sockets that have had no owner for longer than the grace; a failure is said.

        A pod can make as many as it likes: verbs are answered between them, and the rest of too many waits for the next round.
        """
        settings, began, removed = self._settings, time.monotonic(), self.swept
        for directory in {settings.mount_point, settings.ovs_vhu_path, *self._volumes.directories()}:
            for name in await asyncio.to_thread(_candidates, directory):
                if time.monotonic() - began > _TURN:
                    await asyncio.sleep(_TURN)
                    began = time.monotonic()
                if self._switch.trouble() or self.swept - removed >= _REMOVED_MAX:
                    return  # without OVSDB nobody knows whose a socket is
                self._remove_leftover(directory, name)

    def _remove_leftover(self, directory: str, name: str) -> None:
        try:
            if not self._is_leftover(directory, name):
                return
            files.remove(directory, [name])
        except PodvifError as error:
            _LOG.warning("%s/%s has no owner and could not be removed: %s", directory, name, error.message)
        else:
            self.swept += 1
            _LOG.info("%s/%s had no owner and is removed", directory, name)

    def _is_leftover(self, directory: str, name: str) -> bool:
        path = f"{directory}/{name}"
        try:
            age = time.time() - os.lstat(path).st_ctime
        except OSError:
            return False
        if age < self._settings.sweep_grace:
            return False
        if _SOCKET.fullmatch(name):
            return self._is_dead_socket(path, name)
        if directory == self._settings.ovs_vhu_path:
            return False
        own = directory != self._settings.mount_point
        if own and name in _OWN_FILES:
            return not self._journal.of_directory(SocketDir(directory))
        if not (found := _FILE.fullmatch(name)):
            return False
        container_id, ifname, temporary = found.groups()
        if temporary or not ifname:
            return all(entry.attachment.container_id != container_id for entry in self._journal.all())
        return self._journal.get(Attachment(container_id, ifname)) is None

    def _is_dead_socket(self, path: str, name: str) -> bool:
        ports = self._switch.ports()
        if (
            name in ports
            or self._journal.by_port(name)
            or any(port.vhost_server_path == path for port in ports.values())
        ):
            return False
        return files.look_at_socket(path, [None, self._sockets.switch_netns()]) is SocketFile.DEAD


def _candidates(directory: str) -> list[str]:
    """The names in a directory that might be podvif's; a missing one is said elsewhere, and has nothing in it."""
    try:
        listed = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return []
    return sorted(name for name in listed if _SOCKET.fullmatch(name) or name in _OWN_FILES or _FILE.fullmatch(name))
