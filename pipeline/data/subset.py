"""Which images of the official data set are used: classes, a fraction of each, and what is held out for validation.

The choice depends on the seed, the class and the split, and on nothing else: not on the order in which classes are
listed, nor on which others are chosen. A smaller fraction is a subset of a larger one, and no image moves between
training and validation when the fraction changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.cifar10 import Bytes
from pipeline.errors import ConfigError

Indices = NDArray[np.int64]

_TRAIN, _TEST = 0, 1  # which official file; part of the seed


@dataclass(frozen=True)
class SplitIndices:
    """Rows of one official file in ascending order, and the labels of these rows, 0 to K-1."""

    indices: Indices
    labels: Indices

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class SubsetIndices:
    """The images of each split. Label `k` is `class_names[k]`, which are in the official order."""

    class_names: tuple[str, ...]
    train: SplitIndices
    validation: SplitIndices
    """From the official training file, like `train`; the two share no image."""
    test: SplitIndices


def choose(
    train_labels: Bytes,
    test_labels: Bytes,
    class_names: Sequence[str],
    *,
    classes: Sequence[str],
    fraction: float,
    validation_fraction: float,
    seed: int,
) -> SubsetIndices:
    """Choose the images of each split, stratified by class; `classes` are some of `class_names`, in the same order.

    Of each class's training images, `validation_fraction` is held out. `fraction` then thins every split, the test
    split included, so that a quick run is quick throughout.

    Raises:
        ConfigError: a class has too few images to split.
    """
    train, validation, test = [], [], []
    for name in classes:
        label = class_names.index(name)
        pool = _shuffled(train_labels, label, seed, _TRAIN)
        held_out = _share(len(pool), validation_fraction)
        train.append(_thin(pool[held_out:], fraction))
        validation.append(_thin(pool[:held_out], fraction))
        test.append(_thin(_shuffled(test_labels, label, seed, _TEST), fraction))
        counts = {"train": len(train[-1]), "validation": len(validation[-1]), "test": len(test[-1])}
        if not all(counts.values()):
            listed = ", ".join(f"{count} {split}" for split, count in counts.items())
            raise ConfigError(
                f"class {name} is too small to split: {listed} of {len(pool)} training images with fraction "
                f"{fraction} and validation_fraction {validation_fraction}\nraise the fraction or the "
                "validation_fraction until every split has an image of each class"
            )
    return SubsetIndices(tuple(classes), _merge(train), _merge(validation), _merge(test))


def _shuffled(labels: Bytes, label: int, seed: int, file: int) -> Indices:
    """The rows of one class in a random order.

    Sorted by the generator's raw 64-bit output, which numpy keeps the same in every release and on every platform,
    unlike `Generator.permutation`.
    """
    rows = np.flatnonzero(np.asarray(labels) == label).astype(np.int64)
    keys = np.random.PCG64([seed, label, file]).random_raw(len(rows))
    return rows[np.argsort(keys, kind="stable")]


def _share(count: int, share: float) -> int:
    return int(count * share + 0.5)


def _thin(rows: Indices, fraction: float) -> Indices:
    return rows[: _share(len(rows), fraction)]


def _merge(per_class: Sequence[Indices]) -> SplitIndices:
    indices = np.concatenate(per_class)
    labels = np.repeat(np.arange(len(per_class), dtype=np.int64), [len(rows) for rows in per_class])
    order = np.argsort(indices)
    return SplitIndices(indices[order], labels[order])
