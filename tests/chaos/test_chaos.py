"""The walk in short, with fixed seeds, and the proof that it would see what is wrong.  `make chaos` is the long form.

Law: a walk that fails here prints its seed, its last steps and the daemon's last words; `python -m tests.chaos --first SEED
--seeds 1` walks it again and looks for a shorter history.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.actions import Step
from tests.chaos.walk import Outcome, shortest, walk, walk_again
from tests.chaos.world import EVENTS, ROUNDS, Profile
from tests.node.conftest import why_not_here

SEEDS = [(101, ROUNDS), (102, ROUNDS)]
STEPS = 100


@pytest.fixture(scope="module")
def here() -> None:
    """This machine can run a real node; where nothing may be skipped it has to."""
    if reason := why_not_here():
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: sockets have room in it."""
    return tmp_path_factory.mktemp("c")


@pytest.mark.node
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("seed", "profile"), SEEDS)
def test_walk(folder: Path, seed: int, profile: Profile) -> None:
    """After whatever has happened every wanted attachment stands and carries packets, and of the others nothing is left."""
    outcome = walk(folder, profile, seed, STEPS)
    steps = " ".join(map(str, outcome.steps))
    assert outcome.fault is None, f"seed {seed}: {outcome.fault}\n{outcome.log}\nsteps: {steps}"
    assert outcome.quiets >= 2
    assert outcome.proofs >= 1


@pytest.mark.node
@pytest.mark.usefixtures("here")
def test_a_fault_is_seen(folder: Path) -> None:
    """What is left behind is found at the next quiet point: here a file that no round is there to sweep."""
    outcome = walk_again(folder, EVENTS, [Step("garbage", ("json",))], patience=1)
    assert outcome.fault is not None
    assert "left behind" in outcome.fault


@pytest.mark.parametrize("guilty", [{3}, {0, 9}, {5, 6, 18}, set(range(20))], ids=str)
def test_the_shortest_history(guilty: set[int]) -> None:
    """Of a history that fails the steps are found that it fails by, and only they."""
    history = [*(Step("check", (number,)) for number in range(20)), Step("quiet", (False,))]

    def fails(steps: Sequence[Step]) -> Outcome | None:
        taken = [step for step in steps if step.name != "quiet"]
        return Outcome(steps=taken, fault="it fails") if guilty <= {step.arguments[0] for step in taken} else None

    found = shortest(history, fails, seconds=60)

    assert found is not None
    assert {step.arguments[0] for step in found.steps} == guilty


def test_a_history_that_does_not_fail_again() -> None:
    """Where nothing fails again no history is given for the shortest."""
    assert shortest([Step("check", (1,)), Step("quiet", (False,))], lambda _: None, seconds=60) is None
