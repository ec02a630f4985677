"""Whether this node can serve an ADD: STATUS's question.

Law: it looks at what every ADD needs, within a second, and answers with the first reason why not in one sentence.  The
preconditions are those of `podvif.node.checks`, which `podvif doctor` shows in full.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from podvif.model import SwitchFacts
from podvif.node import checks
from podvif.node.checks import State
from podvif.settings import Settings

_SECONDS = 0.8  # STATUS has to answer within 1 s, the plugin's own time included


class Switch(Protocol):
    """What readiness needs of Open vSwitch (`podvif.ovs.switch.Switch`)."""

    async def connect(self) -> str | None:
        """Connect if that has not succeeded yet; why not, or None."""

    def trouble(self) -> str | None:
        """Why OVSDB cannot be asked, None when it can."""

    def facts(self) -> SwitchFacts:
        """The switch's own row."""


class Readiness:
    """The preconditions of this node."""

    def __init__(self, switch: Switch, settings: Settings, source: Callable[[], str | None] = lambda: None) -> None:
        """Take what is looked at; `source` says why the node does not know what a port shall be."""
        self._switch = switch
        self._settings = settings
        self._source = source

    def switch_trouble(self) -> str | None:
        """Why OVSDB cannot be asked, as far as is known without asking."""
        return self._switch.trouble()

    async def connect(self) -> None:
        """Give a connection that has not been made yet one more try, for a short time."""
        try:
            async with asyncio.timeout(_SECONDS):
                await self._switch.connect()
        except TimeoutError:
            return

    async def why_not(self) -> str | None:
        """The first reason why no vhost-user port can be made, or None."""
        if self._switch.trouble():
            await self.connect()
        failed = (check for check in checks.readiness(self._switch, self._settings) if check.state is State.FAILURE)
        return next((check.reason for check in failed), None) or self._source()
