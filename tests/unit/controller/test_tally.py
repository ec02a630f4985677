"""Counts."""

from podvif.controller.tally import Tally


def test_counts() -> None:
    """What happens is counted by name and result, and time is added up."""
    tally = Tally()
    tally.looked("ok", 0.5)
    tally.looked("ok", 0.25)
    tally.acted("CreatePort", "retry")

    assert tally.looks == {"ok": (2, 0.75)}
    assert tally.actions == {("CreatePort", "retry"): 1}
