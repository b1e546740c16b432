"""Which images of the official data set are used: classes, a fraction of each, and what is held out for validation.

The choice depends on the seed, the class and the split, and on nothing else: not on the order in which classes are
listed, nor on which others are chosen. A smaller fraction is a part of a larger one, and no image moves between
training and validation when the fraction changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import DataConfig
from pipeline.data.cifar10 import Bytes
from pipeline.data.synthetic import SyntheticSpec
from pipeline.errors import ConfigError

Indices = NDArray[np.int64]

TRAIN_PER_CLASS = 5000
"""Images of each class in CIFAR-10's training files."""
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
    """Out of the official training file, like `train`; the two share no image."""
    test: SplitIndices


def choose(
    train_labels: Bytes,
    test_labels: Bytes,
    class_names: Sequence[str],
    *,
    classes: tuple[str, ...] | Literal["all"],
    fraction: float,
    validation_fraction: float,
    seed: int,
) -> SubsetIndices:
    """Choose the images of each split, stratified by class.

    Of each class's training images, `validation_fraction` is held out. `fraction` then thins every split, the test
    split too, so that a quick run is quick throughout.

    Raises:
        ConfigError: an unknown or doubled class, fewer than two, a fraction out of range, or too few images to split.
    """
    chosen = resolve_classes(classes, class_names)
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction is {fraction}; it must be above 0 and at most 1")
    if not 0 < validation_fraction < 1:
        raise ConfigError(f"validation_fraction is {validation_fraction}; it must be above 0 and below 1")
    if seed < 0:
        raise ConfigError(f"the split seed is {seed}; it must not be negative")

    train, validation, test = [], [], []
    for name in chosen:
        label = list(class_names).index(name)
        pool = _shuffled(train_labels, label, seed, _TRAIN)
        held_out = _share(len(pool), validation_fraction)
        train.append(_thin(pool[held_out:], fraction))
        validation.append(_thin(pool[:held_out], fraction))
        test.append(_thin(_shuffled(test_labels, label, seed, _TEST), fraction))
        counts = {"train": len(train[-1]), "validation": len(validation[-1]), "test": len(test[-1])}
        if not all(counts.values()):
            said = ", ".join(f"{count} {split}" for split, count in counts.items())
            raise ConfigError(
                f"class {name} is too small to split: {said} of {len(pool)} training images with fraction {fraction} "
                f"and validation_fraction {validation_fraction}\nraise the fraction or the validation_fraction "
                "until every split has an image of each class"
            )
    return SubsetIndices(chosen, _merge(train), _merge(validation), _merge(test))


def expected_images(data: DataConfig) -> tuple[int, int]:
    """How many images for training and for validation will be chosen of the data set that a config names."""
    per_class = SyntheticSpec().train_per_class if data.source == "synthetic" else TRAIN_PER_CLASS
    held_out, classes = _share(per_class, data.validation_fraction), len(data.class_names)
    return classes * _share(per_class - held_out, data.fraction), classes * _share(held_out, data.fraction)


def resolve_classes(classes: tuple[str, ...] | Literal["all"], class_names: Sequence[str]) -> tuple[str, ...]:
    """The chosen classes in the official order, so that the same set is the same data set however it is listed.

    Raises:
        ConfigError: an unknown class (the nearest is named), a doubled one, or fewer than two.
    """
    if classes == "all":
        return tuple(class_names)
    for name in classes:
        if name not in class_names:
            near = get_close_matches(name.lower(), class_names, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown class {name!r}{hint}\nthe classes are {', '.join(class_names)}, or `all`")
    doubled = sorted({name for name in classes if classes.count(name) > 1})
    if doubled:
        raise ConfigError(f"named twice: {', '.join(doubled)}; name each class once")
    if len(classes) < 2:
        raise ConfigError(f"{len(classes)} class chosen; a classifier needs at least 2 of {', '.join(class_names)}")
    return tuple(name for name in class_names if name in classes)


def _shuffled(labels: Bytes, label: int, seed: int, file: int) -> Indices:
    """The rows of one class in a random order.

    Sorted by the generator's raw 64-bit output, which numpy keeps the same in every release and on every platform;
    `Generator.permutation` it may change.
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
