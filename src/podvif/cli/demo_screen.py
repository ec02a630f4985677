"""What the demo shows: a line per thing it does, and a table of the two ports while packets flow.

Law: it draws what it is given and knows nothing of OVS or podvif.  Where stdout is no terminal, the live table becomes one
plain line per second.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

WIDTH = 118
"""Columns of the picture, and of output that goes to no terminal."""

BAR = 16
"""Most columns of a bar."""

FIXED = 86
"""Columns of the table beside its bars."""


@dataclass(frozen=True, slots=True)
class Line:
    """One port at one moment.

    Attributes:
        pod: what the pod is called.
        port: the OVS port.
        mode: server or client.
        listener: who listens on the socket.
        link: what OVS says of the link; None when it says nothing.
        tx: packets per second that the application sends.
        rx: packets per second that it receives.
    """

    pod: str
    port: str
    mode: str
    listener: str
    link: str | None
    tx: int
    rx: int


class Screen:
    """The console, and a second one that remembers everything for the picture."""

    def __init__(self) -> None:
        console = Console(highlight=False)
        self._console = console if console.is_terminal else Console(highlight=False, width=WIDTH)
        self._record = Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False, force_terminal=True)

    def title(self, text: str) -> None:
        """A heading."""
        self._print(Text(text, style="bold"))

    def chapter(self, text: str) -> None:
        """A heading with a rule, for each mode."""
        for console in (self._console, self._record):
            console.rule(Text(text, style="bold cyan"), align="left", style="cyan")

    def say(self, what: str, text: str, *, style: str = "") -> None:
        """One thing done, in one line: what it is about, and what happened."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=12, style="bold green")
        grid.add_column(style=style)
        grid.add_row(what, Text(text, overflow="fold"))
        self._print(grid)

    def commands(self, *commands: str) -> None:
        """Commands to copy: each on a line of its own, never folded by us."""
        for console in (self._console, self._record):
            for command in commands:
                console.print(Text(f"    {command}"), soft_wrap=True)

    def rows(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of words, none of them cut."""
        drawn = Table(title=title, title_justify="left", border_style="dim", header_style="bold")
        for heading in headings:
            drawn.add_column(heading, overflow="fold")
        for row in rows:
            drawn.add_row(*row)
        self._print(drawn)

    def watch(self, look: Callable[[], Sequence[Line]], until: Callable[[], bool], pause: Callable[[], None]) -> None:
        """Show the ports, as `look` finds them, again after each `pause`, until `until` says so; the last table stays."""
        began = monotonic()
        peaks = Peaks()
        lines = look()
        try:
            if not self._console.is_terminal:
                while not until():
                    pause()
                    lines = look()
                    peaks.see(lines)
                    self._console.print(plain(lines, monotonic() - began), soft_wrap=True)
                return
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                while not until():
                    peaks.see(lines)
                    live.update(table(lines, peaks, self._console.width), refresh=True)
                    pause()
                    lines = look()
        finally:
            peaks.see(lines)
            self._record.print(table(lines, peaks, WIDTH))
            if self._console.is_terminal:
                self._console.print(table(lines, peaks, self._console.width))

    def save(self, picture: Path, title: str) -> None:
        """Write everything shown so far to a file, as SVG that loads nothing from elsewhere."""
        svg = self._record.export_svg(title=title)
        picture.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))

    def _print(self, thing: RenderableType) -> None:
        self._console.print(thing)
        self._record.print(thing)


@dataclass(slots=True)
class Peaks:
    """The highest rates seen, which make a full bar: one for sending, one for receiving, as they differ by far."""

    tx: int = 1
    rx: int = 1

    def see(self, lines: Sequence[Line]) -> None:
        """Take the rates of one moment."""
        self.tx = max(self.tx, *(line.tx for line in lines))
        self.rx = max(self.rx, *(line.rx for line in lines))


def table(lines: Sequence[Line], peaks: Peaks, width: int) -> Table:
    """The ports as a table, with a bar per rate as far as `width` columns have room for it."""
    bar = min(BAR, (width - FIXED) // 2)
    drawn = Table(border_style="dim", header_style="bold")
    for heading, least in (("pod", 3), ("port", 14), ("mode", 6), ("listens", 11), ("link", 4)):
        drawn.add_column(heading, no_wrap=True, min_width=least)
    for heading in ("sent/s", "received/s"):
        drawn.add_column(heading, justify="right", no_wrap=True, min_width=10)
        if bar > 0:
            drawn.add_column("", width=bar)
    for line in lines:
        link = Text(line.link or "down", style="green" if line.link == "up" else "red")
        rates: list[RenderableType] = []
        for rate, peak, color in ((line.tx, peaks.tx, "yellow"), (line.rx, peaks.rx, "green")):
            rates += [f"{rate:,}", Bar(peak, 0, rate, color=color)] if bar > 0 else [f"{rate:,}"]
        drawn.add_row(line.pod, line.port, line.mode, line.listener, link, *rates)
    return drawn


def plain(lines: Sequence[Line], seconds: float) -> str:
    """The two ports as one line of text."""
    ports = (
        f"pod {line.pod}: {line.port} {line.mode}, {line.listener} listens, link {line.link or 'down'}, "
        f"sent {line.tx:,}/s, received {line.rx:,}/s"
        for line in lines
    )
    return f"{seconds:3.0f} s  " + " | ".join(ports)
