"""`podvif node` that is killed by SIGKILL right after one named step: run with PODVIF_CRASH_AFTER=<Step.name or JOURNAL>.

Law: the daemon itself has no switch for this; the real one runs here, with the one method that acts wrapped.  Use it by
`NodeDaemon(..., program=[sys.executable, <this file>], env={"PODVIF_CRASH_AFTER": "PLUG"})`; start the daemon again without
the variable (or with the real program) and it recovers.  JOURNAL is the moment after an ADD's entry was first written.
"""

import os
import signal
import sys

from podvif.core.attach import Step, Want
from podvif.model import Entry, Goal, Seen
from podvif.node import main
from podvif.node.drivers import Drivers
from podvif.node.journal import Journal

_AFTER = os.environ.get("PODVIF_CRASH_AFTER", "")
_do = Drivers.do
_put = Journal.put


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _do_and_die(self: Drivers, want: Want, step: Step, seen: Seen) -> None:
    await _do(self, want, step, seen)
    if step.name == _AFTER:
        _die()


def _put_and_die(self: Journal, entry: Entry) -> None:
    _put(self, entry)
    if _AFTER == "JOURNAL" and entry.goal is Goal.ATTACHING and entry.addresses is None:
        _die()


if __name__ == "__main__":
    Drivers.do = _do_and_die  # type: ignore[method-assign]
    Journal.put = _put_and_die  # type: ignore[method-assign]
    files = [value for flag, value in zip(sys.argv[1:], sys.argv[2:], strict=False) if flag == "--config-file"]
    main.run(files)
