"""Recovery: whatever happens around an attachment becomes "converge it again".

Law: an event says which attachment to look at and nothing about what to do; looking once more than needed is harmless, so
events are gathered, and a quiet round over everything catches what an event has missed.  One worker for each attachment, so
that nobody overtakes himself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from podvif.core import attach
from podvif.core.attach import Link, Step
from podvif.errors import PodvifError
from podvif.host import inotify, netns
from podvif.model import Attachment, Entry, Goal, Listener, SeenPort
from podvif.node.converge import SupersededError
from podvif.node.journal import Journal
from podvif.node.sweep import Sweep
from podvif.node.sweep import Switch as SweepSwitch
from podvif.node.verbs import Verbs, want_attached
from podvif.node.vhostuser import VIFVHostUserDriver
from podvif.settings import Settings

_LOG = logging.getLogger(__name__)
_SECONDS = 10.0
"""How long one look may wait for vswitchd to take a port; then it is a failure, and tried again later."""

_PAUSE = 0.02
"""Seconds between two looks at one attachment: a pod that deletes its files in a loop gets no more of the daemon."""

_LOOK_AGAIN = (0.05, 0.25, 1.0, 3.0)
"""Seconds after OVS has lost an application: the kernel may still be closing its sockets, and tells nobody when it has."""

_RETRY_MAX = 30.0


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


class Recovery:
    """Turns events into convergence, and remembers how each link was last seen."""

    def __init__(
        self, journal: Journal, verbs: Verbs, driver: VIFVHostUserDriver, switch: Switch, settings: Settings
    ) -> None:
        """Take the parts; entries of ADDs that a former daemon did not finish are leaving from here on."""
        self._journal = journal
        self._verbs = verbs
        self._driver = driver
        self._switch = switch
        self._settings = settings
        self._sweep = Sweep(journal, verbs, switch, settings)
        self._pending: dict[Attachment, str] = {}
        self._workers: dict[Attachment, asyncio.Task[None]] = {}
        self._failing: dict[Attachment, tuple[str, float]] = {}
        self._links: dict[Attachment, LinkState] = {}
        self._up: set[str] = set()
        self._observers: list[Callable[[str, list[Step]], None]] = []
        for entry in journal.all():
            if entry.goal is Goal.ATTACHING:
                # Before anybody is served: an ADD of now must not meet the half of one that has failed.
                journal.mark(msgspec.structs.replace(entry, goal=Goal.LEAVING))

    def on_recovery(self, call: Callable[[str, list[Step]], None]) -> None:
        """Have `call` told the cause and the steps of each recovery that had something to do."""
        self._observers.append(call)

    def links(self) -> dict[Attachment, LinkState]:
        """The links as they were last seen."""
        return {attachment: state for attachment, state in self._links.items() if self._journal.get(attachment)}

    def swept(self) -> int:
        """How many attachments, ports and files without an owner were removed."""
        return self._sweep.swept

    async def run(self) -> None:
        """Watch and look again, until cancelled."""
        self._switch.on_connect(lambda: self.touch_all("OVSDB"))
        self._switch.on_ports(self._ports_changed)
        self._up = {name for name, port in self._switch.ports().items() if port.link_up}
        self.touch_all("start")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._rounds())

    # -- events --------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        directories = (self._settings.mount_point, self._settings.ovs_vhu_path)
        while True:
            async for name in inotify.changes(directories):
                if name is None:
                    self.touch_all("files")
                else:
                    self._file_changed(name)
            await asyncio.sleep(1)  # a directory was lost; whoever removed it may be about to make it again

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_interval)
            await self._sweep.run()
            self.touch_all(
                "resync"
            )  # without waiting: a pod that keeps its worker busy must not hold up the next round
            self._forget_removed()

    def _forget_removed(self) -> None:
        """Drop what was noted of attachments that a DEL has removed since: nobody tells us of that."""
        self._links = self.links()
        self._failing = {key: value for key, value in self._failing.items() if self._journal.get(key)}
        self._up = {name for name in self._up if self._journal.by_port(name)}

    def _ports_changed(self, names: Iterable[str]) -> None:
        for name in names:
            entry = self._journal.by_port(name)
            if entry is None:
                continue
            self.touch(entry.attachment, "OVS port")
            port = self._switch.port(name)
            if port is not None and port.link_up:
                self._up.add(name)
            elif name in self._up:
                self._up.discard(name)
                for delay in _LOOK_AGAIN if entry.vif.listener is Listener.APPLICATION else ():
                    asyncio.get_running_loop().call_later(delay, self.touch, entry.attachment, "application")

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
        if entry is None or self._verbs.busy(attachment):  # a verb looks after its own
            return
        self._pending.setdefault(attachment, cause)
        if attachment not in self._workers:
            self._workers[attachment] = asyncio.ensure_future(self._work(attachment))

    async def _work(self, attachment: Attachment) -> None:
        try:
            while cause := self._pending.pop(attachment, None):
                await self._converge(attachment, cause)
                await asyncio.sleep(_PAUSE)
        finally:
            del self._workers[attachment]

    async def _converge(self, attachment: Attachment, cause: str) -> None:
        entry = self._journal.get(attachment)
        if entry is None or entry.goal is Goal.ATTACHING or self._verbs.busy(attachment):
            return
        try:
            if entry.goal is Goal.LEAVING:
                steps = await self._verbs.absent(entry)
            else:
                steps = await self._verbs.attached(entry, _SECONDS, mend=True)
        except SupersededError:
            return
        except PodvifError as error:
            self._failed(entry, error)
        else:
            self._succeeded(entry, cause, steps)
        if self._journal.get(attachment) is not None:
            self._see_link(entry)

    def _failed(self, entry: Entry, error: PodvifError) -> None:
        reason, delay = self._failing.get(entry.attachment, ("", 0.5))
        delay = min(_RETRY_MAX, delay * 2)
        self._failing[entry.attachment] = (error.message, delay)
        if error.message != reason:  # said once, not at every try
            _LOG.warning("%s is not as it should be: %s", entry.attachment, error.message)
        asyncio.get_running_loop().call_later(delay, self.touch, entry.attachment, "retry")

    def _succeeded(self, entry: Entry, cause: str, steps: list[Step]) -> None:
        self._failing.pop(entry.attachment, None)
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

    def _see_link(self, entry: Entry) -> None:
        if entry.goal is not Goal.ATTACHED:
            self._links.pop(entry.attachment, None)
            return
        want = want_attached(entry)
        state = attach.link(want, self._driver.observe(want))
        if state is not Link.CONNECTED and not netns.is_still(entry.netns, entry.netns_inode):
            state = Link.GONE
        before = self._links.get(entry.attachment)
        if before is None or before.link is not state:
            self._links[entry.attachment] = LinkState(state, time.time())
