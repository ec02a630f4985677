"""One ADD and one DEL after another, of every contender in turn.

Law: A B C, B C A, C A B: each round runs all of them, and begins with another one each time, so that none always follows
the same neighbour.
"""

from collections.abc import Sequence

from bench.contenders import Contender, Least, Podvif, Raw, Timings, Vsctl
from bench.plan import MODES, WARM_UP
from bench.rows import Row, Rows
from bench.stage import Stage


def measure(stage: Stage, rows: Rows, rounds: int) -> None:
    """Both modes, `rounds` times each; adds rows of section serial."""
    for mode in MODES:
        contenders: list[Contender] = [Podvif(stage, mode), Least(stage, mode), Vsctl(stage, mode), Raw(stage, mode)]
        if mode == MODES[0]:
            contenders.append(Podvif(stage, mode, ipam=True))
        interleave(stage, rows, Row("serial", "", "ms", stage.maxsleep, mode), contenders, rounds)


def interleave(stage: Stage, rows: Rows, like: Row, contenders: Sequence[Contender], rounds: int) -> None:
    """Run the contenders in turn; adds rows `like` this one, for ADD and DEL and everything they time."""
    for number in range(-WARM_UP, rounds):
        stage.signals.check()
        first = number % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            with stage.turn(*contender.processes()):
                added = contender.add()
            with stage.turn(*contender.processes()):
                removed = contender.remove()
            if number >= 0:
                _take(rows, like, "ADD", added)
                _take(rows, like, "DEL", removed)


def _take(rows: Rows, like: Row, verb: str, timings: Timings) -> None:
    for what, seconds in timings.items():
        row = Row(like.section, what, "ms", like.maxsleep, like.mode, verb, like.standing)
        rows.take(row, seconds * 1000)
