"""`python -m bench`: measure, print, write build/bench/.

Law: what is made is taken away at the end, whatever happens and also on Ctrl-C, and it is said what is left.  A part that cannot run is
said, and the others are measured; only then is the exit code not 0.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import burst, cluster, controller, growth, idle, noop, picture, pods, recovery, serial, shim, tables, traffic
from bench.plan import AT_ONCE, ATTACHMENTS, FULL, MAXSLEEPS, QUICK, Plan
from bench.rows import Rows
from bench.stage import Stage, stage
from bench.targets import verdicts
from podvif.lab import leftovers, ovs, programs, testpmd
from podvif.lab.hugepages import Grant, hugepages
from podvif.lab.process import LabError, output
from podvif.lab.signals import Interrupted, Signals

PAGES = ovs.PAGES + 2 * testpmd.PAGES + 16 * ovs.PAGES_PER_PORT
"""Hugepages: for vswitchd, two applications, and the ports that have had one (vswitchd keeps theirs for a while)."""

RESULTS = Path("build/bench")


class Run:
    """One run, from an empty machine to an empty machine."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._signals = Signals()
        self.rows = Rows()
        self._folder = Path()
        self._grant: Grant | None = None
        self._namespaces: list[str] = []
        self._began = time.monotonic()

    def measure(self) -> None:
        """Everything.

        Raises:
            LabError: what every part stands on is missing.
            Interrupted: Ctrl-C or SIGTERM; all is taken away.
        """
        programs.look_for_all()
        with contextlib.ExitStack() as parts:
            parts.enter_context(self._signals.taken())
            self._folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="podvif-bench-")))
            self._grant = parts.enter_context(hugepages(PAGES))
            executable = noop.build(self._folder)
            for maxsleep in MAXSLEEPS:
                folder = self._folder / str(maxsleep)
                self._say(f"Open vSwitch with pmd-maxsleep {maxsleep}")
                with stage(folder, maxsleep, executable, self._signals) as ready:
                    self._namespaces.append(ready.box.name)
                    self._all(ready)
            self._controller()
            self._pods()

    def _all(self, ready: Stage) -> None:
        plan, rows = self._plan, self.rows
        idle.at_start(ready, rows)
        self._part("one after the other", ready, lambda: serial.measure(ready, rows, plan.rounds))
        self._part("the shim alone", ready, lambda: shim.measure(ready, rows, plan.rounds))
        self._part(f"{ATTACHMENTS} at concurrency {AT_ONCE}", ready, lambda: burst.measure(ready, rows, plan.bursts))
        self._part("beside other ports", ready, lambda: growth.measure(ready, rows, plan.standing, plan.growth_rounds))
        self._part("a pod of a cluster", ready, lambda: cluster.measure(ready, rows, plan.cluster_rounds))
        # What follows does not depend on pmd-maxsleep: a daemon at rest, and a thread with packets, which never sleeps.
        if ready.maxsleep == MAXSLEEPS[-1]:
            self._part("recovery", ready, lambda: recovery.measure(ready, rows, plan.restarts, plan.kills))
            self._part("the daemon at rest", ready, lambda: idle.measure(ready, rows, plan.idle_seconds))
            self._part(
                "packets",
                ready,
                lambda: traffic.measure(ready, rows, plan.traffic_builds, plan.traffic_rounds, plan.traffic_seconds),
            )

    def _controller(self) -> None:
        """It has a switch, a Neutron and an API server of its own, and is not measured beside the others."""
        storm = self._plan.storm
        self._say(f"The controller, with a Neutron: {storm} pods at once")
        try:
            controller.measure(self.rows, self._folder / "controller", storm, self._plan.storms, self._namespaces)
        except LabError as error:
            self._failed(f"the controller: {error}")

    def _pods(self) -> None:
        """They have a machine of their own, and are not measured beside the others either."""
        plan = self._plan
        self._say(f"Kubernetes, containerd and Multus: {plan.pods} pods at once")
        try:
            folder = self._folder / "p"
            pods.measure(self.rows, folder, plan.pods, plan.pod_turns, self._namespaces, signals=self._signals)
        except LabError as error:
            self._failed(f"pods in a cluster: {error}")

    def _part(self, what: str, ready: Stage, measure: Callable[[], None]) -> None:
        self._say(f"  {what}")
        try:
            measure()
            self._clean(what, ready)
        except LabError as error:
            self._failed(f"{what}, pmd-maxsleep {ready.maxsleep}: {error}")

    def _failed(self, what: str) -> None:
        self.rows.failures.append(what)
        self._console.print(what, style="red", markup=False)

    @staticmethod
    def _clean(what: str, ready: Stage) -> None:
        """A part that leaves a port would slow down the next.

        Raises:
            LabError: it did.
        """
        left = [name for name in ready.ovs.ports() if name != "vhustanding"]
        if left:
            raise LabError(f"{what} left ports behind: {', '.join(left[:5])}")

    def left(self) -> list[str]:
        """What the run has left on the machine."""
        return leftovers.on_machine(self._folder, self._namespaces, self._grant)

    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._began

    def _say(self, what: str) -> None:
        self._console.print(f"{self.seconds():6.0f} s  {what}", markup=False, highlight=False)


def main() -> int:
    """Run; the exit code is 0 unless something could not run, or was left behind."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What podvif costs, beside its floor.")
    parser.add_argument("--quick", action="store_true", help="about five minutes, with wide spreads")
    quick = parser.parse_args().quick
    console = Console(width=None if sys.stdout.isatty() else 140)
    if os.geteuid() != 0:
        console.print("the bench runs Open vSwitch and plays the container runtime: run it as root (sudo).")
        return 1
    run = Run(QUICK if quick else FULL, console)
    code = 0
    try:
        run.measure()
    except LabError as error:
        run.rows.failures.append(str(error))
    except Interrupted as interrupted:
        run.rows.failures.append("interrupted")
        code = 128 + interrupted.number
    _report(run, console, quick=quick)
    left = run.left()
    console.print(f"what is left: {'; '.join(left) or 'nothing'} ({run.seconds():.0f} s in all)", markup=False)
    return code or int(bool(run.rows.failures or left))


def _report(run: Run, console: Console, *, quick: bool) -> None:
    judged = verdicts(run.rows)
    tables.show(console, run.rows, judged)
    RESULTS.mkdir(parents=True, exist_ok=True)
    about = {
        "quick": quick,
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "ovs": output([programs.vswitchd(), "--version"]).splitlines(),
    }
    promises = [
        {"what": each.what, "promise": each.promise, "measured": each.figure, "of p10": each.beside, "kept": each.kept}
        for each in judged
    ]
    document = {"about": about, "promises": promises, **run.rows.document()}
    (RESULTS / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    picture.draw(run.rows, RESULTS / "podvif-bench.png")
    console.print(f"written: {RESULTS / 'results.json'}, {RESULTS / 'podvif-bench.png'}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
