"""The walk: steps drawn by a seed, or walked again from a history; and the shortest history that still fails.

Law: the seed decides every step but not what the machine's scheduler makes of it.  So a history that has failed once is
tried again with parts left out, within a bound of time, and the shortest that failed again is what is printed.
"""

import math
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from podvif.lab import ovs, testpmd
from podvif.lab.hugepages import hugepages
from podvif.lab.process import LabError
from tests.chaos.actions import ACTIONS, Step
from tests.chaos.model import FaultError
from tests.chaos.world import Profile, World

QUIET = (20, 60)
"""Between two quiet points lie so many steps."""

PROVED = 4
"""Every so many quiet points packets are sent by real applications."""

HASTE = 8.0

PAGES = ovs.PAGES + 2 * testpmd.PAGES + 16 * ovs.PAGES_PER_PORT
"""Hugepages of one world."""


@dataclass
class Outcome:
    """What came of a walk.

    Attributes:
        steps: those that were taken.
        seconds: it took.
        fault: what was wrong at the last of them; None when nothing was.
        log: the daemon's last lines, where something was wrong.
        quiets, proofs, events: quiet points, those of them with real packets, and file events that the watcher has seen.
    """

    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    fault: str | None = None
    log: str = ""
    quiets: int = 0
    proofs: int = 0
    events: int = 0


def drawn(seed: int, count: int, world: World) -> Iterator[Step]:
    """So many steps, drawn from what is possible in the world when each is taken; the last is a quiet point."""
    source = random.Random(seed)  # noqa: S311  it has to be repeatable
    quiet, quiets = source.randint(*QUIET), 0
    allowed = {
        name: each for name, each in ACTIONS.items() if each.weight and (world.profile.sweeps or not each.sweeps)
    }
    for number in range(1, count + 1):
        quiet -= 1
        if quiet <= 0 or number == count:
            quiet = source.randint(*QUIET)
            quiets += 1
            yield Step("quiet", (quiets % PROVED == 0 or number == count,))
            continue
        possible = {name: found for name, each in allowed.items() if (found := list(each.possible(world)))}
        (name,) = source.choices(list(possible), [allowed[each].weight for each in possible])
        yield Step(name, source.choice(possible[name]))


def walk(folder: Path, profile: Profile, seed: int, count: int) -> Outcome:
    """A walk of so many steps."""
    world = World(folder, profile)
    return _walked(world, drawn(seed, count, world))


def walk_again(folder: Path, profile: Profile, history: Iterable[Step], patience: float = HASTE) -> Outcome:
    """A history, and a quiet point at its end, with less patience: there may be many to try."""
    return _walked(World(folder, profile, patience), [*history, Step("quiet", (False,))])


def _walked(world: World, steps: Iterable[Step]) -> Outcome:
    outcome = Outcome()
    began = time.monotonic()
    with hugepages(PAGES), world.running():
        try:
            for step in steps:
                if step.arguments not in set(ACTIONS[step.name].possible(world)):
                    continue
                outcome.steps.append(step)
                ACTIONS[step.name].do(world, *step.arguments)
                world.check_alive()
                outcome.quiets += step.name == "quiet"
        except (FaultError, LabError) as fault:
            outcome.fault = str(fault)
            outcome.log = world.log_tail()
    outcome.seconds = time.monotonic() - began
    outcome.proofs, outcome.events = world.proofs, world.events
    return outcome


Fails = Callable[[Sequence[Step]], Outcome | None]
"""Walks a history again: what came of it when it failed, else None."""


def shortest(history: Sequence[Step], fails: Fails, seconds: float) -> Outcome | None:
    """The shortest history found in so many seconds that fails as well; None when none did.

    First the last stretches between quiet points, each alone; then what has failed is thinned out (ddmin).
    """
    deadline = time.monotonic() + seconds
    best: Outcome | None = None
    for stretch in _stretches(history):
        if best is None and time.monotonic() < deadline:
            best = fails(stretch)
    parts = 2
    while best is not None and parts <= len(best.steps) and time.monotonic() < deadline:
        shorter = _shorter(best, parts, fails, deadline)
        if shorter is not None:
            best, parts = shorter, max(2, parts - 1)
        elif parts == len(best.steps):
            break
        else:
            parts = min(2 * parts, len(best.steps))
    return best


def _shorter(best: Outcome, parts: int, fails: Fails, deadline: float) -> Outcome | None:
    """The history without one of so many parts of it, whichever fails first."""
    size = math.ceil(len(best.steps) / parts)
    for begin in range(0, len(best.steps), size):
        fewer = [*best.steps[:begin], *best.steps[begin + size :]]
        if fewer and time.monotonic() < deadline:
            found = fails(fewer)
            if found is not None and len(found.steps) < len(best.steps):
                return found
    return None


def _stretches(history: Sequence[Step]) -> Iterator[list[Step]]:
    """What lies behind the last quiet points but the one that has failed, ever more of it."""
    ends = [index for index, step in enumerate(history[:-1]) if step.name == "quiet"]
    for number in (1, 1, 2, 4, 8):
        if number <= len(ends):
            yield list(history[ends[-number] + 1 :])
    yield list(history)


def failing(profile: Profile) -> Fails:
    """Walks a history again in a world of its own, with one quiet point at its end."""

    def fails(history: Sequence[Step]) -> Outcome | None:
        steps = [step for step in history if step.name != "quiet"]
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            outcome = walk_again(Path(folder), profile, steps)
        outcome.steps = [step for step in outcome.steps if step.name != "quiet"]
        return outcome if outcome.fault is not None else None

    return fails
