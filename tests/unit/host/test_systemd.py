"""Saying how far we are."""

import os
import socket
from pathlib import Path

import pytest

from podvif.host import systemd


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The state arrives as one datagram at $NOTIFY_SOCKET, a path or an abstract name."""
    name = f"podvif-notify-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if kind == "abstract" else str(tmp_path / name))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if kind == "abstract" else str(tmp_path / name))

        systemd.notify("READY=1")

        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("value", [None, ""])
def test_nobody_wants_to_know(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """Without $NOTIFY_SOCKET nothing is sent and nothing fails."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if value is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", value)

    systemd.notify("READY=1")


def test_nobody_listens_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager that is gone does not bring the daemon down."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))

    systemd.notify("STOPPING=1")
