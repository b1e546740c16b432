"""How long two models take for one image, in turn on the same machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.promotion.bootstrap import Interval, mean_intervals

WARM_UP = 5
ROUNDS = 100
ENOUGH_S = 6.0
FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class PairedLatency:
    """Medians over rounds; in each round both had one image, one straight after the other."""

    first_ms: float
    second_ms: float
    rounds: int
    times_as_fast: Interval
    """The second: the geometric mean of its ratios, with a 95 % interval over rounds."""


def paired_latency(first: Callable[[], Any], second: Callable[[], Any]) -> PairedLatency:
    """Time both in turn, which of them goes first changing each round."""
    for _ in range(WARM_UP):
        first()
        second()
    rounds: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(rounds) < ROUNDS and (len(rounds) < FEWEST_ROUNDS or time.perf_counter() - began < ENOUGH_S):
        if len(rounds) % 2:
            later = _seconds(second)
            rounds.append((_seconds(first), later))
        else:
            rounds.append((_seconds(first), _seconds(second)))
    times = np.array(rounds)  # rounds x 2
    (ratio,) = mean_intervals(np.log(times[:, 0] / times[:, 1])[None])
    medians = 1000 * np.median(times, axis=0)
    return PairedLatency(
        float(medians[0]),
        float(medians[1]),
        len(rounds),
        Interval(*(float(np.exp(bound)) for bound in (ratio.estimate, ratio.low, ratio.high))),
    )


def _seconds(model: Callable[[], Any]) -> float:
    started = time.perf_counter()
    model()
    return time.perf_counter() - started
