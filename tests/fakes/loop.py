"""An event loop whose time passes when nobody has anything to do: a back-off of a minute takes no time.

Law: only for what speaks to fakes: a thread or a socket is not waited for.
"""

import asyncio
import selectors
from typing import Any


class _Selector(selectors.SelectSelector):
    """Instead of sleeping it moves the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nobody will ever come")
        if not ready and timeout:
            self.now += timeout
        return ready


class QuickLoop(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self) -> None:
        self._quick = _Selector()
        super().__init__(self._quick)

    def time(self) -> float:
        """Seconds, of its own."""
        return self._quick.now
