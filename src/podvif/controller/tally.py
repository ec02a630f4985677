"""What has happened so far, counted where it happens.

Law: counting costs one look-up and knows nothing of who reads it.
"""

from collections import Counter


class Tally:
    """The counts.

    Attributes:
        looks: pods that were looked at, and the seconds that took, by result.
        actions: by name and result.
        swept: ports that belonged to nobody and were removed.
    """

    def __init__(self) -> None:
        self.looks: dict[str, tuple[int, float]] = {}
        self.actions: Counter[tuple[str, str]] = Counter()
        self.swept = 0

    def looked(self, result: str, seconds: float) -> None:
        """A pod was looked at."""
        count, total = self.looks.get(result, (0, 0.0))
        self.looks[result] = (count + 1, total + seconds)

    def acted(self, action: str, result: str) -> None:
        """Something was done, or tried."""
        self.actions[action, result] += 1
