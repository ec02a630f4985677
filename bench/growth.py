"""How ADD and DEL grow with the ports that stand beside.

Law: the standing ports are plain ones of nobody, made by raw transactions, so that they cost nothing but what their presence costs;
the floor is measured among the same ports.
"""

from bench.contenders import Least, Podvif
from bench.plan import CHUNK, MODES
from bench.raw import port
from bench.rows import Row, Rows
from bench.serial import interleave
from bench.stage import Stage


def measure(stage: Stage, rows: Rows, standing: tuple[int, ...], rounds: int) -> None:
    """Server mode at each number of standing ports; adds rows of section growth."""
    mode = MODES[0]
    made: list[str] = []
    try:
        for count in standing:
            while len(made) < count:
                stage.signals.check()
                chunk = [f"vhufill{number:05}" for number in range(len(made), min(count, len(made) + CHUNK))]
                made += chunk
                stage.raw.add(*(port(name, mode, stage.folder) for name in chunk))
            taken = _taken(stage)
            if taken < count:
                rows.remarks.append(
                    f"growth: vswitchd took {taken} of {count} standing ports at pmd-maxsleep {stage.maxsleep};"
                    f" its log ends: {stage.ovs.log_tail(3)}"
                )
                break
            like = Row("growth", "", "ms", stage.maxsleep, mode, "", count)
            interleave(stage, rows, like, [Podvif(stage, mode), Least(stage, mode)], rounds)
    finally:
        for start in range(0, len(made), CHUNK):
            stage.raw.remove(*made[start : start + CHUNK])


def _taken(stage: Stage) -> int:
    """Standing ports that vswitchd has opened without an error."""
    rows = stage.ovs.interfaces().items()
    return sum(name.startswith("vhufill") and (row["ofport"] or -1) > 0 and not row["error"] for name, row in rows)
