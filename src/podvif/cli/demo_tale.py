"""What all demos tell alike: the packets of two applications, what is left, how a run ends.

Law: signals end a demo only where it waits for time to pass; what is being made or taken away is always finished first.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from podvif.cli.demo_screen import Line, Screen
from podvif.lab import leftovers, ovs, testpmd
from podvif.lab.hugepages import Grant
from podvif.lab.ovs_client import OvsClient
from podvif.lab.pod import Pod
from podvif.lab.process import LabError, cpus
from podvif.lab.signals import Interrupted, Signals
from podvif.lab.testpmd import Testpmd

PAGES = ovs.PAGES + 2 * (testpmd.PAGES + ovs.PAGES_PER_PORT)
"""Hugepages for a switch and two applications."""

FIRST_PACKET = 25.0
"""Seconds from the start of the applications within which a packet has to arrive."""


@dataclass
class Tale:
    """One run of a demo.

    Attributes:
        screen: where it is told.
        seconds: how long packets are watched each time.
        signals: when it can be interrupted.
        folder: where everything is made; None until something is.
        grant: what was done to the hugepages.
        namespaces: names of all network namespaces made.
    """

    screen: Screen
    seconds: int
    signals: Signals
    folder: Path | None = None
    grant: Grant | None = None
    namespaces: list[str] = field(default_factory=list)

    def traffic(self, pods: Sequence[Pod], switch: OvsClient, logs: Path, *, keep: bool = False) -> None:
        """Let an application run in each of two pods, A's sending to B, and show their packets.

        Args:
            pods: A and B.
            switch: theirs.
            logs: folder for the applications'.
            keep: go on until Ctrl-C.

        Raises:
            LabError: no packet arrived, or an application ended by itself.
            Interrupted: a signal ended it.
        """
        a, b = pods
        cores = cpus()
        first, second = cores[2:4] if len(cores) >= 4 else cores[:1] * 2
        shared = "" if first != second else "; they share one CPU here, so B can take only a part"
        self.screen.say("applications", f"A's dpdk-testpmd sends to B's MAC, B's receives{shared}")
        sender = Testpmd(a.env_file, logs, netns=a.box.name, core=first, forward="txonly", eth_peer=b.mac)
        with Testpmd(b.env_file, logs, netns=b.box.name, core=second) as rx, sender as tx:
            clock = _Clock(self.seconds, rx, tx, keep=keep)
            try:
                with self.signals.welcome():
                    self.screen.watch(
                        lambda: [_line("A", a, switch, tx), _line("B", b, switch, rx)],
                        clock.over,
                        # A table's next second is nobody's event.
                        lambda: time.sleep(1),
                    )
            except Interrupted:
                if not (keep and rx.statistics().rx_packets):
                    raise
            received, alive = rx.statistics().rx_packets, rx.child.alive() and tx.child.alive()
            if not (received and alive):
                what = "no packet arrived" if alive else "an application ended by itself"
                raise LabError(
                    f"{what}; the receiver's last lines:\n{rx.last_words()}\nthe sender's:\n{tx.last_words()}"
                )
        self.screen.say("packets", f"B's application received {received:,} packets of A's")

    def finish(self) -> bool:
        """Look for what is left on the machine, after everything was taken away; whether it is nothing."""
        if self.folder is None:
            return True
        left = leftovers.on_machine(self.folder, self.namespaces, self.grant)
        self.screen.chapter("the end")
        return self.report(left, "processes, network namespaces, hugepages, the demo's folder")

    def report(self, left: Sequence[str], places: str) -> bool:
        """Say what is left; whether it is nothing."""
        if left:
            self.screen.say("what is left", "; ".join(left), style="bold red")
        else:
            self.screen.say("what is left", f"nothing (looked for: {places})", style="bold")
        return not left


class _Clock:
    """When the applications have been watched for long enough: so many seconds after the first packet arrived."""

    def __init__(self, seconds: int, rx: Testpmd, tx: Testpmd, *, keep: bool) -> None:
        self._seconds = seconds
        self._applications = (rx, tx)
        self._keep = keep
        self._end = time.monotonic() + FIRST_PACKET
        self._arrived = False

    def over(self) -> bool:
        """Whether it is time to stop, or an application ended by itself."""
        if not self._arrived and self._applications[0].statistics().rx_packets:
            self._arrived = True
            self._end = time.monotonic() + self._seconds
        ended = not all(application.child.alive() for application in self._applications)
        return ended or (time.monotonic() >= self._end and not (self._keep and self._arrived))


def _line(what: str, each: Pod, switch: OvsClient, application: Testpmd) -> Line:
    now, row = application.statistics(), switch.interfaces().get(each.port, {})
    return Line(
        pod=what,
        port=each.port,
        mode=each.variables["VHOSTUSER_0_MODE"],
        listener=each.variables["VHOSTUSER_0_LISTENER"].replace("ovs", "OVS"),
        link=row.get("link_state"),
        tx=now.tx_pps,
        rx=now.rx_pps,
    )


def tell(tale: Tale, title: str, play: Callable[[], bool], *, svg: Path | None) -> int:
    """Run a demo as root and return its exit code.

    Args:
        tale: what `play` tells.
        title: the first line.
        play: does it; whether nothing was left.
        svg: where to write the screen as a picture; None for nowhere.
    """
    screen = tale.screen
    screen.title(title)
    with tale.signals.taken():
        try:
            code = 0 if play() else 1
        except Interrupted as interrupted:
            screen.say("interrupted", "everything was taken away")
            code = 128 + interrupted.number
        except LabError as error:
            screen.say("failed", str(error), style="red")
            code = 1
        if not tale.finish():
            code = code or 1
        if svg is not None:
            screen.save(svg, title.partition(":")[0])
    return code
