"""Make docs/images/dashboard.png, status.svg and doctor.svg: a node goes through its troubles, and a Prometheus looks on.

Law: every picture is of a real run: OVS-DPDK, the daemon, testpmd, Debian's `prometheus` (apt-get install prometheus, or give
its path).  The paths are the usual ones of a host, in a mount namespace of our own: nobody else sees them.
Usage, as root: .venv/bin/python scripts/draw_pictures.py [--minutes N] [--prometheus PROGRAM]
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from draw_dashboard import Stretch, draw
from rich.console import Console
from rich.text import Text

from podvif.lab.daemon import NodeDaemon
from podvif.lab.hugepages import hugepages
from podvif.lab.ovs import PrivateOvs
from podvif.lab.pod import pod, verb
from podvif.lab.process import Child, output
from podvif.lab.sandbox import sandbox
from podvif.lab.stage import Stage
from podvif.lab.testpmd import Testpmd

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
PRIVATE = [Path(path) for path in ("/run", "/etc/cni", "/opt/cni")]
INTERVAL = 2
"""Seconds between two scrapes."""

METRICS, PROMETHEUS = "127.0.0.1:9655", "127.0.0.1:19655"
_PODVIF = [sys.executable, "-m", "podvif"]
_PODS = 15


class Story:
    """What happens on the node, and when.

    Args:
        stage: the switch and the daemon.
        minutes: how long it takes.
    """

    def __init__(self, stage: Stage, minutes: float) -> None:
        self._stage = stage
        self._seconds = 60 * minutes
        self._random = random.Random(4)  # noqa: S311  the same story each time
        self._pods: list[contextlib.ExitStack] = []
        self._events: list[tuple[float, Callable[[], None]]] = [
            (0.25, self._wrong_configuration),
            (0.35, self._restart),
            (0.50, self._without_ovsdb),
            (0.65, self._killed),
            (0.80, self._without_del),
        ]

    def tell(self, at_the_end: Callable[[], None]) -> None:
        """Two applications run, pods come and go, and one after the other things go wrong; the end is before they leave."""
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            for mode in ("server", "client"):
                running = stack.enter_context(pod(self._stage.config(mode), self._stage.mount_point))
                stack.enter_context(Testpmd(running.env_file, self._stage.folder, netns=running.box.name))
            stack.callback(lambda: [one.close() for one in self._pods])
            while (part := (time.monotonic() - began) / self._seconds) < 1:
                if self._events and part > self._events[0][0]:
                    self._events.pop(0)[1]()
                self._come_and_go(2 + _PODS * min(1, 2 * part))
                time.sleep(self._random.random() / 2)  # people are no faster
            at_the_end()

    def _come_and_go(self, pods: float) -> None:
        if self._pods and self._random.random() * 2 * pods < len(self._pods):
            self._pods.pop(self._random.randrange(len(self._pods))).close()
        else:
            config = self._stage.config(self._random.choice(["server", "client"]))
            self._pods.append(contextlib.ExitStack())
            self._pods[-1].enter_context(pod(config, self._stage.mount_point))

    def _failing_add(self, mode: str, **more: object) -> None:
        with sandbox() as box:
            verb("ADD", {**self._stage.config(mode), **more}, box, "eth0")

    def _wrong_configuration(self) -> None:
        for _ in range(6):
            self._failing_add("server", mtu="nine thousand")

    def _restart(self) -> None:
        self._stage.switch.stop_vswitchd()
        self._stage.switch.start_vswitchd()

    def _without_ovsdb(self) -> None:
        self._stage.switch.stop_ovsdb()
        time.sleep(6)  # so that the picture has it: some scrapes long
        self._failing_add("server")
        self._pods.pop().close()
        self._stage.switch.start_ovsdb()
        self._until_ready()

    def _killed(self) -> None:
        self._stage.switch.kill_vswitchd()
        time.sleep(1)  # likewise
        photograph("doctor", ["doctor", "--config-file", str(self._stage.daemon.config)])
        self._failing_add("client")
        self._stage.switch.start_vswitchd()
        self._until_ready()

    def _without_del(self) -> None:
        with sandbox() as box:
            verb("ADD", self._stage.config("client"), box, "eth0")
        for _ in range(50):  # until the daemon sees it; the sweep removes it soon after
            if '"gone"' in output([*_PODVIF, "status", "--output", "json"]):
                break
        photograph("status", ["status"])

    def _until_ready(self) -> None:
        for _ in range(100):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{METRICS}/readyz"):
                return
            time.sleep(0.2)


def photograph(name: str, command: list[str]) -> None:
    """Write what `podvif` prints on a terminal of 132 columns as IMAGES/name.svg; status is as wide as it has to be."""
    environment = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "132"}
    done = subprocess.run([*_PODVIF, *command], capture_output=True, text=True, env=environment, check=False)
    screen = Text.from_ansi(done.stdout)
    width = max(map(len, screen.plain.splitlines()))
    console = Console(record=True, file=io.StringIO(), width=width, force_terminal=True, highlight=False)
    console.print(Text(f"# podvif {' '.join(command)}", style="bold"))
    console.print(screen, soft_wrap=True)
    picture = console.export_svg(title=f"podvif {command[0]}")
    # The typeface would be loaded from elsewhere.
    (IMAGES / f"{name}.svg").write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))


def run(minutes: float, prometheus: str) -> None:
    """Set up, tell the story, draw."""
    for path in PRIVATE:
        output(["mount", "-t", "tmpfs", "tmpfs", str(path)])
    runtime, networks, plugins = PRIVATE[0], PRIVATE[1] / "net.d", PRIVATE[2] / "bin"
    networks.mkdir()
    plugins.mkdir()
    (plugins / "podvif-cni").symlink_to(Path(sys.executable).with_name("podvif-cni"))
    more = {"node": {"metrics_bind": METRICS, "add_timeout": "8", "sweep_grace": "5", "resync_interval": "5"}}
    podvif, rundir, mount_point = (runtime / name for name in ("podvif", "openvswitch", "vhostuser"))
    with (
        PrivateOvs(rundir) as switch,
        NodeDaemon(
            podvif, ovsdb=switch.ovsdb, mount_point=mount_point, ovs_vhu_path=rundir, more=more, program=_PODVIF
        ) as daemon,
    ):
        daemon.state_dir.chmod(0o700)
        stage = Stage(podvif, switch, daemon)
        network = {key: value for key, value in stage.config("server").items() if key != "ipam"}
        (networks / "10-podvif.conf").write_text(json.dumps(network))
        scrape = {
            "job_name": "podvif-node",
            "scrape_interval": f"{INTERVAL}s",
            "static_configs": [{"targets": [METRICS], "labels": {"instance": "node-1"}}],
        }
        (podvif / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))  # JSON is YAML
        files = [f"--config.file={podvif}/prometheus.yml", f"--storage.tsdb.path={podvif}/prometheus"]
        command = [prometheus, *files, f"--web.listen-address={PROMETHEUS}"]
        database = Child(command, log=podvif / "prometheus.log", name="prometheus")
        try:
            began = time.time()
            Story(stage, minutes).tell(
                lambda: draw(Stretch(f"http://{PROMETHEUS}", began, time.time(), INTERVAL), IMAGES / "dashboard.png")
            )
        finally:
            database.stop()


def main() -> None:
    """Go into a mount namespace of our own, where the paths are ours, and run there."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/observability.md.")
    parser.add_argument("--minutes", type=float, default=5, help="how long the story takes")
    parser.add_argument("--prometheus", default="prometheus", help="the program")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        run(given.minutes, given.prometheus)
        return
    missing = [path for path in PRIVATE if not path.exists()]
    for path in missing:
        path.mkdir()
    try:
        with hugepages(64 + 2 * 100):  # out here: its ledger is everybody's
            subprocess.run(["unshare", "--mount", sys.executable, *sys.argv, "--inside"], check=True)
    finally:
        for path in missing:
            path.rmdir()


if __name__ == "__main__":
    main()
