"""Ctrl-C and SIGTERM for a program that has things to put back.

Law: a signal ends the program only where it waits for time to pass; what is being made or taken away is finished first,
each step of it with a deadline of its own.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Ctrl-C and SIGTERM, which wait until the story can be interrupted."""

    def __init__(self) -> None:
        self._pending = 0
        self._armed = False

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Take the signals for the block; give them back at its end."""
        old = {number: signal.signal(number, self._arrive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def welcome(self) -> Iterator[None]:
        """Be interrupted inside the block, at once if a signal came before."""
        self._armed = True
        try:
            if self._pending:
                raise Interrupted(self._pending)
            yield
        finally:
            self._armed = False

    def check(self) -> None:
        """Be interrupted here if a signal came before."""
        with self.welcome():
            pass

    def _arrive(self, number: int, _frame: FrameType | None) -> None:
        self._pending = number
        if self._armed:
            self._armed = False
            raise Interrupted(number)
