"""The paired bootstrap of means over images: seeded, so that the same predictions give the same interval."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
_NUMBERS_AT_ONCE = 4_000_000  # 32 MB


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that it lies in with the confidence that was asked for."""

    estimate: float
    low: float
    high: float


def mean_intervals(
    values: npt.NDArray[np.float64], *, confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> list[Interval]:
    """The percentile bootstrap interval (Efron 1979) of the mean over images of each row of `values` (rows x images).

    A difference between two models is one row, so that each resample draws both models' results on the same images.
    All rows are resampled alike. The unit is the image. Classes are not held at their shares, which makes the
    interval of an accuracy a little too wide, not too narrow.
    """
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"values must be rows x images with at least one image, not of shape {values.shape}")
    generator = np.random.default_rng(seed)
    images = values.shape[1]
    means = np.concatenate([counts @ values.T for counts in _image_counts(images, resamples, generator)]) / images
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return [Interval(*map(float, row)) for row in zip(values.mean(axis=1), low, high, strict=True)]


def _image_counts(images: int, resamples: int, generator: np.random.Generator) -> Iterator[npt.NDArray[np.float64]]:
    """How often each image is in each resample (resamples x images), a few resamples at a time."""
    at_once = max(1, _NUMBERS_AT_ONCE // images)
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        drawn = generator.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)
