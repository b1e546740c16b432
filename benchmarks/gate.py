"""How often the gate promotes by luck, and how often what is better: simulated comparisons under the default rules.

python benchmarks/gate.py [--comparisons N]

Each comparison draws what two models get right of a number of test images: both alike often, with a correlation
between their right answers, or the challenger a little more or less often. Beside the share of promotions among the
drawn comparisons stands the probability itself, which has no luck in it.
"""

import argparse
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from measuring.benchmark import Benchmark
from measuring.markdown import Table, machine_in_words, percent
from measuring.records import Record
from measuring.settings import Setting
from measuring.timing import say
from numpy.typing import NDArray
from scipy.stats import binom

from pipeline.config.schema import GateConfig
from pipeline.promotion.gate import Pairing, Side, decide
from pipeline.promotion.paired_tests import PairCounts

RULES = GateConfig()
IMAGES = (4000, 10_000)
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
CHAMPION_ACCURACY = 0.91
MARGIN_POINTS = RULES.equal_within_points or 0.0
DECISIONS = (1, 2, 5, 10)
FAR_SDS = 6.0
AS_LARGE, SMALLER = Side(CHAMPION_ACCURACY, parameters=1000), Side(CHAMPION_ACCURACY, parameters=900)


@dataclass(frozen=True)
class Case:
    """A truth that comparisons are drawn from, and what a promotion then is."""

    name: str
    points: float
    """By which the challenger is better by truth."""
    challenger: Side
    is_false: bool
    """Whether a promotion would be wrong."""


CASES = (
    Case("equal, as large", 0.0, AS_LARGE, is_false=True),
    Case(f"worse by {MARGIN_POINTS:g} points, smaller", -MARGIN_POINTS, SMALLER, is_false=True),
    Case("equal, smaller", 0.0, SMALLER, is_false=False),
    Case("better by 1 point, as large", 1.0, AS_LARGE, is_false=False),
    Case("better by 2 points, as large", 2.0, AS_LARGE, is_false=False),
)


def shares(points: float, correlation: float) -> tuple[float, float] | None:
    """The shares of images on which only the champion, and only the challenger is right; None if there are none such.

    The correlation is that of two 0/1 variables with these means, which is 1 only where they are equal.
    """
    first, second = CHAMPION_ACCURACY, CHAMPION_ACCURACY + points / 100
    both = first * second + correlation * np.sqrt(first * (1 - first) * second * (1 - second))
    only_first, only_second = first - both, second - both
    return (only_first, only_second) if min(only_first, only_second) >= 0 else None


def draw(images: int, only: tuple[float, float], comparisons: int, seed: list[int]) -> NDArray[np.int64]:
    """Counts of comparisons: only the champion right, only the challenger right (comparisons x 2)."""
    found = np.random.default_rng(seed).multinomial(images, [*only, 1 - sum(only)], comparisons)
    return np.asarray(found[:, :2], dtype=np.int64)


def measure(options: argparse.Namespace, _setting: Setting) -> dict[str, Any]:
    rows = []
    for images in IMAGES:
        limits = {(side, n): Limits(images, side, n) for side in (AS_LARGE, SMALLER) for n in DECISIONS}
        for case in CASES:
            for correlation in CORRELATIONS:
                if (only := shares(case.points, correlation)) is None:
                    continue
                seed = [images, round(10 * case.points) + 1000, round(100 * correlation)]
                counts = draw(images, only, options.comparisons, seed)
                asked = {number: limits[case.challenger, number] for number in DECISIONS}
                promoted = {number: one.share_promoted(counts) for number, one in asked.items()}
                chances = {number: one.chance(only) for number, one in asked.items()}
                rows.append(
                    {"images": images, "case": case.name, "is_false": case.is_false, "correlation": correlation,
                     "disputed": sum(only), "promoted": promoted, "chance": chances}
                )  # fmt: skip
            say(f"{images} images, {case.name}: done")
    return {"comparisons": options.comparisons, "rows": rows}


class Limits:
    """What the gate asks of a challenger in the `number`-th decision on so many test images.

    Of the images that one model alone gets right, more that are the challenger's are never worse for it. So the gate
    is asked for the least number of them that is enough, once for each number of disputed images, not 10 000 times.
    """

    def __init__(self, images: int, challenger: Side, number: int) -> None:
        self._images = images
        self._challenger = challenger
        self._before = number - 1
        self._known: dict[int, int] = {}

    def share_promoted(self, counts: NDArray[np.int64]) -> float:
        """The share of comparisons that it promotes in; each a row: only the champion right, only the challenger."""
        return float(np.mean([second >= self.enough(first + second) for first, second in counts.tolist()]))

    def chance(self, only: tuple[float, float]) -> float:
        """The same without drawing: the probability of a promotion, but for what is 6 deviations from the mean."""
        share, reach = sum(only), FAR_SDS * np.sqrt(self._images * sum(only) * (1 - sum(only)))
        middle = self._images * share
        disputed = np.arange(max(0, int(middle - reach)), min(self._images, int(middle + reach) + 1) + 1)
        enough = np.array([self.enough(number) for number in disputed.tolist()])
        return float(binom.pmf(disputed, self._images, share) @ binom.sf(enough - 1, disputed, only[1] / share))

    def enough(self, disputed: int) -> int:
        """How many of the disputed images must be the challenger's; one more than there are if all are too few."""
        if disputed not in self._known:
            low, high = self._around(disputed)
            numbers = range(low, high)
            found = bisect_left(numbers, True, key=lambda only_second: self._promotes(disputed, only_second))
            self._known[disputed] = low + found
        return self._known[disputed]

    def _around(self, disputed: int) -> tuple[int, int]:
        """Numbers that the limit lies between (low <= limit <= high), near that of the nearest that is known."""
        if not self._known:
            return 0, disputed + 1
        nearest = min(self._known, key=lambda known: abs(known - disputed))
        middle = min(max(0, self._known[nearest] + (disputed - nearest) // 2), disputed)
        low, high, step = middle, middle + 1, 1
        while low > 0 and self._promotes(disputed, low - 1):
            low, step = max(0, low - step), 2 * step
        step = 1
        while high <= disputed and not self._promotes(disputed, high):
            high, step = min(disputed + 1, high + step), 2 * step
        return low, high

    def _promotes(self, disputed: int, only_second: int) -> bool:
        pairing = Pairing(PairCounts(self._images, disputed - only_second, only_second))
        return decide(RULES, self._challenger, AS_LARGE, pairing, self._before).promotes


def tables(record: Record) -> list[Table]:
    return [_table(part, is_false) for part in record["settings"].values() for is_false in (True, False)]


def _table(part: dict[str, Any], is_false: bool) -> Table:
    found = part["figures"]
    level = 1 - RULES.confidence
    rows = [
        [
            str(row["images"]),
            row["case"],
            f"{row['correlation']:g}",
            percent(row["disputed"], 1),
            *(_both(row, str(number)) for number in DECISIONS),
        ]
        for row in found["rows"]
        if row["is_false"] == is_false
    ]
    what = "False promotions" if is_false else "Power"
    columns = ["images", "truth", "correlation", "disputed", *(f"decision {number}" for number in DECISIONS)]
    notes = [machine_in_words(part["machine"])]
    if is_false:
        worst = {
            number: max(row["chance"][str(number)] for row in found["rows"] if row["is_false"])
            for number in DECISIONS
        }
        notes.insert(
            0,
            "largest probability, and the level: "
            + "; ".join(f"decision {n} {percent(worst[n], 2)} of {percent(level / n, 2)}" for n in DECISIONS),
        )
    return Table(
        f"{what} in {found['comparisons']} comparisons (and by probability), accuracy {CHAMPION_ACCURACY:.0%}",
        columns,
        rows,
        notes,
    )


def _both(row: dict[str, Any], number: str) -> str:
    return f"{percent(row['promoted'][number], 2)} ({percent(row['chance'][number], 2)})"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--comparisons", type=int, default=10_000, help="of each kind")


BENCHMARK = Benchmark("gate", measure, tables, rounds=None, add_arguments=_arguments)

if __name__ == "__main__":
    BENCHMARK.main()
