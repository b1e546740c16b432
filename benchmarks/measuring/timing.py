"""Several ways to do the same, timed in turn in one process: what else the machine does meets them all."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ENOUGH = 20
"""Rounds that a figure which is kept has to be the median of."""
WARM_UP = 2


@dataclass(frozen=True)
class Times:
    """Seconds of one way, round by round."""

    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def to_json(self) -> dict[str, float]:
        """Median and quartiles in milliseconds, and how many rounds they are of."""
        low, _, high = quartiles(self.seconds)
        return {
            "median_ms": round(1000 * self.median_s, 4),
            "quartile_1_ms": round(1000 * low, 4),
            "quartile_3_ms": round(1000 * high, 4),
            "rounds": len(self.seconds),
        }


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = WARM_UP) -> dict[str, Times]:
    """A B C A B C ...: `rounds` of each after `warm_up`, in which caches fill and primitives are built."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for done in range(-warm_up, rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            taken = time.perf_counter() - started
            if done >= 0:
                seconds[name].append(taken)
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


def speedup(theirs: Times, ours: Times) -> dict[str, float]:
    """How many times faster ours is: the ratio of the medians, and the quartiles of the rounds' own ratios."""
    low, _, high = quartiles([a / b for a, b in zip(theirs.seconds, ours.seconds, strict=True)])
    return {
        "speedup": round(theirs.median_s / ours.median_s, 3),
        "speedup_quartile_1": round(low, 3),
        "speedup_quartile_3": round(high, 3),
    }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The values that a quarter, a half and three quarters of all lie below."""
    if len(values) == 1:
        return (values[0],) * 3
    first, second, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, second, third


def say(text: str) -> None:
    """Tell whoever waits how far it is; results go to stdout, this does not."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()
