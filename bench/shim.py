"""The shim alone: what it adds to a process that does nothing.

Law: the daemon's part is small and the same in each call: VERSION asks it for a constant, STATUS for a look at the node.
"""

from bench.contenders import NOOP, noop
from bench.plan import MODES, WARM_UP
from bench.rows import Row, Rows
from bench.stage import Stage
from podvif.lab import programs
from podvif.lab.cni import call

STATUS = "shim, STATUS"
VERSION = "shim, VERSION"
SIZE = "size of the executable"


def measure(stage: Stage, rows: Rows, rounds: int) -> None:
    """Shim and noop in turn; adds rows of section shim."""
    config = stage.config(MODES[0])
    for number in range(-WARM_UP, rounds):
        stage.signals.check()
        timings = {
            STATUS: _shim("STATUS", config),
            NOOP: noop(stage, "STATUS", config),
            VERSION: _shim("VERSION", config),
        }
        if number >= 0:
            for what, seconds in timings.items():
                rows.take(Row("shim", what, "ms", stage.maxsleep), seconds * 1000)
    if rows.one("shim", what=SIZE) is None:
        rows.take(Row("shim", SIZE, "MB"), programs.shim().stat().st_size / 1e6)


def _shim(verb: str, config: object) -> float:
    assert isinstance(config, dict)
    answer = call(verb, config, cni_path=programs.plugin_path(), executable=programs.shim())
    answer.checked()
    return answer.seconds
