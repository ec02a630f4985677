"""The journal: what we intend for each attachment, one file each.

Law: a file is written before the first act for an attachment and removed after the last, atomically (temp file and rename).
The goal stands in its name (the text has the one of when it was written), so that another goal is a rename: a full disk does it
too, and a rename over a file would have ext4 write it out at once, which costs milliseconds.  There is no fsync: a host that loses power loses its sandboxes too, and rows left over are found by our marks.  This
process is the only writer, so what was read at start is what is on the disk.
"""

import logging
import os

import msgspec

from podvif import errors, names
from podvif.errors import Refused, Retry
from podvif.host import files
from podvif.model import Attachment, Entry, Goal, SocketDir
from podvif.node.records import read_records

_LOG = logging.getLogger(__name__)


class Journal:
    """The node's attachments by key."""

    def __init__(self, state_dir: str) -> None:
        """Open the journal below `state_dir`, making what is missing, and read it.

        Raises:
            Refused: the directory cannot be made or read.
        """
        self._directory = names.journal_directory(state_dir)
        self._entries: dict[Attachment, Entry] = {}
        self._written: dict[Attachment, Entry] = {}
        self._by_port: dict[str, Attachment] = {}
        self._behind: set[Attachment] = set()
        self._encoder = msgspec.json.Encoder()
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)  # noqa: PTH103
            found = read_records(self._directory, "journal file", parse_entry)
        except OSError as error:
            raise Refused(
                f"[node] state_dir {state_dir} cannot be used: {error.strerror}",
                "it has to be a directory that root can write to",
                code=errors.IO_FAILURE,
            ) from error
        for entry in found:
            self._written[entry.attachment] = entry
            self.remember(entry)

    def get(self, attachment: Attachment) -> Entry | None:
        """The entry of an attachment."""
        return self._entries.get(attachment)

    def by_port(self, name: str) -> Entry | None:
        """The entry whose OVS port has that name."""
        attachment = self._by_port.get(name)
        return self._entries.get(attachment) if attachment else None

    def all(self) -> list[Entry]:
        """Every entry, in the order of their ADD."""
        return sorted(self._entries.values(), key=lambda entry: (entry.created, entry.attachment))

    def of_sandbox(self, container_id: str) -> list[Entry]:
        """The entries of one sandbox that are not leaving, in the order of their ADD."""
        found = [
            entry
            for entry in self._entries.values()
            if entry.attachment.container_id == container_id and entry.goal is not Goal.LEAVING
        ]
        return sorted(found, key=lambda entry: (entry.created, entry.attachment))

    def of_directory(self, directory: SocketDir) -> list[Entry]:
        """The entries whose sockets lie in a directory and that are not leaving, in the order of their ADD."""
        found = [
            entry
            for entry in self._entries.values()
            if entry.goal is not Goal.LEAVING and entry.vif.directory == directory
        ]
        return sorted(found, key=lambda entry: (entry.created, entry.attachment))

    def led_by(self, attachment: Attachment) -> list[Entry]:
        """The entries that come and go with that attachment, in the order of their ADD, leaving or not."""
        found = [
            entry
            for entry in self._entries.values()
            if entry.leader and entry.asked_by == attachment and entry.attachment != attachment
        ]
        return sorted(found, key=lambda entry: entry.created)

    def put(self, entry: Entry) -> None:
        """Write an entry.

        Raises:
            Retry: the disk is full or fails; the entry that was there before stands.
        """
        written = self._written.get(entry.attachment)
        if written and written.goal is not entry.goal:
            files.move(self._path(written), self._path(entry))
            written = self._written[entry.attachment] = msgspec.structs.replace(written, goal=entry.goal)
        if written != entry:
            text = self._encoder.encode(entry).decode()
            files.write_texts(self._directory, {names.journal_file(entry.attachment, entry.goal): text}, mode=0o600)
            self._written[entry.attachment] = entry
        self.remember(entry)
        self._behind.discard(entry.attachment)

    def mark(self, entry: Entry) -> None:
        """Write an entry if that is possible, and go on with it if not: what leaves has to leave on a full disk too."""
        try:
            self.put(entry)
        except (Retry, Refused) as error:
            _LOG.warning(
                "%s is %s and the journal cannot be told: %s", entry.attachment, entry.goal.value, error.message
            )
            self.remember(entry)
            self._behind.add(entry.attachment)

    def is_behind(self, attachment: Attachment) -> bool:
        """Whether the disk says something older of the attachment: what a new daemon would go on from."""
        return attachment in self._behind

    def remember(self, entry: Entry) -> None:
        """Change an entry in memory alone: for what need not be known after a crash, since it is done again then."""
        self._entries[entry.attachment] = entry
        self._by_port[entry.vif.name] = entry.attachment

    def remove(self, attachment: Attachment) -> None:
        """Forget an attachment; forgotten already is fine."""
        files.remove(self._directory, [names.journal_file(attachment, goal) for goal in Goal])
        self._written.pop(attachment, None)
        self._behind.discard(attachment)
        entry = self._entries.pop(attachment, None)
        if entry and self._by_port.get(entry.vif.name) == attachment:
            del self._by_port[entry.vif.name]

    def _path(self, entry: Entry) -> str:
        return f"{self._directory}/{names.journal_file(entry.attachment, entry.goal)}"


def parse_entry(name: str, text: str) -> Entry:
    """The entry in the file of that name.

    Raises:
        msgspec.MsgspecError: the text is no entry, or not the one that the name says.
    """
    entry = msgspec.json.decode(text, type=Entry)
    for goal in Goal:
        if name == names.journal_file(entry.attachment, goal):
            return msgspec.structs.replace(entry, goal=goal)
    raise msgspec.ValidationError(f"it is the entry of {entry.attachment}, and its name is of another, or has no goal")
