"""Volumes: a directory of its own for each pod that asks for one.

Law: a volume's record is written before the first act for it and removed after the last, like an attachment's, so that a
daemon killed in between is right again by kubelet's next call.  It is kept because no mount table has what an ADD needs to
know later: whose directory it is, where the pod's containers have mounted it, and which group may write there.  The pod can
write into the directory, so nothing about it is kept there.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from podvif import errors, names
from podvif.errors import PodvifError, Refused
from podvif.host import files, poddir
from podvif.host.mounts import Place
from podvif.model import Access, Pod, SocketDir, Volume
from podvif.node.converge import Locks
from podvif.node.guard import Guard
from podvif.node.records import read_records
from podvif.node.sources import access_of
from podvif.settings import Settings

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class Mounts(Protocol):
    """What volumes need of the mount table (`podvif.host.mounts`)."""

    def ensure_bound(self, directory: str, target: str, *, read_only: bool) -> None:
        """Have the directory mounted at the target."""

    def ensure_unbound(self, directory: str, target: str) -> None:
        """Have nothing mounted at the target, and the target gone."""

    def mounted_at(self, target: str) -> Place | None:
        """What is mounted at the target."""

    def mount_points(self, among: Collection[str]) -> set[str]:
        """Those of the paths at which something is mounted."""

    def is_of(self, place: Place, directory: str) -> bool:
        """Whether that is the directory."""


class Directories(Protocol):
    """What volumes need of directories (`OwnDirectories`)."""

    def ensure_pod_directory(self, path: str, access: Access) -> None:
        """Have the directory, for whom it is."""

    def remove_pod_directory(self, path: str) -> None:
        """Have it no more, with all that is in it."""


class OwnDirectories:
    """Directories as the guard makes them."""

    def __init__(self, guard: Guard) -> None:
        """Take the guard."""
        self._guard = guard

    def ensure_pod_directory(self, path: str, access: Access) -> None:
        """Have the directory, the pod's and vswitchd's and nobody else's.

        Raises:
            Refused: something else is there, or it may not be made.
            Retry: the disk is full or an I/O error.
        """
        parent = path.rpartition("/")[0]
        make_way(parent)
        self._guard.make_parent(parent)
        self._guard.make_directory(path, access)

    def remove_pod_directory(self, path: str) -> None:
        """Have it no more, with all that is in it.

        Raises:
            Refused: something in it cannot be removed.
            Retry: an I/O error, or it is still in use.
        """
        poddir.remove_pod_directory(path)


def make_way(directory: str) -> None:
    """Make the directory of the pods' own directories, for root alone until a guard says who else may go through.

    Raises:
        Refused: it may not be made.
        Retry: the disk is full or an I/O error.
    """
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103
    except OSError as error:
        raise files.io_error(error, f"[node] run_dir: {directory} cannot be made") from error


class Volumes:
    """The volumes of this node's pods, and the directories behind them."""

    def __init__(self, settings: Settings, mounts: Mounts, directories: Directories) -> None:
        """Read the records below `state_dir`; one that cannot be understood is set aside, and kubelet's next call makes another.

        Raises:
            Refused: they cannot be read.
        """
        self._settings = settings
        self._mounts = mounts
        self._host = directories
        self._records = names.volume_directory(settings.state_dir)
        self._volumes: dict[str, Volume] = {}
        self._locks = Locks()
        self._running: set[asyncio.Task[Any]] = set()
        self._on_directory: list[Callable[[SocketDir, bool], None]] = []
        try:
            found = read_records(self._records, "record", self._parse)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(
                f"[node] state_dir: {self._records} cannot be read: {error.strerror}",
                "it has to be a directory that root can write to",
                code=errors.IO_FAILURE,
            ) from error
        self._volumes = {volume.id: volume for volume in found}

    def _parse(self, name: str, text: str) -> Volume:
        volume = msgspec.json.decode(text, type=Volume)
        if names.volume_file(volume.id) != name:
            raise msgspec.ValidationError(f"it is the record of volume {volume.id}")
        self.directory_of(volume)
        return volume

    # -- what others ask -----------------------------------------------------------------------------------------------

    def of_pod(self, pod: Pod) -> Volume | None:
        """The volume that a pod has; None when it has none.

        Raises:
            Refused: the runtime does not say the pod's UID, and two pods had that name.
        """
        if pod.uid:
            found = [volume for volume in self._volumes.values() if volume.pod.uid == pod.uid]
        else:
            found = [volume for volume in self._volumes.values() if pod.name and str(volume.pod) == str(pod)]
        if len({volume.pod.uid for volume in found}) > 1:
            raise Refused(
                f"two pods called {pod} have volumes of {names.CSI_DRIVER}, and the runtime does not say which one it means",
                "wait until the former one is gone, or use a runtime that says K8S_POD_UID in CNI_ARGS",
            )
        # Of two that show the same directory the one that may be written to counts: some container can make a socket there.
        return min(found, key=lambda volume: (volume.read_only, volume.created, volume.id)) if found else None

    def directory_of(self, volume: Volume) -> SocketDir:
        """The directory behind a volume."""
        return names.own_directory(self._settings.run_dir, volume.pod.uid)

    def all(self) -> list[Volume]:
        """Every volume, the oldest first."""
        return sorted(self._volumes.values(), key=lambda volume: (volume.created, volume.id))

    def directories(self) -> list[SocketDir]:
        """The directories behind them, each once."""
        return list(dict.fromkeys(self.directory_of(volume) for volume in self.all()))

    def on_directory(self, call: Callable[[SocketDir, bool], None]) -> None:
        """Have `call` told of each directory that has come (True), or that is about to go (False)."""
        self._on_directory.append(call)

    def why_not(self) -> str | None:
        """Why no pod could be given a directory, one sentence; None when one could."""
        directory = names.own_directories(self._settings.run_dir)
        try:
            make_way(directory)
        except PodvifError as error:
            return error.message
        return files.why_not_movable(self._settings.ovs_vhu_path, directory)

    # -- what kubelet asks ---------------------------------------------------------------------------------------------

    async def publish(self, volume: Volume) -> None:
        """Make the pod's directory and show it at the volume's target; once more is fine.

        Raises:
            Refused: it cannot be had so.
            Retry: the disk is full or an I/O error.
        """
        await self._to_its_end(volume.pod.uid, self._publish(volume))

    async def unpublish(self, volume_id: str, target: str) -> None:
        """Take the volume from its target, and with the pod's last one the directory; gone already is fine.

        Raises:
            Refused: something else is there.
            Retry: an I/O error, or the directory is still in use.
        """
        volume = self._volumes.get(volume_id)
        uid = volume.pod.uid if volume else self._uid_at(target)
        await self._to_its_end(uid, self._unpublish(volume_id, target, uid))

    # -- what the sweep asks ---------------------------------------------------------------------------------------------

    async def unmounted(self) -> list[Volume]:
        """Those that are mounted nowhere: to be published, or given up by kubelet, who tells nobody of that.

        Raises:
            Retry: the mount table cannot be read.
        """
        if not (volumes := self.all()):
            return []
        points = await asyncio.to_thread(self._mounts.mount_points, [volume.target for volume in volumes])
        return [volume for volume in volumes if volume.target not in points]

    async def forget_unmounted(self, volume: Volume, used: Callable[[], bool]) -> bool:
        """Have the volume no more, unless it has been published or unpublished since; whether it went.

        Args:
            volume: as it was found.
            used: whether somebody uses its directory; asked when no call of kubelet's for the pod is under way.

        Raises:
            Refused: something in its directory cannot be removed.
            Retry: an I/O error, or the directory is still in use.
        """

        async def forget() -> bool:
            if self._volumes.get(volume.id) != volume or used() or self._mounts.mounted_at(volume.target):
                return False
            await self._give_up(volume)
            return True

        return await self._to_its_end(volume.pod.uid, forget())

    async def stop(self) -> None:
        """Wait for what is under way."""
        while self._running:
            await asyncio.wait(self._running)

    async def _to_its_end(self, uid: str, act: Coroutine[Any, Any, T]) -> T:
        # A caller that gives up must not leave a half of it under way beside the next call.
        async def locked() -> T:
            async with self._locks.sandbox(uid):
                return await act

        task = asyncio.ensure_future(locked())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _publish(self, volume: Volume) -> None:
        former = self._volumes.get(volume.id)
        self._refuse_conflicting(volume, former)
        volume = msgspec.structs.replace(volume, created=former.created if former else time.time())
        directory = self.directory_of(volume)
        if former and former.target != volume.target:
            self._mounts.ensure_unbound(directory, former.target)
        if former != volume:
            self._remember(volume)
        try:
            self._host.ensure_pod_directory(directory, access_of(volume))
            self._mounts.ensure_bound(directory, volume.target, read_only=volume.read_only)
        except Refused:
            # Kubelet takes that for its last word, and does not ask to unpublish what has failed so.
            if former is None:
                with contextlib.suppress(PodvifError):
                    await self._give_up(volume)
            raise
        self._tell(directory, there=True)
        _LOG.info("pod %s has %s at %s", volume.pod, directory, volume.target)

    def _refuse_conflicting(self, volume: Volume, former: Volume | None) -> None:
        if former and former.pod.uid != volume.pod.uid:
            raise Refused(
                f"volume {volume.id} is published for another pod, {former.pod}",
                "an inline volume belongs to one pod: unpublish it first",
                code=errors.IO_FAILURE,
            )
        for other in self.all():
            if other.pod.uid != volume.pod.uid or other.id == volume.id:
                continue
            if other.mounted_at != volume.mounted_at:
                raise Refused(
                    f"pod {volume.pod} has two volumes of {names.CSI_DRIVER}, one with mountPath {other.mounted_at} and one"
                    f" with {volume.mounted_at}",
                    "use one volume for all its containers, mounted at the same path",
                )
            if other.user != volume.user:
                raise Refused(
                    f"pod {volume.pod} has two volumes of {names.CSI_DRIVER}, one with user {other.user} and one with"
                    f" {volume.user}",
                    "both are one directory, which has one owner: write the same user, or give containers of several"
                    " users a group in common (fsGroup)",
                )

    async def _unpublish(self, volume_id: str, target: str, uid: str) -> None:
        directory = names.own_directory(self._settings.run_dir, uid) if uid else SocketDir("")
        volume = self._volumes.get(volume_id)
        for each in {target, volume.target if volume else target}:
            self._mounts.ensure_unbound(directory, each)
        await self._forget(volume_id, uid)
        _LOG.info("volume %s is no more at %s", volume_id, target)

    async def _give_up(self, volume: Volume) -> None:
        """Take away what was made for a volume that nobody sees; what else lies at its target is its maker's."""
        with contextlib.suppress(PodvifError):
            self._mounts.ensure_unbound(self.directory_of(volume), volume.target)
        await self._forget(volume.id, volume.pod.uid)

    async def _forget(self, volume_id: str, uid: str) -> None:
        directory = names.own_directory(self._settings.run_dir, uid) if uid else SocketDir("")
        others = [each for each in self._volumes.values() if each.pod.uid == uid and each.id != volume_id]
        if uid and not others:
            self._tell(directory, there=False)
            await asyncio.to_thread(self._host.remove_pod_directory, directory)
        if volume_id in self._volumes:
            files.remove(self._records, [names.volume_file(volume_id)])
            del self._volumes[volume_id]

    def _uid_at(self, target: str) -> str:
        """The pod whose directory is mounted there, by the mount table alone: its record is lost.  Empty when none is."""
        place = self._mounts.mounted_at(target)
        uid = place.root.removesuffix("//deleted").rpartition("/")[2] if place else ""
        try:
            directory = names.own_directory(self._settings.run_dir, uid)
        except ValueError:
            return ""
        return uid if place and self._mounts.is_of(place, directory) else ""

    def _remember(self, volume: Volume) -> None:
        try:
            os.makedirs(self._records, mode=0o700, exist_ok=True)  # noqa: PTH103
        except OSError as error:
            raise files.io_error(error, f"[node] state_dir: {self._records} cannot be made") from error
        text = msgspec.json.encode(volume).decode()
        files.write_texts(self._records, {names.volume_file(volume.id): text}, mode=0o600)
        self._volumes[volume.id] = volume

    def _tell(self, directory: SocketDir, *, there: bool) -> None:
        for tell in self._on_directory:
            tell(directory, there)
