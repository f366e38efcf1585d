"""Has something changed for good? Sums of surprises, one up and one down (Page's CUSUM, 1954)."""

from __future__ import annotations

from dataclasses import dataclass

#: surprise, in standard deviations, that is taken for granted in each observation
GRANTED = 0.5
#: surprise of a single observation that counts at most: one outlier is no change
MOST = 4.0


@dataclass
class Drift:
    """Watches standardised errors of one quantity."""

    #: sum at which the alarm is raised: larger means later, and fewer false alarms
    limit: float
    up: float = 0.0
    down: float = 0.0
    #: observations since the larger sum was last 0, and the sum of their raw errors
    since: int = 0
    total: float = 0.0

    def see(self, error: float, deviation: float) -> bool:
        """One error and its expected standard deviation (above 0); True: a change is as good as certain.

        After an alarm the sums start anew; `since` and `total` stay as they were until the next observation.
        """
        if self.up == self.down == 0.0:
            self.since, self.total = 0, 0.0
        z = min(max(error / deviation, -MOST), MOST)
        self.up, self.down = max(0.0, self.up + z - GRANTED), max(0.0, self.down - z - GRANTED)
        self.since, self.total = self.since + 1, self.total + error
        if max(self.up, self.down) <= self.limit:
            return False
        self.up = self.down = 0.0
        return True

    @property
    def mean(self) -> float:
        """Mean raw error since the change began."""
        return self.total / max(self.since, 1)
