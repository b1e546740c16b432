import numpy as np
import pytest

from pipeline.config.schema import CIFAR10_CLASSES, DataConfig
from pipeline.data.subset import SubsetIndices, choose, expected_images
from pipeline.data.synthetic import SyntheticSpec
from pipeline.errors import ConfigError

rng = np.random.default_rng(3)
TRAIN = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), 100))
TEST = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), 20))
FOUR = ("airplane", "automobile", "bird", "cat")


def pick(**changes) -> SubsetIndices:
    wanted = {"classes": FOUR, "fraction": 1.0, "validation_fraction": 0.1, "seed": 0} | changes
    return choose(TRAIN, TEST, CIFAR10_CLASSES, **wanted)


def rows(subset: SubsetIndices) -> dict[str, set[int]]:
    return {split: set(getattr(subset, split).indices.tolist()) for split in ("train", "validation", "test")}


def test_every_split_is_stratified_and_its_labels_are_those_of_its_rows():
    subset = pick(classes=("cat", "frog", "truck"))
    assert subset.class_names == ("cat", "frog", "truck")
    official = np.array([3, 6, 9])
    for split, labels, count in ((subset.train, TRAIN, 90), (subset.validation, TRAIN, 10), (subset.test, TEST, 20)):
        np.testing.assert_array_equal(official[split.labels], labels[split.indices])
        assert np.bincount(split.labels).tolist() == [count] * 3
        assert (np.diff(split.indices) > 0).all()


def test_train_and_validation_share_no_image_and_leave_none_out():
    chosen = rows(pick(classes=CIFAR10_CLASSES))
    assert not chosen["train"] & chosen["validation"]
    assert chosen["train"] | chosen["validation"] == set(range(1000))
    assert chosen["test"] == set(range(200))


def test_a_class_is_split_the_same_whichever_others_are_chosen():
    cats = {int(row) for row in np.flatnonzero(TRAIN == 3)}
    assert rows(pick())["train"] & cats == rows(pick(classes=CIFAR10_CLASSES))["train"] & cats


def test_a_smaller_fraction_is_part_of_a_larger_one_in_every_split():
    half, tenth = rows(pick(fraction=0.5)), rows(pick(fraction=0.1))
    for split, count in (("train", 9), ("validation", 1), ("test", 2)):
        assert tenth[split] < half[split] < rows(pick())[split]
        assert len(tenth[split]) == 4 * count


def test_another_seed_splits_otherwise_and_the_same_seed_alike():
    assert rows(pick(seed=1)) == rows(pick(seed=1))
    assert rows(pick(seed=1))["validation"] != rows(pick(seed=2))["validation"]


def test_the_choice_is_the_same_on_every_platform_and_numpy():
    """Recorded once: it depends on PCG64's raw output only."""
    labels = np.repeat(np.arange(2, dtype=np.uint8), 10)
    subset = choose(labels, labels, ("a", "b"), classes=("a", "b"), fraction=1.0, validation_fraction=0.3, seed=42)
    assert subset.validation.indices.tolist() == [1, 4, 8, 11, 12, 18]


@pytest.mark.parametrize("source", ["synthetic", "auto"])
@pytest.mark.parametrize(("fraction", "validation_fraction"), [(1.0, 0.1), (0.333, 0.07), (0.05, 0.5)])
@pytest.mark.parametrize("classes", [FOUR, CIFAR10_CLASSES])
def test_the_expected_counts_are_those_that_are_chosen(source, fraction, validation_fraction, classes):
    data = DataConfig(
        source=source, fraction=fraction, validation_fraction=validation_fraction, classes=list(classes)
    )
    per_class = SyntheticSpec().train_per_class if source == "synthetic" else 5000
    labels = np.repeat(np.arange(10, dtype=np.uint8), per_class)
    subset = choose(
        labels, TEST, CIFAR10_CLASSES,
        classes=data.class_names, fraction=fraction, validation_fraction=validation_fraction, seed=0,
    )  # fmt: skip
    assert expected_images(data) == (len(subset.train), len(subset.validation))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction": 0.01}, "class airplane is too small to split: 1 train, 0 validation, 0 test of 100"),
        ({"validation_fraction": 0.999}, "0 train, 100 validation, 20 test"),
    ],
)
def test_a_class_with_too_few_images_is_an_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        pick(**changes)
