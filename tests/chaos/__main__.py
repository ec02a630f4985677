"""`python -m tests.chaos`: so many seeds of so many steps, and what came of them."""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from podvif.lab import programs
from tests.chaos.walk import Outcome, failing, shortest, walk
from tests.chaos.world import EVENTS, ROUNDS, Profile

RESULTS = Path("build/chaos/results.json")
SHRINK = 240.0
"""Seconds that may be spent on a shorter history."""


def main() -> int:
    """Walk; the exit code is 1 when a walk has found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Random walks against a real node.")
    parser.add_argument("--seeds", type=int, default=5, help="walks, one after the other")
    parser.add_argument("--first", type=int, default=1, help="the first seed; the next ones follow")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each")
    parser.add_argument("--shrink", type=float, default=SHRINK, help="seconds for a shorter history of a failure")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("the walk runs Open vSwitch and plays the container runtime: run it as root (sudo).")
        return 1
    programs.look_for_all()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was made is taken away first
    outcomes = {}
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        # One seed in five has no rounds: what events do not bring about does not come about there.
        profile = EVENTS if seed % 5 == 0 else ROUNDS
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            outcome = outcomes[seed] = walk(Path(folder), profile, seed, arguments.steps)
        print(line(seed, profile, outcome), flush=True)
        if outcome.fault is not None:
            _tell(profile, outcome, arguments.shrink)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({seed: _summary(each) for seed, each in outcomes.items()}, indent=1) + "\n")
    total, seconds = sum(len(each.steps) for each in outcomes.values()), sum(each.seconds for each in outcomes.values())
    failed = [seed for seed, each in outcomes.items() if each.fault is not None]
    print(f"{total} steps in {seconds:.0f} s over {len(outcomes)} seeds; seeds that failed: {failed or 'none'}")
    return int(bool(failed))


def line(seed: int, profile: Profile, outcome: Outcome) -> str:
    """One walk, for a person."""
    word = "ok" if outcome.fault is None else "FAILED"
    pace = len(outcome.steps) / outcome.seconds
    return (
        f"seed {seed} ({profile.name}): {word}, {len(outcome.steps)} steps in {outcome.seconds:.0f} s ({pace:.1f}/s), "
        f"{outcome.quiets} quiet points, {outcome.proofs} with packets, {outcome.events} file events"
    )


def _tell(profile: Profile, outcome: Outcome, seconds: float) -> None:
    print(f"fault: {outcome.fault}\nthe daemon's log ends:\n{outcome.log}", flush=True)
    print("the last steps: " + " ".join(map(str, outcome.steps[-80:])), flush=True)
    short = shortest(outcome.steps, failing(profile), seconds)
    if short is None:
        print(f"no shorter history failed within {seconds:g} s", flush=True)
        return
    print(f"the shortest history that fails ({len(short.steps)} steps): " + " ".join(map(str, short.steps)))
    print(f"fault: {short.fault}\nthe daemon's log ends:\n{short.log}", flush=True)


def _summary(outcome: Outcome) -> dict[str, object]:
    kinds: dict[str, int] = {}
    for step in outcome.steps:
        kinds[step.name] = kinds.get(step.name, 0) + 1
    return {
        "steps": len(outcome.steps),
        "seconds": round(outcome.seconds, 1),
        "quiet points": outcome.quiets,
        "with packets": outcome.proofs,
        "file events": outcome.events,
        "fault": outcome.fault,
        "by kind": dict(sorted(kinds.items())),
    }


if __name__ == "__main__":
    sys.exit(main())
