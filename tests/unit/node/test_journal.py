"""The journal: one file for each attachment."""

import errno
import logging
import os
from pathlib import Path

import msgspec
import pytest

from podvif import errors, names
from podvif.errors import Refused, Retry
from podvif.model import Attachment, Entry, Goal
from podvif.node.journal import Journal
from tests.fakes.values import ATTACHMENT, entry

SECOND, OTHER = Attachment("c0ffee", "net2"), Attachment("beef", "net1")


def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "attachments"


def opened(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "state"))


def file_of(tmp_path: Path, attachment: Attachment = ATTACHMENT) -> Path:
    return folder(tmp_path) / names.journal_file(attachment, Goal.ATTACHED)


def test_remembered(tmp_path: Path) -> None:
    """An entry that was put is there for the next daemon, the last one for each attachment, until it is removed."""
    journal = opened(tmp_path)
    journal.put(entry(goal=Goal.ATTACHING))
    journal.put(entry(attachment=OTHER))
    journal.put(entry(goal=Goal.ATTACHED))

    for found in (journal, opened(tmp_path)):
        assert found.get(ATTACHMENT) == entry(goal=Goal.ATTACHED)
        assert found.get(OTHER) == entry(attachment=OTHER)
        assert found.get(SECOND) is None

    for _ in range(2):
        journal.remove(ATTACHMENT)
    assert journal.get(ATTACHMENT) is None
    assert [found.attachment for found in opened(tmp_path).all()] == [OTHER]


def test_rights(tmp_path: Path) -> None:
    """Only root may enter the directory and read the files."""
    opened(tmp_path).put(entry())

    assert folder(tmp_path).stat().st_mode & 0o777 == 0o700
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder(tmp_path).iterdir()] == ["c0ffee:net1.attached.json"]


def test_order(tmp_path: Path) -> None:
    """Entries stand in the order of their ADD, of one moment in the order of their names; leaving ones are not of the sandbox."""
    journal = opened(tmp_path)
    for made in (
        entry(attachment=SECOND, created=2.0),
        entry(attachment=OTHER, created=1.0),
        entry(attachment=ATTACHMENT, created=2.0),
        entry(attachment=Attachment("c0ffee", "net0"), created=3.0),
        entry(attachment=Attachment("c0ffee", "gone"), created=0.5, goal=Goal.LEAVING),
    ):
        journal.put(made)

    for found in (journal, opened(tmp_path)):
        assert [str(each.attachment) for each in found.all()] == [
            "c0ffee:gone",
            "beef:net1",
            "c0ffee:net1",
            "c0ffee:net2",
            "c0ffee:net0",
        ]
        assert [each.attachment.ifname for each in found.of_sandbox("c0ffee")] == ["net1", "net2", "net0"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        msgspec.json.encode(entry(attachment=OTHER)),
        msgspec.json.encode(entry()).replace(b'"mode"', b'"somewhere"').replace(b'"netns":"', b'"netns":1,"x":"'),
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content)[:20],
)
def test_unreadable(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    """A file that cannot be understood is set aside and said in the log, and the others are served."""
    opened(tmp_path).put(entry(attachment=OTHER))
    file_of(tmp_path).write_bytes(content)

    with caplog.at_level(logging.ERROR):
        journal = opened(tmp_path)

    assert [found.attachment for found in journal.all()] == [OTHER]
    assert (folder(tmp_path) / "c0ffee:net1.attached.json.unreadable").read_bytes() == content
    assert str(file_of(tmp_path)) in caplog.text
    caplog.clear()
    assert opened(tmp_path).get(OTHER)
    assert not caplog.text


def test_killed_between_write_and_rename(tmp_path: Path) -> None:
    """A text that had not got its name when the daemon was killed is removed, and the entry before it stands."""
    opened(tmp_path).put(entry())
    (folder(tmp_path) / ".c0ffee:net1.attached.json.new").write_bytes(b'{"attachment"')

    assert opened(tmp_path).get(ATTACHMENT) == entry()
    assert [path.name for path in folder(tmp_path).iterdir()] == ["c0ffee:net1.attached.json"]


def test_other_files(tmp_path: Path) -> None:
    """Files of another kind in the directory are let be."""
    opened(tmp_path)
    (folder(tmp_path) / "README").write_text("x")

    assert opened(tmp_path).all() == []
    assert (folder(tmp_path) / "README").exists()


def _in_the_way(tmp_path: Path) -> Path:
    """A directory where the file would get its name: naming it so fails, whoever asks."""
    blocked = folder(tmp_path) / "c0ffee:net1.leaving.json"
    blocked.mkdir()
    return blocked


def test_disk_fails(tmp_path: Path) -> None:
    """When the disk fails a put says so with the path, and the entry that was there before stands."""
    journal = opened(tmp_path)
    journal.put(entry(goal=Goal.ATTACHING))
    blocked = _in_the_way(tmp_path)

    with pytest.raises((Retry, Refused), match=r"cannot be moved to .*c0ffee:net1\.leaving\.json") as caught:
        journal.put(entry(goal=Goal.LEAVING))

    assert caught.value.code == errors.IO_FAILURE
    assert journal.get(ATTACHMENT) == entry(goal=Goal.ATTACHING)
    blocked.rmdir()
    assert opened(tmp_path).get(ATTACHMENT) == entry(goal=Goal.ATTACHING)


def test_leaving_on_a_failing_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What leaves has to leave on a failing disk too: that it does is remembered, and the failure is said."""
    journal = opened(tmp_path)
    journal.put(entry())
    _in_the_way(tmp_path)

    journal.mark(entry(goal=Goal.LEAVING))

    assert journal.is_behind(ATTACHMENT)
    found = journal.get(ATTACHMENT)
    assert found is not None
    assert found.goal is Goal.LEAVING
    assert "c0ffee:net1 is leaving and the journal cannot be told" in caplog.text


def test_remembered_in_memory_alone(tmp_path: Path) -> None:
    """What is only remembered is not known to the next daemon."""
    journal = opened(tmp_path)
    journal.put(entry(goal=Goal.LEAVING))
    changed: Entry = entry(goal=Goal.LEAVING, network="other")
    journal.remember(changed)

    assert journal.get(ATTACHMENT) == changed
    assert opened(tmp_path).get(ATTACHMENT) == entry(goal=Goal.LEAVING)


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_no_directory(tmp_path: Path, kind: str) -> None:
    """A state directory that cannot be made is refused with its option and path."""
    (tmp_path / "state").touch()
    path = tmp_path / "state" / ("x" if kind == "below a file" else "")

    with pytest.raises(Refused) as caught:
        Journal(str(path))

    assert f"[node] state_dir {path}".rstrip("/") in caught.value.message
    assert os.strerror(errno.ENOTDIR) in caught.value.message
