"""Exact tests of two models on the same images, from the images on which only one of them is right.

All of them take the test images as a random sample, and the two models as given: the unit is the image, and nothing
is said about another training of the same settings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_NUISANCE = 1e-6  # level of the bound on the share of disputed images, which p-values of `not_worse` include
_SHARES = 6  # of disputed images, at which the worst case is looked for; it is all but always the largest
_FAR_SDS = 8.0  # nothing further from its mean than this adds to a p-value; a millionth of a billionth is left out


@dataclass(frozen=True)
class PairCounts:
    """How two models did on the same images: all that the tests need."""

    images: int
    only_first: int
    """Images on which only the first model is right."""
    only_second: int

    def __post_init__(self) -> None:
        if min(self.images, self.only_first, self.only_second) < 0 or self.disputed > self.images:
            raise ValueError(f"{self.only_first} and {self.only_second} of {self.images} images cannot be")

    @property
    def disputed(self) -> int:
        """Images on which exactly one of the two is right."""
        return self.only_first + self.only_second

    @property
    def difference(self) -> float:
        """The second model's accuracy less the first's; 0 if there are no images."""
        return (self.only_second - self.only_first) / self.images if self.images else 0.0


def unequal(counts: PairCounts) -> float:
    """The two-sided p-value of the exact McNemar test: are both models right equally often?

    Under the null hypothesis each disputed image falls to either model with probability 1/2 (McNemar 1947).
    """
    return _binomial_test(counts, "two-sided")


def better(counts: PairCounts) -> float:
    """The one-sided p-value of the exact McNemar test against "the second model is no better than the first"."""
    return _binomial_test(counts, "greater")


def not_worse(counts: PairCounts, margin: float) -> float:
    """The one-sided p-value against "the second model is worse by `margin` (a share, 0..1) or more".

    Exact and unconditional: N images, of which a share s is disputed; at the edge of the null hypothesis the second
    model alone is right on a share (s - margin)/2. The p-value is the largest probability, over all s up to its upper
    confidence bound at level 1e-6 (Clopper and Pearson), of a difference as large as the one found or larger, plus
    1e-6 for the bound (Berger and Boos 1994). So no true s makes the rate of false positives larger than the level.
    With no margin it is the conditional test, `better`.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"a margin of {margin} is not a share in 0..1")
    if margin == 0:
        return better(counts)
    if counts.images == 0:
        return 1.0
    from scipy.stats import beta

    n, k = counts.images, counts.disputed
    bound = 1.0 if k == n else float(beta.isf(_NUISANCE, k + 1, n - k))
    largest = max(bound, margin)  # fewer disputed images than the margin cannot be, under the null hypothesis
    shares = [margin + (largest - margin) * step / (_SHARES - 1) for step in range(_SHARES)]
    worst = max(_chance_of_difference(n, share, margin, counts.only_second - counts.only_first) for share in shares)
    return min(1.0, worst + _NUISANCE)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979): valid however they depend on each other."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def _binomial_test(counts: PairCounts, alternative: str) -> float:
    if counts.disputed == 0:
        return 1.0
    from scipy.stats import binomtest  # the import takes a third of a second

    return float(binomtest(counts.only_second, counts.disputed, 0.5, alternative=alternative).pvalue)


def _chance_of_difference(images: int, share: float, margin: float, difference: int) -> float:
    """P(second - first >= difference) where a `share` of images is disputed and the second is worse by `margin`."""
    import numpy as np
    from scipy.stats import binom

    reach = _FAR_SDS * math.sqrt(images * share * (1 - share)) + _FAR_SDS
    low, high = max(0, math.floor(images * share - reach)), min(images, math.ceil(images * share + reach))
    disputed = np.arange(low, high + 1)
    needed = -((-disputed - difference) // 2)  # wins of the second: at least half of disputed + difference
    wins = binom.sf(needed - 1, disputed, max(0.0, (share - margin) / (2 * share)))
    return float(binom.pmf(disputed, images, share) @ wins)
