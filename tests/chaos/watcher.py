"""The independent watcher: a process that writes down every file event of some directories, and reads what appears.

Law: it judges one thing only, whether a text that has just got its final name is whole; all else is written down as it
came, one JSON object a line on stdout.  Nothing of podvif is imported: it would share its mistakes.
"""

import ctypes
import json
import os
import re
import struct
import sys
from pathlib import Path

CREATE, MOVED_FROM, MOVED_TO, DELETE, OVERFLOW = 0x100, 0x40, 0x80, 0x200, 0x4000
"""inotify(7)."""

OWN = b"#chaos"
"""What the walk itself writes begins like this."""

_EVENT = struct.Struct("iIII")
_TEXT = re.compile(r"[0-9a-f]{64}(\.json|\.env|-[^/]+|:[^/]+\.json)")
_TEXT_MAX = 1 << 20


def main(directories: list[str]) -> None:
    """Watch until killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    watched = {}
    for directory in directories:
        watch = libc.inotify_add_watch(descriptor, os.fsencode(directory), CREATE | MOVED_FROM | MOVED_TO | DELETE)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", directory)
        watched[watch] = directory
    _say({"ready": True})
    while True:
        data, offset = os.read(descriptor, 1 << 16), 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            name = data[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0").decode()
            offset += _EVENT.size + length
            directory = watched.get(watch, "")
            _say({"directory": directory, "name": name, "mask": mask, "wrong": _why_not_whole(directory, name, mask)})


def _say(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _why_not_whole(directory: str, name: str, mask: int) -> str | None:
    if not mask & (CREATE | MOVED_TO) or not _TEXT.fullmatch(name):
        return None
    try:
        data = Path(directory, name).read_bytes()[:_TEXT_MAX]
    except OSError:
        return None  # it is gone again
    if data.startswith(OWN):
        return None
    if mask & CREATE:
        return "was made under its final name"
    if name.endswith(".env"):
        whole = data.startswith(b"VHOSTUSER_COUNT=") and data.endswith(b"\n") and b"\nVHOSTUSER_VDEVS=" in data
        return None if whole else f"is not whole: {data[-80:]!r}"
    try:
        json.loads(data)
    except ValueError:
        return f"is not whole: {data[-80:]!r}"
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
