"""`make cluster`: a private cluster that stays up in the background, and `make cluster-down`.

Law: one process holds the cluster as a test does, in one block; to take it down is to ask that process to leave the block.
What the next one needs to know (who it is, that it is ready) is in the cluster's folder, and the folder goes last.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from podvif.lab import testpmd
from podvif.lab.hugepages import hugepages
from podvif.lab.node import podvif_on, switch_of
from podvif.lab.onenode import OneNode, bridge, why_not_here
from podvif.lab.ovs import PAGES, PAGES_PER_PORT
from podvif.lab.process import LabError, wait_any
from podvif.lab.signals import Interrupted, Signals

FOLDER = Path(os.environ.get("PODVIF_CLUSTER", "/var/tmp/podvif-cluster"))  # noqa: S108  root's alone, see up()
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "multus.yaml"

START = 180.0
_DOWN = 240.0
_WORDS = 20


def up() -> None:
    """Start the cluster, unless it is up, and say how to use it."""
    if _holder() is None:
        if reason := why_not_here():
            raise LabError(reason)
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(mode=0o700)
        with (FOLDER / "cluster.log").open("ab") as log:
            command = [sys.executable, "-m", "podvif.lab.standing", "hold"]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (FOLDER / "pid").write_text(str(process.pid))
        _wait_until_ready(process)
    print(usage())


def _wait_until_ready(process: "subprocess.Popen[bytes]") -> None:
    ended = os.pidfd_open(process.pid)
    try:
        while not (FOLDER / "ready").exists():
            if wait_any([ended], 0.2):
                words = (FOLDER / "cluster.log").read_text(errors="replace").splitlines()[-_WORDS:]
                raise LabError("\n".join(["the cluster did not come up:", *words]))
    finally:
        os.close(ended)


def hold() -> None:
    """Be the process that holds the cluster, until SIGTERM."""
    signals = Signals()
    with contextlib.suppress(Interrupted), signals.taken(), contextlib.ExitStack() as stack:
        # The switch, the two example pods, and two more for whoever tries something.
        pages = PAGES + 4 * (testpmd.PAGES + PAGES_PER_PORT)
        stack.enter_context(hugepages(pages))
        cluster = stack.enter_context(OneNode(FOLDER, network=bridge(), multus=True))
        switch = stack.enter_context(switch_of(cluster.machine))
        stack.enter_context(podvif_on(cluster, switch))
        # Pods leave while the daemon and the switch are there.
        stack.callback(cluster.delete_pods)
        cluster.apply(EXAMPLES)
        cluster.wait_ready("sender", "receiver")
        (FOLDER / "inside").write_text(" ".join(cluster.machine.inside))
        (FOLDER / "ready").touch()
        with signals.welcome():
            signal.pause()


def down() -> None:
    """Take the cluster down; nothing happens when there is none."""
    holder = _holder()
    if holder is not None:
        ended = os.pidfd_open(holder)
        try:
            signal.pidfd_send_signal(ended, signal.SIGTERM)
            if not wait_any([ended], _DOWN):
                raise LabError(f"process {holder} does not end; its log is {FOLDER / 'cluster.log'}")
        finally:
            os.close(ended)
    shutil.rmtree(FOLDER, ignore_errors=True)


def _holder() -> int | None:
    """The process that holds the cluster, if there is one."""
    try:
        pid = int((FOLDER / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"hold" in command.split(b"\0") else None


def usage() -> str:
    """What somebody does with the cluster."""
    programs = (FOLDER / "programs").resolve()
    inside = (FOLDER / "inside").read_text()
    return f"""\
The cluster is up: one node, Multus, Open vSwitch with DPDK, podvif; the pods sender and receiver exchange packets.

    export KUBECONFIG={FOLDER}/kube/admin.kubeconfig
    alias kubectl={programs}/kubectl
    kubectl logs receiver --tail=12

On the node, with all of its paths:   {inside} sh
Images that pods can name:            localhost/podvif/lab-testpmd:1 (testpmd and a shell)
Take it down:                         make cluster-down"""


def main() -> int:
    """`python -m podvif.lab.standing up|down`."""
    try:
        {"up": up, "hold": hold, "down": down}[sys.argv[1]]()
    except LabError as error:
        print(f"podvif: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
