"""The demo's story: a switch, a daemon, two pods, two applications, their packets, and nothing left.

Law: it uses podvif as a runtime and an application would, by the shim and the pod's files, and says each thing it does.
Signals end it only where it waits for time to pass; what is being made or taken away is always finished first.
"""

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from podvif.cli.demo_screen import Line, Screen
from podvif.lab import leftovers, ovs, programs, testpmd
from podvif.lab.daemon import NodeDaemon
from podvif.lab.hugepages import Grant, hugepages
from podvif.lab.ovs import PrivateOvs
from podvif.lab.pod import Pod, pod
from podvif.lab.process import LabError, cpus
from podvif.lab.signals import Interrupted, Signals
from podvif.lab.stage import Stage
from podvif.lab.testpmd import Testpmd

MODES = ("server", "client")
MEANING = {
    "server": "server mode: the application listens on the socket, OVS connects to it",
    "client": "client mode: OVS listens on the socket, the application connects to it",
}
PAGES = ovs.PAGES + 2 * (testpmd.PAGES + ovs.PAGES_PER_PORT)
FIRST_PACKET = 25.0
"""Seconds from the start of the applications within which a packet has to arrive."""


@dataclass
class Story:
    """One run of the demo.

    Attributes:
        screen: where it is told.
        seconds: how long packets are watched, per mode.
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

    def play(self, modes: Sequence[str], *, keep: bool) -> bool:
        """Set the stage, show each mode, and clear up; whether every mode left nothing behind.

        Raises:
            LabError: something is missing, or no packet arrived.
            Interrupted: a signal ended it.
        """
        say = self.screen.say
        programs.look_for_all()
        with contextlib.ExitStack() as made:
            self.folder = folder = Path(made.enter_context(tempfile.TemporaryDirectory(prefix="podvif-")))
            self.grant = made.enter_context(hugepages(PAGES))
            say("hugepages", f"{PAGES} of 2 MiB for OVS and the applications (the machine had {self.grant.before})")
            switch = made.enter_context(PrivateOvs(folder / "ovs"))
            row = switch.vsctl("get", "Open_vSwitch", ".", "ovs_version", "dpdk_version").replace('"', "").split("\n")
            say("switch", f"a private Open vSwitch {row[0]} with {row[1]} in {switch.rundir}; it has no network card")
            node = NodeDaemon(
                folder / "node", ovsdb=switch.ovsdb, mount_point=folder / "pods", ovs_vhu_path=switch.rundir
            )
            daemon = made.enter_context(node)
            say("daemon", f"podvif node listens on {daemon.socket}, ready {daemon.started_in:.1f} s after its start")
            stage = Stage(folder, switch, daemon)
            clean = [self._act(mode, stage, keep=keep and mode == modes[-1]) for mode in modes]
        return all(clean)

    def _act(self, mode: str, stage: Stage, *, keep: bool) -> bool:
        """Show one mode; whether nothing was left behind."""
        self.signals.check()
        say, config = self.screen.say, stage.config(mode)
        self.screen.chapter(MEANING[mode])
        with contextlib.ExitStack() as made:
            pods = [made.enter_context(pod(config, stage.mount_point)) for _ in "AB"]
            self.namespaces += [each.box.name for each in pods]
            say("two pods", "a network namespace and a container id each, as a container runtime makes them")
            for name, each in zip("AB", pods, strict=True):
                took = f"in {each.added.seconds * 1000:.0f} ms"
                got = f"{each.mac}, {each.variables['VHOSTUSER_0_IPS']}"
                say(f"ADD pod {name}", f"podvif-cni plugged {each.port} into {config['bridge']} {took}: {got}")
            file, vdev = pods[0].env_file.name[:12], pods[0].variables["VHOSTUSER_0_VDEV"]
            say(
                "pod's files", f"all that A's application knows is in {file}….env; a shell sources it and finds\n{vdev}"
            )
            self.signals.check()
            self._traffic(pods, stage, keep=keep)
            answers = [each.delete() for each in pods]
            for answer in answers:
                answer.checked()
            took = " and ".join(f"{answer.seconds * 1000:.0f} ms" for answer in answers)
            say("DEL", f"podvif-cni unplugged both in {took}")
        left = stage.left()
        return self._report(left, "OVS ports, sockets, files, address leases, journal entries")

    def _traffic(self, pods: Sequence[Pod], stage: Stage, *, keep: bool) -> None:
        """Let both applications run and show their packets."""
        a, b = pods
        cores = cpus()
        first, second = cores[2:4] if len(cores) >= 4 else cores[:1] * 2
        shared = "" if first != second else "; they share one CPU here, so B can take only a part"
        self.screen.say("applications", f"A's dpdk-testpmd sends to B's MAC, B's receives{shared}")
        logs = stage.folder / "applications"
        sender = Testpmd(a.env_file, logs, netns=a.box.name, core=first, forward="txonly", eth_peer=b.mac)
        with Testpmd(b.env_file, logs, netns=b.box.name, core=second) as rx, sender as tx:
            if keep:
                self._look_around(a, stage)
            clock = Clock(self.seconds, rx, tx, keep=keep)
            try:
                with self.signals.welcome():
                    self.screen.watch(
                        lambda: [_line("A", a, stage.switch, tx), _line("B", b, stage.switch, rx)],
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

    def _look_around(self, a: Pod, stage: Stage) -> None:
        self.screen.say("look around", "in another terminal; Ctrl-C here goes on: DEL, and everything is taken away")
        self.screen.commands(
            f"ovs-vsctl --db={stage.switch.ovsdb} show",
            f"podvif status --socket {stage.daemon.socket}",
            f"ls -l {stage.mount_point}",
            f'. {a.env_file} && echo "$VHOSTUSER_VDEVS"',
            f"ip netns exec {a.box.name} sh",
            f"less {stage.daemon.log}",
        )

    def finish(self) -> bool:
        """Look for what is left on the machine, after everything was taken away; whether it is nothing."""
        if self.folder is None:
            return True
        left = leftovers.on_machine(self.folder, self.namespaces, self.grant)
        self.screen.chapter("the end")
        return self._report(left, "processes, network namespaces, hugepages, the demo's folder")

    def _report(self, left: Sequence[str], places: str) -> bool:
        """Say what is left; whether it is nothing."""
        if left:
            self.screen.say("what is left", "; ".join(left), style="bold red")
        else:
            self.screen.say("what is left", f"nothing (looked for: {places})", style="bold")
        return not left


class Clock:
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


def _line(what: str, each: Pod, switch: PrivateOvs, application: Testpmd) -> Line:
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


def tell(modes: Sequence[str], seconds: int, *, keep: bool, svg: Path | None) -> int:
    """Run the demo as root and return its exit code.

    Args:
        modes: server, client, or both.
        seconds: how long packets are watched, per mode.
        keep: go on in the last mode until Ctrl-C.
        svg: where to write the screen as a picture; None for nowhere.
    """
    screen, signals = Screen(), Signals()
    story = Story(screen, seconds, signals)
    screen.title("podvif demo: packets of two DPDK applications cross two vhost-user ports that podvif made")
    with signals.taken():
        try:
            code = 0 if story.play(modes, keep=keep) else 1
        except Interrupted as interrupted:
            screen.say("interrupted", "everything was taken away")
            code = 128 + interrupted.number
        except LabError as error:
            screen.say("failed", str(error), style="red")
            code = 1
        if not story.finish():
            code = code or 1
        if svg is not None:
            screen.save(svg, "podvif demo")
    return code
