"""Files with records, read at the daemon's start."""

import logging
from pathlib import Path

import pytest

from podvif.node.records import read_records


def parse(name: str, text: str) -> str:
    """A record: its file's name and its text, which is no "bad"."""
    if text == "bad":
        raise ValueError("it is bad")
    return f"{name} {text}"


def test_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Records come in the order of their names; a bad one is set aside and said, a text without its name goes, other files stay."""
    for name, text in {"b.json": "2", "a.json": "1", "c.json": "bad", ".d.json.new": "3", "README": "4"}.items():
        (tmp_path / name).write_text(text)

    with caplog.at_level(logging.ERROR):
        found = read_records(str(tmp_path), "thing", parse)

    assert found == ["a.json 1", "b.json 2"]
    assert f"thing {tmp_path}/c.json is not readable and is set aside: it is bad" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json", "c.json.unreadable", "README"}


def test_no_directory(tmp_path: Path) -> None:
    """A directory that is not there is the caller's to judge."""
    with pytest.raises(FileNotFoundError):
        read_records(str(tmp_path / "none"), "thing", parse)
