"""What a node has of podvif besides the daemon: the plugin in the runtime's directory, and the configuration that names it.

Law: the executable comes first and the configuration last, when the daemon can serve, since a runtime that finds a configuration
takes the node for ready.  A restart or an upgrade takes neither away: a node without a configuration is not ready, and its pods
cannot be removed.  They go when podvif goes: when somebody says so, or, in a cluster, when the DaemonSet is gone.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from podvif import names
from podvif.daemon import life
from podvif.errors import PodvifError, Refused, Retry
from podvif.host import plugins
from podvif.kube.client import UnknownError
from podvif.kube.resources import DAEMONSETS, Document, Key, Resource
from podvif.settings import Settings

_LOG = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds until what nobody tells (a daemon that is ready, an API server that answers) is asked again."""

FAREWELL = 20.0
"""Seconds that the API server has to say whether the DaemonSet is gone: less than a pod's grace."""


SURE = 3.0
"""Seconds for which it has to say that it does not know us: one that has just started may say so of anybody."""


class Place(msgspec.Struct, frozen=True):
    """What is installed, and where.

    Attributes:
        plugin: path of the plugin's executable in the package.
        bin_dir: the runtime's directory of plugins.
        conf_dir: its directory of configurations.
        name: the configuration's file name; empty where there is none, since Multus finds its own by
            NetworkAttachmentDefinition.
        configuration: its text.
    """

    plugin: str
    bin_dir: str
    conf_dir: str
    name: str = ""
    configuration: str = ""


class Cluster(Protocol):
    """What is asked of the API server (`podvif.kube.client.Kube`)."""

    async def get(self, resource: Resource, key: Key) -> Document | None:
        """One object, or None."""


def check(place: Place) -> None:
    """See that the configuration is one, and ours.

    Raises:
        Refused: its name is none that a runtime takes, or it does not name the plugin.
    """
    if not place.name:
        return
    if not place.name.endswith(plugins.ENDINGS) or "/" in place.name or place.name.startswith("."):
        raise Refused(
            f"a runtime takes no file called {place.name} for a CNI configuration",
            f"give it a name that ends in {' or '.join(plugins.ENDINGS)}",
        )
    if not plugins.names_plugin(place.configuration.encode()):
        raise Refused(
            f"the CNI configuration {place.name} does not name {plugins.PLUGIN}",
            f'write "type": "{plugins.PLUGIN}" in it, as docs/reference/cni-configuration.md has it',
        )


async def install(place: Place, why_not_ready: Callable[[], str | None]) -> None:
    """Put the executable there, wait until the daemon can serve, and put the configuration.

    Args:
        place: what and where.
        why_not_ready: asks the daemon, and may take a moment.

    Raises:
        Refused: a directory cannot be written to, or somebody else's file is in the way.
        Retry: an I/O error.
    """
    if plugins.put_executable(place.plugin, place.bin_dir):
        _LOG.info("%s/%s is installed", place.bin_dir, plugins.PLUGIN)
    if not place.name:
        return
    said = None
    while reason := await asyncio.to_thread(why_not_ready):  # an old configuration stays meanwhile
        if reason != said:
            _LOG.info("%s/%s waits for the daemon: %s", place.conf_dir, place.name, reason)
        said = reason
        await asyncio.sleep(AGAIN)
    if plugins.put_configuration(place.configuration, place.conf_dir, place.name):
        _LOG.info("%s/%s is installed", place.conf_dir, place.name)


def uninstall(place: Place, settings: Settings) -> list[str]:
    """Take the configuration and then the executable away, and the directories of the daemon where nothing is in them.

    Returns:
        What is left and why, as sentences.

    Raises:
        Refused: a file cannot be removed.
        Retry: an I/O error.
    """
    if place.name and plugins.remove_configuration(place.conf_dir, place.name):
        _LOG.info("%s/%s is removed", place.conf_dir, place.name)
    if plugins.remove_executable(place.bin_dir):
        _LOG.info("%s/%s is removed", place.bin_dir, plugins.PLUGIN)
    return list(_left(settings))


async def stay(
    place: Place, settings: Settings, why_not_ready: Callable[[], str | None], owner: "Owner", stop: asyncio.Event
) -> None:
    """Install, wait until `stop` is set, and uninstall if the DaemonSet is gone by then.

    In a pod this runs as a sidecar container: those are stopped after the daemon has ended, so nothing of it is in use any more.

    Raises:
        Refused: as `install` and `uninstall` do.
        Retry: likewise.
    """
    tasks = [asyncio.ensure_future(install(place, why_not_ready)), asyncio.ensure_future(owner.learn())]
    try:
        await life.until(stop, tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if reason := await owner.why_stays():
        _LOG.info("what is installed stays: %s", reason)
        return
    for left in uninstall(place, settings):
        _LOG.warning("not removed: %s", left)


def _left(settings: Settings) -> Iterator[str]:
    """Remove what a daemon needs while none runs, which its lock says; yields what could not be removed."""
    state_dir = settings.state_dir
    lock = f"{state_dir.rstrip('/')}/lock"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        descriptor = -1  # no daemon has ever run here
    try:
        if descriptor >= 0:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield f"{state_dir} is in use: a podvif node runs"
                return
        for directory, what in (
            (names.journal_directory(state_dir), "attachments are in the journal and their OVS ports stay"),
            (names.volume_directory(state_dir), "volumes of pods are published"),
        ):
            if not plugins.remove_directory(directory) and (left := _listed(directory)):
                yield f"{directory}: {len(left)} {what}; delete those pods, or let podvif node run once more"
        yield from _directories_left(settings)
        if not _listed(state_dir) - {"lock"}:
            with contextlib.suppress(OSError):
                os.unlink(lock)  # noqa: PTH108
            plugins.remove_directory(state_dir)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _directories_left(settings: Settings) -> Iterator[str]:
    directories = (
        names.own_directories(settings.run_dir),
        os.path.dirname(settings.csi_endpoint),  # noqa: PTH120
        settings.run_dir,
        os.path.dirname(settings.cni_socket),  # noqa: PTH120
        settings.mount_point,
    )
    for directory in dict.fromkeys(directories):
        if directory and not plugins.remove_directory(directory) and (left := _listed(directory)):
            yield f"{directory} is not empty: {', '.join(sorted(left)[:3])}"


def _listed(directory: str) -> set[str]:
    try:
        return set(os.listdir(directory))  # noqa: PTH208
    except OSError:
        return set()


class Owner:
    """The DaemonSet whose pod this is: while it is there, a pod that ends is followed by another.

    Helm takes the DaemonSet first and the rights of its pods right after, so at the end the answer may well be that nobody
    knows us any more. Where the question was answered before, that says as much as that the DaemonSet is gone; and should it be
    wrong, the next pod's installer puts everything back.
    """

    def __init__(self, cluster: Cluster, key: Key) -> None:
        """Take whom to ask, and the DaemonSet."""
        self._cluster = cluster
        self._key = key
        self._uid: str | None = None

    async def learn(self) -> None:
        """Find the DaemonSet; returns when it is known, or can never be."""
        said = ""
        while self._uid is None:
            try:
                found = await self._cluster.get(DAEMONSETS, self._key)
            except Refused as error:
                _LOG.error("what is installed will stay when podvif goes: %s: %s", error.message, error.remedy)
                return
            except PodvifError as error:
                if error.message != said:
                    _LOG.warning("%s", error.message)
                said = error.message
            else:
                if found is None:
                    _LOG.error("what is installed will stay when podvif goes: there is no DaemonSet %s", self._key)
                    return
                self._uid = found["metadata"]["uid"]
                return
            await asyncio.sleep(AGAIN)

    async def why_stays(self, seconds: float = FAREWELL, sure: float = SURE) -> str | None:
        """Why what is installed is to stay when this pod ends, or None when the DaemonSet is gone.

        Args:
            seconds: that the API server has for an answer.
            sure: seconds after which it is believed that nobody knows us any more.
        """
        if self._uid is None:
            return f"it was never known whose pod this is (DaemonSet {self._key})"
        said, unknown_since = "it was not asked", None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return self._why_stays(await self._cluster.get(DAEMONSETS, self._key))
                    except (Refused, UnknownError) as error:  # our rights, or our account, went with it
                        unknown_since = unknown_since or time.monotonic()
                        if time.monotonic() - unknown_since >= sure:
                            return None
                        said = error.message
                    except Retry as error:
                        said, unknown_since = error.message, None
                    await asyncio.sleep(AGAIN)
        return f"whether DaemonSet {self._key} is gone cannot be told: {said}"

    def _why_stays(self, found: Document | None) -> str | None:
        if found is None or "deletionTimestamp" in found["metadata"]:
            return None
        if found["metadata"]["uid"] != self._uid:
            return f"another DaemonSet is called {self._key} by now, and what is installed is its business"
        return f"DaemonSet {self._key} is there: the next pod takes over"
