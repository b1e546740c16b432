"""Groups of trainings that differ in their seed, compared over seeds and images.

Legend: S seeds, N images.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Unit = Literal["seeds and images", "images"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and images, or a difference of two; its interval, and of what that is one."""

    estimate: float
    low: float
    high: float
    p_value: float
    """Two-sided, against zero."""
    degrees: float
    """Degrees of freedom of the t distribution."""
    unit: Unit
    """The first: of what other seeds and other images would give. The second: of these trainings on other
    images, since a group of one does not show how much its seed matters."""


def group_difference(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], *, confidence: float = 0.95
) -> Estimate:
    """Compare the mean over seeds and images of two groups: each S x N, with the same images as columns.

    The figure of an image is taken as the sum of independent effects of its seed, of itself, and of both together
    (two crossed random factors). The variance of the difference is estimated by the sum of

        var over seeds of the first group's means / its S + the same of the second
        + var over images of the difference of the groups' means / N,

    which counts the part of both together twice: the interval is a little too wide, never too narrow (as the
    pigeonhole bootstrap's; Owen 2007). The difference over its root is held to be t-distributed, with degrees of
    freedom by Welch and Satterthwaite, so that few seeds make a wide interval; a bootstrap of three seeds would not.
    It takes seeds as independent between the groups, equal numbers included. Where a group has one seed only, the
    variance over seeds is not known, and the unit is the image.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or first.shape[1] < 2:
        raise ValueError(f"groups of shapes {first.shape} and {second.shape} do not have the same two or more images")
    return _estimate(second.mean(axis=0) - first.mean(axis=0), [first, second], confidence)


def group_mean(figures: npt.NDArray[np.float64], *, confidence: float = 0.95) -> Estimate:
    """The mean over seeds and images of one group, S x N, and its interval by the same reckoning."""
    if figures.ndim != 2 or figures.shape[1] < 2:
        raise ValueError(f"a group of shape {figures.shape} does not have two or more images")
    return _estimate(figures.mean(axis=0), [figures], confidence)


def _estimate(
    per_image: npt.NDArray[np.float64], groups: list[npt.NDArray[np.float64]], confidence: float
) -> Estimate:
    """The mean of a figure of each image, with the variance over images and over the seeds of each group."""
    parts = [(float(per_image.var(ddof=1)) / len(per_image), len(per_image) - 1)]
    has_seeds = min(map(len, groups)) > 1
    if has_seeds:
        parts += [(float(group.mean(axis=1).var(ddof=1)) / len(group), len(group) - 1) for group in groups]
    estimate = float(per_image.mean())
    degrees = _satterthwaite(parts)
    error = math.sqrt(sum(variance for variance, _ in parts))
    reach, p_value = _by_t(estimate, error, degrees, confidence)
    unit: Unit = "seeds and images" if has_seeds else "images"
    return Estimate(estimate, estimate - reach, estimate + reach, p_value, degrees, unit)


def _satterthwaite(parts: list[tuple[float, int]]) -> float:
    """The degrees of freedom of a sum of variances, each with its own (Satterthwaite 1946)."""
    spread = sum(variance**2 / degrees for variance, degrees in parts)
    return sum(variance for variance, _ in parts) ** 2 / spread if spread else float(parts[0][1])


def _by_t(estimate: float, error: float, degrees: float, confidence: float) -> tuple[float, float]:
    """Half of the interval's width, and the two-sided p-value."""
    if error == 0:  # every seed did the same on every image
        return 0.0, 1.0 if estimate == 0 else 0.0
    from scipy.stats import t

    reach = error * float(t.isf((1 - confidence) / 2, degrees))
    return reach, 2 * float(t.sf(abs(estimate) / error, degrees))
