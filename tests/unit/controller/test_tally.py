"""Counts."""

import pytest

from podvif.controller.tally import Tally, result_of
from podvif.errors import Bug, PodvifError, Refused, Retry
from podvif.kube.client import ExpiredError


@pytest.mark.parametrize(
    ("error", "result"),
    [(None, "ok"), (Retry("x"), "retry"), (ExpiredError("x"), "retry"), (Refused("x"), "refused"), (Bug("x"), "bug")],
)
def test_result(error: PodvifError | None, result: str) -> None:
    """A result is called by the family of its error, also where the error is a kind of its own."""
    assert result_of(error) == result


def test_counts() -> None:
    """What happens is counted by name and result, and time is added up."""
    tally = Tally()
    tally.looked("ok", 0.5)
    tally.looked("ok", 0.25)
    tally.acted("CreatePort", "retry")

    assert tally.looks == {"ok": (2, 0.75)}
    assert tally.actions == {("CreatePort", "retry"): 1}
