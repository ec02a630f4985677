"""Recovery: converge again, for each attachment in the journal.

Law: it knows nothing that a verb does not know.  An ADD that had not answered when the daemon died has failed in the
runtime's eyes, so it goes to absent; what was leaving leaves; what was attached is attached again.
"""

import asyncio
import logging

import msgspec

from podvif.errors import PodvifError
from podvif.model import Entry, Goal
from podvif.node.converge import SupersededError
from podvif.node.journal import Journal
from podvif.node.verbs import Verbs

_LOG = logging.getLogger(__name__)
_AT_ONCE = 8
_SECONDS = 30.0


class Recovery:
    """Runs at start, and each time that OVSDB can be asked again."""

    def __init__(self, journal: Journal, verbs: Verbs) -> None:
        """Take what is recovered, and by whom."""
        self._journal = journal
        self._verbs = verbs
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        for entry in journal.all():
            if entry.goal is Goal.ATTACHING:
                # Before anybody is served: an ADD of now must not meet the half of one that has failed.
                journal.mark(msgspec.structs.replace(entry, goal=Goal.LEAVING))

    async def run(self) -> None:
        """Converge every attachment; what fails is said and stays in the journal for the next time."""
        await asyncio.gather(*(self._one(entry) for entry in self._journal.all()))

    async def _one(self, entry: Entry) -> None:
        async with self._at_once:
            current = self._journal.get(entry.attachment)
            if current is None:
                return
            entry = current  # as it is now that its turn has come
            try:
                if entry.goal is Goal.LEAVING:
                    await self._verbs.absent(entry)
                elif entry.goal is Goal.ATTACHED:
                    await self._verbs.attached(entry, _SECONDS)
            except SupersededError:
                return
            except PodvifError as error:
                _LOG.warning("%s is not recovered: %s", entry.attachment, error.message)
