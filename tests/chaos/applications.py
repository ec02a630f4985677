"""Light applications, by number.

Law: an application is started and killed here and nowhere else; both are over when the call returns.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from podvif.lab.process import LabError
from tests.chaos import zygote

NUMBERS = 4096
"""Applications that there can be in one life of a zygote."""


class Applications:
    """Made by a zygote of their own (`tests/chaos/zygote.py`), which ends with the `with` block."""

    def __init__(self, folder: Path) -> None:
        """`folder` gets the board on which the applications say how they are."""
        self._board = folder / "board"
        self._process: subprocess.Popen[str] | None = None
        self.running: set[int] = set()

    @contextlib.contextmanager
    def serving(self) -> Iterator["Applications"]:
        """The zygote, for the length of a block."""
        self._board.write_bytes(bytes(NUMBERS))
        command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-I", zygote.__file__, str(self._board)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            self._process = process
            try:
                yield self
            finally:
                assert process.stdin is not None
                process.stdin.close()
                process.wait(10)

    def start(self, number: int, mode: str, netns: Path, path: Path) -> None:
        """Start one; whether it comes to listen, or to be connected, is another question."""
        self._tell(f"start {number} {mode} {netns} {path}")
        self.running.add(number)

    def kill(self, number: int) -> None:
        """Kill one, if it runs: when this returns the kernel has closed its sockets."""
        if number in self.running:
            self._tell(f"kill {number}")
            self.running.discard(number)

    def kill_all(self) -> None:
        """Kill every one."""
        for number in sorted(self.running):
            self.kill(number)

    def state(self, number: int) -> int:
        """TRYING, WAITING or CONNECTED (`tests.chaos.zygote`)."""
        with self._board.open("rb") as board:
            board.seek(number)
            return board.read(1)[0]

    def _tell(self, line: str) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise LabError("the zygote does not run: use it in a with block")
        process.stdin.write(line + "\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise LabError(f"the zygote ended at {line!r}")
