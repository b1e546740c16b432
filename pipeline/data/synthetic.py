"""A small synthetic data set for tests and demos: learnable, not trivial, and kept apart from CIFAR-10.

Each class has a smooth random pattern. An image is its class's pattern mixed with another's, shifted, at a random
contrast, under noise. In some mixtures the other class has the greater weight: no model gets all of them right.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import CIFAR10_CLASSES
from pipeline.data.cifar10 import CHANNELS, SIDE, Batch, Split, array_shapes

_GRID = 4
_LARGEST_SHIFT = 3


@dataclass(frozen=True)
class SyntheticSpec:
    """Size, noise and seed. The class names are CIFAR-10's, so that any class choice works."""

    train_per_class: int = 200
    test_per_class: int = 50
    noise: float = 30.0
    """Standard deviation, in grey levels."""
    least_share: float = 0.42
    """The smallest weight of the image's own class in the mixture; below one half the label is misleading."""
    seed: int = 0
    class_names: tuple[str, ...] = CIFAR10_CLASSES

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""
        classes = len(self.class_names)
        return array_shapes(classes * self.train_per_class, classes * self.test_per_class)


def make(spec: SyntheticSpec) -> Iterator[Batch]:
    """The training images, then the test images, with the classes in random order."""
    sizes: dict[Split, int] = {"train": spec.train_per_class, "test": spec.test_per_class}
    patterns = _patterns(spec)
    for number, (split, per_class) in enumerate(sizes.items()):
        rng = np.random.Generator(np.random.PCG64([spec.seed, 1 + number]))
        labels = rng.permutation(np.repeat(np.arange(len(patterns), dtype=np.uint8), per_class))
        images = np.stack([_image(patterns, int(label), spec, rng) for label in labels])
        yield Batch(split, images, labels)


def _patterns(spec: SyntheticSpec) -> NDArray[np.float64]:
    """One smooth pattern per class, wider than an image by the largest shift: K x 38 x 38 x 3, about -1 to 1."""
    rng = np.random.Generator(np.random.PCG64([spec.seed, 0]))
    side = SIDE + 2 * _LARGEST_SHIFT
    coarse = rng.uniform(-1, 1, (len(spec.class_names), _GRID, _GRID, CHANNELS))
    position = np.linspace(0, _GRID - 1, side)
    low = np.minimum(position.astype(int), _GRID - 2)
    share = position - low
    weights = np.zeros((side, _GRID))
    weights[np.arange(side), low] = 1 - share
    weights[np.arange(side), low + 1] = share
    smooth: NDArray[np.float64] = np.einsum("yi,xj,kijc->kyxc", weights, weights, coarse)
    return smooth


def _image(
    patterns: NDArray[np.float64], label: int, spec: SyntheticSpec, rng: np.random.Generator
) -> NDArray[np.uint8]:
    other = (label + int(rng.integers(1, len(patterns)))) % len(patterns)
    share = rng.uniform(spec.least_share, 1)
    top, left = rng.integers(0, 2 * _LARGEST_SHIFT + 1, 2)
    mixed = share * patterns[label] + (1 - share) * patterns[other]
    mixed = mixed[top : top + SIDE, left : left + SIDE]
    levels = 128 + rng.uniform(40, 100) * mixed + spec.noise * rng.standard_normal(mixed.shape)
    image: NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return image
