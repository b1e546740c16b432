"""How a share, such as an accuracy, spreads over seeds: its mean, its deviation, and an interval of the mean."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A share over several seeds; what takes two of them is None for one."""

    count: int
    mean: float
    deviation: float | None
    """Of the sample: over count - 1."""
    low: float | None
    high: float | None
    """The 95 % interval of the mean, by Student's t, as far as a share goes: from 0 to 1.

    It is of the seeds' uncertainty alone, not of the test images'.
    """

    def in_words(self) -> str:
        """`91.20 %, mean of 3 seeds (deviation 0.35 points, 95 % interval 90.33 to 92.07 %)`."""
        mean = f"{100 * self.mean:.2f} %"
        if self.deviation is None or self.low is None or self.high is None:
            return f"{mean}, one seed"
        interval = f"{100 * self.low:.2f} to {100 * self.high:.2f} %"
        deviation = f"{100 * self.deviation:.2f} points"
        return f"{mean}, mean of {self.count} seeds (deviation {deviation}, 95 % interval {interval})"


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one share."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Spread(len(values), mean, None, None, None)
    from scipy.special import stdtrit  # a fraction of the import of scipy.stats

    deviation = statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(len(values))
    return Spread(len(values), mean, deviation, max(mean - half, 0.0), min(mean + half, 1.0))
