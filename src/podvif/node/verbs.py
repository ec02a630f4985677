"""CNI's verbs, each a sentence about `converge`.

Law: ADD converges to attached, and to absent when that fails; DEL and GC converge to absent; CHECK asks whether there is
anything left to do; STATUS looks at what every ADD needs.  None of them knows how a port is made.
"""

import asyncio
import collections
import contextlib
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from podvif import errors
from podvif.core import cni, decide
from podvif.core.attach import Mend, Step, Want
from podvif.core.cni import Command, Request
from podvif.daemon.log import CONTEXT
from podvif.errors import PodvifError, Refused, Retry
from podvif.ipam.delegate import Delegate
from podvif.model import Addresses, Attachment, Entry, Goal, IpamCall
from podvif.node.converge import Locks, Outcome, SupersededError, World, converge
from podvif.node.journal import Journal
from podvif.node.readiness import Readiness
from podvif.node.sources import Source, same_intent
from podvif.settings import Settings

_LOG = logging.getLogger(__name__)

ABSENT_SECONDS = 30.0
"""How long a removal may take in all; nothing in it waits for vswitchd."""

_STEPS: contextvars.ContextVar[list[Step] | None] = contextvars.ContextVar("steps", default=None)
"""The steps that the running verb has taken, for its line in the log."""


class Verbs:
    """Answers requests; one object for the daemon's life."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        driver: World,
        delegate: Delegate,
        readiness: Readiness,
        *,
        source: Source,
    ) -> None:
        """Take the parts."""
        self._settings = settings
        self._journal = journal
        self._driver = driver
        self._delegate = delegate
        self._readiness = readiness
        self._source = source
        self._locks = Locks()
        self._unwanted: dict[Attachment, set[asyncio.Future[None]]] = {}
        self._busy: collections.Counter[Attachment] = collections.Counter()
        self._deleted: collections.Counter[Attachment] = collections.Counter()
        self._several: set[Attachment] = set()
        self._on_failure: list[Callable[[Attachment], None]] = []
        self._on_several: list[Callable[[Attachment], None]] = []
        self._on_end: list[Callable[[Attachment], None]] = []
        self._table: dict[Command, Callable[[Request], Awaitable[dict[str, Any] | None]]] = {
            Command.ADD: self._add,
            Command.CHECK: self._check,
            Command.DEL: self._del,
            Command.GC: self._gc,
            Command.STATUS: self._status,
            Command.VERSION: self._version,
        }

    async def answer(self, request: Request) -> tuple[dict[str, Any] | None, list[Step]]:
        """What goes to stdout (None: nothing), and the steps it took.

        Raises:
            PodvifError: the verb failed.
        """
        taken: list[Step] = []
        _STEPS.set(taken)
        if request.attachment is None or request.command not in {Command.ADD, Command.DEL}:
            return await self._table[request.command](request), taken
        with self._busy_with(request.attachment):
            return await self._table[request.command](request), taken

    def busy(self, attachment: Attachment) -> bool:
        """Whether an ADD or a DEL is working on the attachment: it looks last at everything, so nobody else need."""
        return self._busy[attachment] > 0

    def on_failure(self, call: Callable[[Attachment], None]) -> None:
        """Have `call` told of each attachment whose ADD or DEL has failed: what is left is nobody's care then."""
        self._on_failure.append(call)

    def on_several(self, call: Callable[[Attachment], None]) -> None:
        """Have `call` told of each attachment of an ADD of several that has succeeded.

        What happened to the first ones while the last was not yet attached nobody has looked at: they were busy.
        """
        self._on_several.append(call)

    def on_end(self, call: Callable[[Attachment], None]) -> None:
        """Have `call` told of each attachment whose ADD or DEL has ended."""
        self._on_end.append(call)

    @contextlib.contextmanager
    def _busy_with(self, attachment: Attachment) -> Iterator[None]:
        self._busy[attachment] += 1
        failed = True
        try:
            yield
            failed = False
        finally:
            self._busy[attachment] -= 1
            if not self._busy[attachment]:
                del self._busy[attachment]
                self._deleted.pop(attachment, None)
            several = self._on_several if attachment in self._several else ()
            self._several.discard(attachment)
            for tell in (*(self._on_failure if failed else ()), *several, *self._on_end):
                tell(attachment)

    # -- the verbs -----------------------------------------------------------------------------------------------------

    async def _add(self, request: Request) -> dict[str, Any]:
        deadline = time.monotonic() + self._settings.add_timeout
        deleted = self._deleted[request.expect_attachment()]
        asked = await self._source.entries(request)
        _name_port(asked[0])
        entries: list[Entry] = []
        with contextlib.ExitStack() as followers:
            for wanted in asked[1:]:
                followers.enter_context(self._busy_with(wanted.attachment))
            try:
                for wanted in asked:
                    self._expect_not_deleted(asked[0].attachment, deleted)
                    entries.append(await self._begun(wanted))
                self._expect_not_deleted(asked[0].attachment, deleted)
                await self._all_attached(entries, deadline)
                done = [self._current(entry) for entry in entries]
                # The leader last: when it is attached all of them are.
                for entry in reversed(done):
                    if entry.goal is not Goal.ATTACHED:
                        self._journal.put(msgspec.structs.replace(entry, goal=Goal.ATTACHED))
                if len(done) > 1:
                    self._several.update(entry.attachment for entry in done)
            except SupersededError:
                await asyncio.shield(self._roll_back(entries))
                raise Retry(f"{asked[0].attachment} was deleted while it was being added") from None
            except BaseException:
                # A repeat that fails says so and leaves what stands: an application may be running on it.
                await asyncio.shield(self._roll_back(entries))
                raise
        return cni.render_result(request, done[0].vif, done[0].addresses or Addresses())

    async def _begun(self, wanted: Entry) -> Entry:
        """The entry that the journal has from now on: the one that it had, if that wants the same."""
        entry = self._journal.get(wanted.attachment)
        if entry and entry.goal is Goal.LEAVING:
            await self.absent(entry)
            entry = None
        if entry and not same_intent(entry, wanted):
            raise Refused(
                f"{wanted.attachment} is attached with other settings", "DEL it before it is added in another way"
            )
        if entry is None:
            former = self._journal.by_port(wanted.vif.name) if wanted.vif.neutron else None
            if former and former.attachment != wanted.attachment:
                _LOG.info("%s leaves: its Neutron port goes to %s", former.attachment, wanted.attachment)
                await self.absent(former)
            await self._former_sandboxes_absent(wanted)
            self._journal.put(wanted)
            entry = wanted
        return entry

    async def _former_sandboxes_absent(self, wanted: Entry) -> None:
        """A pod has one sandbox at a time: what a former one has left in the pod's own directory goes before the next comes."""
        if wanted.vif.mounted_at is None:
            return
        for former in self._journal.of_directory(wanted.vif.directory):
            if former.attachment.container_id != wanted.attachment.container_id:
                _LOG.info("%s leaves: its pod has another sandbox, %s", former.attachment, wanted.attachment)
                await self.absent(former)

    def _expect_not_deleted(self, leader: Attachment, before: int) -> None:
        """Go on unless a DEL has come since there were `before` of them: it found no entry that could have told us."""
        if self._deleted[leader] != before:
            raise SupersededError

    async def _all_attached(self, entries: list[Entry], deadline: float) -> None:
        # In tenths: a message has it.  Never nothing, which would mean not to wait at all.
        seconds = max(0.1, round(deadline - time.monotonic(), 1))
        if len(entries) == 1:
            await self.attached(entries[0], seconds)
            return
        tasks = [asyncio.ensure_future(self.attached(entry, seconds)) for entry in entries]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if pending:
            # They are told and not cancelled: os-vif would go on in its thread.
            for entry in entries:
                if entry.goal is Goal.ATTACHING:
                    self.leave(entry)
            await asyncio.wait(pending)
        failures = [failure for task in tasks if (failure := task.exception())]
        if failures:
            raise next((each for each in failures if not isinstance(each, SupersededError)), failures[0])

    def _current(self, entry: Entry) -> Entry:
        found = self._journal.get(entry.attachment)
        if found is None or found.goal is Goal.LEAVING:
            raise SupersededError
        return found

    async def _roll_back(self, entries: list[Entry]) -> None:
        """Take back what this ADD has begun, and nobody else has taken into his care since."""
        leader = self._journal.get(entries[0].attachment) if entries else None
        if leader and leader.goal is Goal.ATTACHED and leader.created == entries[0].created:
            return  # another ADD of the same has succeeded meanwhile, and has said so: a pod may be running on it
        for begun in entries:
            entry = self._journal.get(begun.attachment)
            if begun.goal is not Goal.ATTACHING or entry is None or entry.created != begun.created:
                continue
            try:
                await self.absent(entry)
            except PodvifError as error:
                _LOG.warning("%s is leaving after a failed ADD: %s", begun.attachment, error.message)

    async def _del(self, request: Request) -> None:
        attachment = request.expect_attachment()
        self._deleted[attachment] += 1
        self._source.unwanted(attachment)
        entry = self._journal.get(attachment) or self._source.leaving(request)
        _name_port(entry)
        if request.path and entry.ipam and not entry.ipam.path:
            entry = msgspec.structs.replace(entry, ipam=msgspec.structs.replace(entry.ipam, path=request.path))
            self._journal.remember(entry)
        leaving = [entry, *self._journal.led_by(attachment)]
        if len(leaving) > 1:
            for each in leaving:  # all of them before the first goes: a daemon that dies now goes on with all
                self.leave(each)
        failures = []
        for each in leaving:
            try:
                await self.absent(each)
            except PodvifError as error:
                failures.append((each, error))
        for each, failure in failures:
            # The intention is written down, and nothing that the pod could see is left: CNI wants a DEL that succeeds.
            # Only a runtime that could do better by trying again is told of the failure.
            written_down = self._readiness.switch_trouble() and not self._journal.is_behind(each.attachment)
            if not isinstance(failure, Retry) or not written_down:
                raise failure
            _LOG.warning("%s is leaving, the rest follows: %s", each.attachment, failure.message)

    async def _check(self, request: Request) -> None:
        attachment = request.expect_attachment()
        entry = self._journal.get(attachment)
        if entry is None or entry.goal is not Goal.ATTACHED:
            raise Refused(
                f"{attachment} is not attached",
                "ADD has not succeeded, or DEL has removed it",
                code=errors.UNKNOWN_CONTAINER,
            )
        reason = self._why_not_attached(entry) or cni.why_not_previous(request, entry.vif)
        for follower in () if reason else self._journal.led_by(attachment):
            reason = reason or self._why_not_attached(follower)
        if reason:
            raise Retry(reason, "podvif mends it when it can; else recreate the pod")
        if entry.ipam:
            await self._delegate.check(attachment, entry.ipam, request.config["prevResult"])

    def _why_not_attached(self, entry: Entry) -> str | None:
        want = want_attached(entry)
        return decide.why_not_attached(want, self._driver.observe(want))

    async def _gc(self, request: Request) -> None:
        valid = cni.parse_valid_attachments(request.config)
        gone = [
            entry
            for entry in self._journal.all()
            if valid is not None and entry.network == request.network and entry.asked_by not in valid
        ]
        failures = [
            f"{entry.attachment}: {failure}"
            for entry, failure in zip(gone, await asyncio.gather(*map(self._collect, gone)), strict=True)
            if failure
        ]
        for entry in gone:
            for tell in self._on_end:
                tell(entry.attachment)
        match request.config.get("ipam"):
            case {"type": str(name)} if name:
                call = IpamCall(request.config, request.path, request.netns, request.raw_args)
                try:
                    await self._delegate.collect(call)
                except PodvifError as error:
                    failures.append(error.message)
        if failures:
            raise Retry(
                f"GC could not remove everything: {'; '.join(failures)}", "the rest is tried again at the next GC"
            )

    async def _collect(self, entry: Entry) -> str | None:
        try:
            await self.absent(entry)
        except PodvifError as error:
            return error.message
        return None

    async def _status(self, request: Request) -> None:
        del request
        if reason := await self._readiness.why_not():
            raise Retry(reason, "see the node daemon's log and `podvif status`", code=errors.NOT_AVAILABLE)

    async def _version(self, request: Request) -> dict[str, Any]:
        return cni.render_version(request.version)

    # -- the two goals -------------------------------------------------------------------------------------------------

    async def attached(self, entry: Entry, seconds: float = 0.0, mend: Mend = Mend.NOTHING) -> Outcome:
        """Converge to attached, waiting for vswitchd for `seconds` in all; without any, a wait is where it ends.

        Raises:
            SupersededError: the attachment is leaving meanwhile.
            PodvifError: it cannot be attached.
        """
        want = msgspec.structs.replace(want_attached(entry), mend=mend)

        def wanted() -> bool:
            found = self._journal.get(entry.attachment)
            return found is not None and found.goal is not Goal.LEAVING

        if self._readiness.switch_trouble():
            await self._readiness.connect()
        unwanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._unwanted.setdefault(entry.attachment, set())
        waiting.add(unwanted)
        try:
            outcome = await converge(
                want,
                self._driver,
                self._locks,
                seconds=seconds,
                wanted=wanted,
                unwanted=unwanted,
                waiting=seconds > 0,
            )
        finally:
            waiting.discard(unwanted)
            if not waiting:
                self._unwanted.pop(entry.attachment, None)
        self._note(outcome.steps)
        return outcome

    def leave(self, entry: Entry) -> Entry:
        """Write down that the attachment leaves, and wake up whoever waits for it to be attached."""
        found = self._journal.get(entry.attachment)
        leaving = msgspec.structs.replace(found or entry, goal=Goal.LEAVING)
        if leaving != found or self._journal.is_behind(entry.attachment):
            self._journal.mark(leaving)
        for unwanted in self._unwanted.get(entry.attachment, ()):
            if not unwanted.done():
                unwanted.set_result(None)
        return leaving

    async def absent(self, entry: Entry) -> list[Step]:
        """Write down that the attachment leaves, and converge to absent; returns the steps taken.

        Raises:
            PodvifError: something is left; the entry stays *leaving*.
        """
        leaving = self.leave(entry)
        want = Want(leaving.attachment, Goal.LEAVING, leaving.vif, leaving.pod)

        def wanted() -> bool:
            found = self._journal.get(entry.attachment)
            return found is None or found.goal is Goal.LEAVING

        try:
            outcome = await converge(want, self._driver, self._locks, seconds=ABSENT_SECONDS, wanted=wanted)
        except SupersededError:
            _LOG.info("%s is being added again while it leaves", entry.attachment)
            return []
        self._note(outcome.steps)
        return outcome.steps

    def _note(self, steps: list[Step]) -> None:
        taken = _STEPS.get()
        if taken is not None:
            taken.extend(steps)


def want_attached(entry: Entry) -> Want:
    """The goal of an entry that is, or is to be, attached."""
    return Want(entry.attachment, Goal.ATTACHED, entry.vif, entry.pod, reserve=entry.ipam is not None)


def _name_port(entry: Entry) -> None:
    """Name the port in the lines of the log: a Neutron port's name does not follow from the request."""
    if entry.vif.neutron:
        CONTEXT.set({**CONTEXT.get(), "port": entry.vif.name})
