"""What the independent watcher has seen, and what of it should not have been.

Law: the watcher is told nothing of what is expected; whoever asks it names the files that nobody may touch.
"""

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from podvif.lab.process import Child, LabError, wait_any
from tests.chaos import watcher

_LOOK = 0.01
"""Seconds between two looks at its record: a file tells nobody that it grows."""

_SOON = 20.0


class Watch:
    """The watcher's process (`tests/chaos/watcher.py`) and its record."""

    def __init__(self, log: Path, directories: Iterable[Path]) -> None:
        """Start it; it watches when this returns."""
        self._log = log
        self._directories = [str(directory) for directory in directories]
        log.write_text("")
        command = [sys.executable, "-I", watcher.__file__, *self._directories]
        self._child = Child(command, log=log, name="the watcher")
        self._offset = 0
        self.events = 0
        self._wait_for(lambda document: bool(document.get("ready")))

    def stop(self) -> None:
        """End it."""
        self._child.kill()

    def violations(self, untouchable: Iterable[Path]) -> list[str]:
        """What it has seen since the last time that should not have been.

        Args:
            untouchable: files that nobody may remove or rename.
        """
        kept = {str(path) for path in untouchable}
        found: list[str] = []
        mark = Path(self._directories[0], f"sync-{secrets.token_hex(4)}")
        mark.touch()

        def seen(document: dict[str, object]) -> bool:
            self.events += 1
            path = f"{document.get('directory')}/{document.get('name')}"
            mask = int(str(document.get("mask", 0)))
            if document.get("wrong"):
                found.append(f"{path} {document['wrong']}")
            if path in kept and mask & (watcher.DELETE | watcher.MOVED_FROM):
                found.append(f"{path} of a foreign owner was removed or renamed")
            if mask & watcher.OVERFLOW:
                found.append("the watcher could not keep up")
            return path == str(mark)

        try:
            self._wait_for(seen)
        finally:
            mark.unlink()
        return found

    def _wait_for(self, last: Callable[[dict[str, object]], bool]) -> None:
        """Take lines until `last` says so."""
        deadline = time.monotonic() + _SOON
        while time.monotonic() < deadline:
            with self._log.open("rb") as log:
                log.seek(self._offset)
                for line in log:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    try:
                        document = json.loads(line)
                    except ValueError:
                        raise LabError(f"the watcher: {self._child.last_words()}") from None
                    if last(document):
                        return
            if not self._child.alive():
                raise self._child.died()
            wait_any([self._child.pidfd], _LOOK)
        raise LabError(f"the watcher has not seen within {_SOON:g} s what was made for it to see")
