"""The demo's story: a switch, a daemon, two pods, two applications, their packets, and nothing left.

Law: it uses podvif as a runtime and an application would, by the shim and the pod's files, and says each thing it does.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from podvif.cli import demo_tale
from podvif.cli.demo_screen import Screen
from podvif.cli.demo_tale import PAGES, Tale
from podvif.lab import programs
from podvif.lab.daemon import NodeDaemon
from podvif.lab.hugepages import hugepages
from podvif.lab.ovs import PrivateOvs
from podvif.lab.pod import Pod, pod
from podvif.lab.signals import Signals
from podvif.lab.stage import Stage

MODES = ("server", "client")
MEANING = {
    "server": "server mode: the application listens on the socket, OVS connects to it",
    "client": "client mode: OVS listens on the socket, the application connects to it",
}


class Story(Tale):
    """One run of the demo."""

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
            if keep:
                self._look_around(pods[0], stage)
            self.traffic(pods, stage.switch, stage.folder / "applications", keep=keep)
            answers = [each.delete() for each in pods]
            for answer in answers:
                answer.checked()
            took = " and ".join(f"{answer.seconds * 1000:.0f} ms" for answer in answers)
            say("DEL", f"podvif-cni unplugged both in {took}")
        left = stage.left()
        return self.report(left, "OVS ports, sockets, files, address leases, journal entries")

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


def tell(modes: Sequence[str], seconds: int, *, keep: bool, svg: Path | None) -> int:
    """Run the demo as root and return its exit code.

    Args:
        modes: server, client, or both.
        seconds: how long packets are watched, per mode.
        keep: go on in the last mode until Ctrl-C.
        svg: where to write the screen as a picture; None for nowhere.
    """
    story = Story(Screen(), seconds, Signals())
    title = "podvif demo: packets of two DPDK applications cross two vhost-user ports that podvif made"
    return demo_tale.tell(story, title, lambda: story.play(modes, keep=keep), svg=svg)
