"""Recovery: whatever happens around an attachment becomes "converge it again".

Law: an event says which attachment to look at and nothing about what to do; looking once more than needed is harmless, so
events are gathered, and a quiet round over everything catches what an event has missed.  One worker for each attachment, so
that nobody overtakes himself.  Nothing here waits for vswitchd: what it does is an event too.  Where no event can be had (a
process that holds a socket ends, a vswitchd that does not come round) the attachment is looked at again after a while.  Looks
begin one by one, so that whoever calls meanwhile is served between two of them, however many there are to take.
"""

import asyncio
import contextvars
import enum
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from podvif.core import decide
from podvif.core.attach import Link, Mend, Step, Want
from podvif.errors import PodvifError, Retry
from podvif.host import inotify, netns, process
from podvif.host.machine import PidFile
from podvif.model import Attachment, Entry, Goal, Listener, Seen, SeenPort, SocketDir, SocketFile
from podvif.node.converge import SupersededError
from podvif.node.journal import Journal
from podvif.node.sweep import Sockets, Sweep
from podvif.node.sweep import Switch as SweepSwitch
from podvif.node.sweep import Volumes as SweepVolumes
from podvif.node.verbs import Verbs, want_attached
from podvif.settings import Settings

_LOG = logging.getLogger(__name__)

_PAUSE = 0.02
"""Seconds between two looks at one attachment, a verb's last one included: a pod that deletes its files in a loop gets no more
of the daemon, and the events of what an ADD itself has done are looked into when it has been answered."""

_MISSING = 1.0
"""Seconds until a directory, or a vswitchd, that is not there is looked for again."""


class Why(enum.Enum):
    """Why an attachment is looked at again without an event: seconds until the first time, and at most between two."""

    FAILED = (1.0, 30.0)
    """A look has ended with an error."""
    WAITING = (5.0, 30.0)
    """Vswitchd has to do something, and says so when it has."""
    UNCONNECTED = (0.05, 1.0)
    """An application listens and Open vSwitch is not connected: if it dies now nobody hears of it."""


@dataclass
class _Again:
    """The next look without an event; each takes twice the time of the one before.

    Attributes:
        why: as above.
        delay: seconds that it was or is away.
        timer: None when it has rung, and the look it rang for has not been taken.
    """

    why: Why
    delay: float
    timer: asyncio.TimerHandle | None = None


class LinkState(msgspec.Struct, frozen=True):
    """What `podvif status` says of a link, and since when (seconds since the epoch)."""

    link: Link
    since: float


class Switch(SweepSwitch, Protocol):
    """What recovery needs of Open vSwitch (`podvif.ovs.switch.Switch`)."""

    def on_connect(self, call: Callable[[], None]) -> None:
        """Have `call` called each time that OVSDB can be asked (again)."""

    def on_ports(self, call: Callable[[frozenset[str]], None]) -> None:
        """Have `call` called with the names of the OVS ports that changed."""

    def port(self, name: str) -> SeenPort | None:
        """The OVS port called `name`."""


class Driver(Sockets, Protocol):
    """What recovery needs of the drivers (`podvif.node.drivers.Drivers`)."""

    def observe(self, want: Want) -> Seen:
        """The facts, now."""

    def vswitchd(self) -> PidFile | None:
        """What the pid file of ovs-vswitchd says; None when there is none."""

    def clear_the_way(self) -> None:
        """Remove what a vswitchd that has ended left where the next one binds."""


class Volumes(SweepVolumes, Protocol):
    """What recovery needs of the pods' own directories (`podvif.node.volumes.Volumes`)."""

    def on_directory(self, call: Callable[[SocketDir, bool], None]) -> None:
        """Have `call` told of each that has come (True) or is about to go (False)."""


class Recovery:
    """Turns events into convergence, and remembers how each link was last seen."""

    def __init__(
        self,
        journal: Journal,
        verbs: Verbs,
        driver: Driver,
        switch: Switch,
        settings: Settings,
        *,
        volumes: Volumes,
    ) -> None:
        """Take the parts; entries of ADDs that a former daemon did not finish are leaving from here on."""
        self._journal = journal
        self._verbs = verbs
        self._driver = driver
        self._switch = switch
        self._settings = settings
        self._volumes = volumes
        self._own_directories = inotify.Directories()
        self._sweep = Sweep(journal, switch, driver, settings, volumes)
        self._pending: dict[Attachment, str] = {}
        self._workers: dict[Attachment, asyncio.Task[None]] = {}
        self._looked: dict[Attachment, float] = {}
        self._turn = asyncio.Lock()
        self._again: dict[Attachment, _Again] = {}
        self._said: dict[Attachment, str] = {}
        self._in_the_way = ""
        self._runs = False
        self._links: dict[Attachment, LinkState] = {}
        self._observers: list[Callable[[str, list[Step]], None]] = []
        self._on_link: list[Callable[[Attachment], None]] = []
        # Before anybody is served: an ADD of now must not meet the half of one that has failed.  What is led by an interface
        # that is not attached is the half of an ADD, or of a DEL, as well.
        leaders = {entry.attachment for entry in journal.all() if entry.goal is Goal.ATTACHED}
        for entry in journal.all():
            if entry.goal is Goal.ATTACHING or (entry.goal is Goal.ATTACHED and entry.asked_by not in leaders):
                journal.mark(msgspec.structs.replace(entry, goal=Goal.LEAVING))

    def on_recovery(self, call: Callable[[str, list[Step]], None]) -> None:
        """Have `call` told the cause and the steps of each recovery that had something to do."""
        self._observers.append(call)

    def on_link(self, call: Callable[[Attachment], None]) -> None:
        """Have `call` told of each attachment whose link has another state than it was last seen in."""
        self._on_link.append(call)

    def links(self) -> dict[Attachment, LinkState]:
        """The links as they were last seen."""
        return {attachment: state for attachment, state in self._links.items() if self._journal.get(attachment)}

    def swept(self) -> int:
        """How many attachments, ports, files and volumes without an owner were removed."""
        return self._sweep.swept

    async def run(self) -> None:
        """Watch and look again, until cancelled; what a worker is at then is for the next daemon."""
        self._runs = True
        self._switch.on_connect(lambda: self.touch_all("OVSDB"))
        self._switch.on_ports(self._ports_changed)
        self._verbs.on_failure(lambda attachment: self.touch(attachment, "a verb failed"))
        self._verbs.on_end(self._note_look)
        self._verbs.on_several(lambda attachment: self.touch(attachment, "ADD of several"))
        self._volumes.on_directory(self._directory_changed)
        for directory in self._volumes.directories():
            self._directory_changed(directory, there=True)
        self.touch_all("start")
        try:
            async with asyncio.TaskGroup() as tasks:
                for directory in {self._settings.mount_point, self._settings.ovs_vhu_path}:
                    tasks.create_task(self._watch(directory))
                tasks.create_task(self._watch_own())
                tasks.create_task(self._vswitchd())
                tasks.create_task(self._rounds())
        finally:
            self._runs = False
            for attachment in list(self._again):
                self._rest(attachment)
            for worker in self._workers.values():
                worker.cancel()
            await asyncio.gather(*self._workers.values(), return_exceptions=True)

    # -- events --------------------------------------------------------------------------------------------------------

    async def _watch(self, directory: str) -> None:
        said = ""
        while True:
            try:
                async for name in inotify.changes(directory):
                    if name is None:
                        self.touch_all("files")
                    else:
                        self._file_changed(name)
            except Retry as error:
                if error.message != said:  # the rounds go on looking
                    _LOG.warning("%s: %s", error.message, error.remedy)
                said = error.message
            await asyncio.sleep(_MISSING)

    async def _watch_own(self) -> None:
        said = ""
        while True:
            try:
                async for directory, name in self._own_directories.changes():
                    self._own_file_changed(directory, name)
            except Retry as error:
                if error.message != said:
                    _LOG.warning("%s: %s", error.message, error.remedy)
                said = error.message
            await asyncio.sleep(_MISSING)

    def _directory_changed(self, directory: SocketDir, there: bool) -> None:  # noqa: FBT001  told by position
        if not there:
            self._own_directories.discard(directory)
            return
        try:
            self._own_directories.add(directory)
        except Retry as error:
            _LOG.warning("%s: %s", error.message, error.remedy)  # the rounds go on looking
        self._own_file_changed(directory, None)

    async def _vswitchd(self) -> None:
        """Hear of vswitchd's end: what it leaves where the next one binds has to go before that one starts."""
        while True:
            found = self._driver.vswitchd()
            pid = found.pid if found else None
            if pid is not None:
                await process.ended(pid)
                found = self._driver.vswitchd()
            if not (found and found.alive):
                self._clear_the_way()
            if pid is not None:
                self.touch_all("vswitchd ended")
            await asyncio.sleep(_MISSING)

    def _clear_the_way(self) -> None:
        trouble = ""
        try:
            self._driver.clear_the_way()
        except PodvifError as error:
            trouble = error.message
        if trouble and trouble != self._in_the_way:
            _LOG.warning("what the last vswitchd left is in the way of the next: %s", trouble)
        self._in_the_way = trouble

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_interval)
            for entry in self._sweep.without_owner():
                self._verbs.leave(entry)
                self.touch(entry.attachment, "sweep")
            await self._sweep.remove_files()
            self.touch_all(
                "resync"
            )  # without waiting: a pod that keeps its worker busy must not hold up the next round
            self._forget_removed()
            if (
                self._settings.csi_endpoint
            ):  # else kubelet's mounts need not be in sight, and every volume would look unmounted
                await self._sweep.remove_volumes()

    def _forget_removed(self) -> None:
        """Drop what was noted of attachments that a DEL has removed since: nobody tells us of that."""
        self._links = self.links()
        self._said = {attachment: said for attachment, said in self._said.items() if self._journal.get(attachment)}
        self._looked = {attachment: when for attachment, when in self._looked.items() if self._journal.get(attachment)}
        for attachment in [attachment for attachment in self._again if not self._journal.get(attachment)]:
            self._rest(attachment)

    def _ports_changed(self, names: Iterable[str]) -> None:
        for name in names:
            if entry := self._journal.by_port(name):
                self.touch(entry.attachment, "OVS port")

    def _own_file_changed(self, directory: str, name: str | None) -> None:
        # Nothing but a pod's own attachments: what it does in its directory is no business of others.
        if name is None or not name.startswith("."):
            for entry in self._journal.of_directory(SocketDir(directory)):
                cause = "socket" if name == entry.vif.name else "pod file"
                self.touch(entry.attachment, "files" if name is None else cause)

    def _file_changed(self, name: str) -> None:
        if name.startswith("."):
            return
        entry = self._journal.by_port(name)
        if entry is not None:
            self.touch(entry.attachment, "socket")
        for container_id in (name.removesuffix(".json"), name.removesuffix(".env")):
            if container_id != name:
                for sibling in self._journal.of_sandbox(container_id):
                    self.touch(sibling.attachment, "pod file")
        container_id, _, ifname = name.partition("-")
        while ifname:
            self.touch(Attachment(container_id, ifname), "pod file")
            more, _, ifname = ifname.partition("-")
            container_id = f"{container_id}-{more}"

    # -- workers -------------------------------------------------------------------------------------------------------

    def touch_all(self, cause: str) -> None:
        """Look at every attachment."""
        for entry in self._journal.all():
            self.touch(entry.attachment, cause)

    def touch(self, attachment: Attachment, cause: str) -> None:
        """Look at an attachment soon; several causes until then are one look."""
        entry = self._journal.get(attachment)
        if not self._runs or entry is None or self._verbs.busy(attachment):  # a verb looks after its own
            return
        self._pending.setdefault(attachment, cause)
        if attachment not in self._workers:
            # Without the context of whoever has told: a verb's log fields and steps are its own.
            loop, nothing = asyncio.get_running_loop(), contextvars.Context()
            worker = self._workers[attachment] = loop.create_task(self._work(attachment), context=nothing)
            worker.add_done_callback(_say_unforeseen)

    async def _work(self, attachment: Attachment) -> None:
        try:
            while attachment in self._pending:
                while (pause := self._looked.get(attachment, 0.0) + _PAUSE - time.monotonic()) > 0:  # noqa: ASYNC110  time is the event
                    await asyncio.sleep(pause)  # and a verb may have ended meanwhile
                # A look holds up the event loop while it observes: before each, everybody else has the loop once.  What it
                # then does or waits for is at nobody's expense, and holds up no other look.
                async with self._turn:
                    await asyncio.sleep(0)
                await self._look(attachment, self._pending.pop(attachment))
                self._note_look(attachment)
        finally:
            del self._workers[attachment]

    def _note_look(self, attachment: Attachment) -> None:
        self._looked[attachment] = time.monotonic()

    async def _look(self, attachment: Attachment, cause: str) -> None:
        entry = self._journal.get(attachment)
        if entry is None or entry.goal is Goal.ATTACHING or self._verbs.busy(attachment):
            return
        try:
            if entry.goal is Goal.LEAVING:
                self._recovered(entry, cause, await self._verbs.absent(entry))
                self._done(attachment)
            else:
                outcome = await self._verbs.attached(entry, mend=self._mend(attachment))
                self._recovered(entry, cause, outcome.steps)
                self._see(entry, outcome.seen)
                if outcome.waits_for not in {None, Step.AWAIT_WIRED}:  # the agent's word is an event of OVSDB's
                    self._look_again(attachment, Why.WAITING)
                elif _unconnected(entry, outcome.seen):
                    self._look_again(attachment, Why.UNCONNECTED)
                else:
                    self._done(attachment)
        except SupersededError:
            return
        except PodvifError as error:
            self._failed(entry, error)

    def _mend(self, attachment: Attachment) -> Mend:
        again = self._again.get(attachment)
        patient = again is not None and again.timer is None and again.why is not Why.UNCONNECTED
        vswitchd = self._driver.vswitchd() if patient else None
        return Mend.ANYTHING if vswitchd and vswitchd.alive else Mend.CERTAIN

    def _look_again(self, attachment: Attachment, why: Why) -> None:
        again = self._again.get(attachment)
        first, most = why.value
        if again is None or again.why is not why:
            self._rest(attachment)
            again = self._again[attachment] = _Again(why, first)
        elif again.timer is None:
            again.delay = min(most, 2 * again.delay)
        else:
            return  # an event has come between
        again.timer = asyncio.get_running_loop().call_later(again.delay, self._ring, attachment)

    def _ring(self, attachment: Attachment) -> None:
        if self._verbs.busy(attachment):
            self._rest(attachment)  # it has seen to it, and patience begins anew
        elif again := self._again.get(attachment):
            again.timer = None
            self.touch(attachment, "retry")

    def _rest(self, attachment: Attachment) -> None:
        again = self._again.pop(attachment, None)
        if again and again.timer:
            again.timer.cancel()

    def _done(self, attachment: Attachment) -> None:
        self._rest(attachment)
        self._said.pop(attachment, None)

    def _failed(self, entry: Entry, error: PodvifError) -> None:
        attachment = entry.attachment
        if error.message != self._said.get(attachment):  # said once, not at every try
            self._said[attachment] = error.message
            _LOG.warning("%s is not as it should be: %s", attachment, error.message)
        self._look_again(attachment, Why.FAILED)
        if entry.goal is not Goal.ATTACHED:
            self._links.pop(attachment, None)
            return
        try:
            self._see(entry, self._driver.observe(want_attached(entry)))
        except PodvifError:
            return  # that, too, is what the next look will say

    def _recovered(self, entry: Entry, cause: str, steps: list[Step]) -> None:
        if not steps:
            return
        _LOG.info(
            "recovered after an event: %s",
            cause,
            extra={
                "container_id": entry.attachment.container_id,
                "ifname": entry.attachment.ifname,
                "pod": str(entry.pod),
                "port": entry.vif.name,
                "steps": [step.value for step in steps],
            },
        )
        for tell in self._observers:
            tell(cause, steps)

    def _see(self, entry: Entry, seen: Seen) -> None:
        state = decide.link(want_attached(entry), seen)
        if state is not Link.CONNECTED and not netns.is_still(entry.netns, entry.netns_inode):
            state = Link.GONE
        before = self._links.get(entry.attachment)
        if before is None or before.link is not state:
            self._links[entry.attachment] = LinkState(state, time.time())
            for tell in self._on_link:
                tell(entry.attachment)


def _say_unforeseen(worker: asyncio.Task[None]) -> None:
    """A worker that dies of what nobody has foreseen is a bug, and the attachment's next event gets another worker."""
    if not worker.cancelled() and (error := worker.exception()):
        _LOG.error("unforeseen, in recovery", exc_info=error)


def _unconnected(entry: Entry, seen: Seen) -> bool:
    """Whether an application is bound to its socket and Open vSwitch has no connection that would tell of its end."""
    connected = seen.port is not None and seen.port.status.get("status") == "connected"
    return entry.vif.listener is Listener.APPLICATION and seen.pod_socket is SocketFile.BOUND and not connected
