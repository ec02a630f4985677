"""One DPDK application that holds several pairs of ports and sends through one pair at a time.

Law: it is started once; from then on pairs change in milliseconds by its own command line, so that two of them can be compared second
by second, under the same noise.  It counts what it received itself.
"""

import os
import re
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from podvif.lab import programs
from podvif.lab.process import LabError
from podvif.lab.signals import Signals

_PROMPT = "testpmd> "
_RECEIVED = re.compile(r"Forward statistics for port \d+ .*?RX-packets: (\d+)", re.DOTALL)


class Application:
    """dpdk-testpmd; runs inside the `with` block.

    Args:
        env_files: files that set VHOSTUSER_VDEVS, each for two ports.
        folder: for its log and DPDK's run-time folder.
    """

    def __init__(self, env_files: Sequence[Path], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"testpmd-{secrets.token_hex(4)}.log"
        core = min(os.sched_getaffinity(0))
        eal = [f"--lcores=0@{core},1@{core}", "--no-pci", "--in-memory", "--single-file-segments", "-m", "128"]
        eal.append(f"--file-prefix=podvif-bench-{secrets.token_hex(4)}")
        # flowgen sends all that it can and counts what comes: the forwarding thread is the one that is busy.
        options = ["-i", "--total-num-mbufs=16384", "--forward-mode=flowgen", "--flowgen-flows=16"]
        read = " ".join(f'. {shlex.quote(str(file))}; all="$all $VHOSTUSER_VDEVS";' for file in env_files)
        # Into a pipe it would print 4 KiB at a time, hence stdbuf.
        script = (
            f"{read} exec stdbuf -oL {shlex.quote(programs.testpmd())} {shlex.join(eal)} $all -- {shlex.join(options)}"
        )
        self._command = ["setpriv", "--pdeathsig", "KILL", "--", "/bin/sh", "-c", script]
        self._env = os.environ | {"RUNTIME_DIRECTORY": str(folder)}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._env,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        try:
            self._answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()

    def rate(self, pair: int, seconds: float, signals: Signals) -> float:
        """Let the pair with that number send and receive; packets per second that its two ports received.

        Raises:
            LabError: the application ended.
            Interrupted: a signal came.
        """
        self._ask(f"set portlist {2 * pair},{2 * pair + 1}")
        began = time.perf_counter()
        self._ask("start")
        with signals.welcome():
            time.sleep(seconds)  # what is measured is what passes in a time
        said = self._ask("stop")
        passed = time.perf_counter() - began
        received = [int(number) for number in _RECEIVED.findall(said)]
        if len(received) != 2:
            raise LabError(f"testpmd did not say what two ports received: {said[-500:]}")
        return sum(received) / passed

    def _ask(self, command: str) -> str:
        if self._process is None or self._process.stdin is None:
            raise LabError("the application was not started")
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        """All that it says up to its next prompt."""
        pipe = self._process.stdout if self._process is not None else None
        assert pipe is not None
        said = ""
        while not said.endswith(_PROMPT):
            more = os.read(pipe.fileno(), 65536).decode(errors="replace")
            if not more:
                raise LabError(f"testpmd ended; its last words:\n{self._log.read_text()[-1500:]}\n{said[-1500:]}")
            said += more
        return said
