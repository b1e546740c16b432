import math
from dataclasses import replace

import numpy as np
import pytest
from paired_predictions import predictions_of

from pipeline.evaluation.predictions import Predictions
from pipeline.promotion.comparison import NotComparableError, compare, same_images


def test_differences_are_the_seconds_figures_less_the_firsts(two_thousand):
    found = compare(*two_thousand)
    assert (found.counts.images, found.counts.only_first, found.counts.only_second) == (2000, 60, 100)
    assert (found.first_accuracy, found.second_accuracy) == (0.88, 0.9)
    assert found.accuracy.estimate == pytest.approx(0.02)
    losses = [
        math.log(0.75) * 0.88 + math.log(0.25) * 0.12,
        math.log(0.9) * 0.9 + math.log(0.1) * 0.1,
    ]
    assert found.log_loss.estimate == pytest.approx(losses[0] - losses[1], abs=1e-6)


def test_the_interval_of_the_difference_is_the_paired_one(two_thousand):
    """Its width by the normal formula for paired differences; without pairing it would be 2.5 times as wide."""
    found = compare(*two_thousand)
    deviation = math.sqrt((160 / 2000 - 0.02**2) / 2000)
    assert found.accuracy.low == pytest.approx(0.02 - 1.96 * deviation, abs=0.001)
    assert found.accuracy.high == pytest.approx(0.02 + 1.96 * deviation, abs=0.001)


def test_the_p_value_is_of_mcnemars_exact_test(two_thousand):
    from scipy.stats import binom

    assert compare(*two_thousand).p_value == pytest.approx(2 * binom.sf(99, 160, 0.5))


def test_the_order_of_the_images_does_not_matter():
    first, second = predictions_of([1] * 90 + [0] * 10), predictions_of([1] * 86 + [0] * 8 + [1] * 6)
    rows = np.random.default_rng(0).permutation(100)
    shuffled = Predictions(second.ids[rows], second.labels[rows], second.probabilities[rows], second.class_names)
    assert compare(first, shuffled) == compare(first, second)
    turned = compare(shuffled, first)
    assert turned.accuracy.estimate == pytest.approx(-0.02)
    assert turned.p_value == compare(first, second).p_value


def test_each_class_is_compared_on_its_own_images_and_corrected_for_their_number():
    """Only airplanes differ: 12 that the second alone gets right, and none the other way."""
    labels = [0] * 100 + [1] * 100
    first = predictions_of([1] * 88 + [0] * 12 + [1] * 90 + [0] * 10, labels)
    second = predictions_of([1] * 100 + [1] * 90 + [0] * 10, labels)
    airplane, bird = compare(first, second).classes
    assert (airplane.name, airplane.counts.images, airplane.first_recall, airplane.second_recall) == (
        "airplane", 100, 0.88, 1.0,
    )  # fmt: skip
    assert airplane.p_value == pytest.approx(2 / 2**12)
    assert airplane.adjusted_p_value == pytest.approx(2 * airplane.p_value)
    assert (bird.counts.disputed, bird.p_value, bird.adjusted_p_value) == (0, 1, 1)


def test_a_class_without_images_is_left_out():
    found = compare(predictions_of([1, 0], [0, 0]), predictions_of([1, 1], [0, 0]))
    assert [one.name for one in found.classes] == ["airplane"]


def test_disagreements_come_with_the_decided_ones_first_and_the_boldest_error_at_the_top():
    names = ("a", "b", "c")
    labels = np.zeros(5, dtype=np.int64)
    given = [
        # image: both right; wrong in two ways; first wrong at 0.6; second wrong at 0.9; both wrong alike
        ([0.8, 0.1, 0.1], [0.9, 0.1, 0.0]),
        ([0.0, 0.99, 0.01], [0.0, 0.02, 0.98]),
        ([0.4, 0.6, 0.0], [0.7, 0.3, 0.0]),
        ([0.5, 0.3, 0.2], [0.05, 0.05, 0.9]),
        ([0.2, 0.8, 0.0], [0.1, 0.9, 0.0]),
    ]
    ids = np.array([10, 11, 12, 13, 14])
    first, second = (
        Predictions(ids, labels, np.array([one[side] for one in given], dtype=np.float32), names) for side in (0, 1)
    )
    found = compare(first, second).disagreements
    assert [one.image for one in found] == [13, 12, 11]
    assert (found[0].row, found[0].label, found[0].first, found[0].second) == (3, 0, 0, 2)
    assert (found[0].first_confidence, found[0].second_confidence) == pytest.approx((0.5, 0.9))


def test_a_probability_of_zero_costs_as_much_as_in_a_report():
    sure = predictions_of([0, 0], confidence=1.0)
    assert compare(predictions_of([1, 1], confidence=1.0), sure).log_loss.estimate == pytest.approx(87.34, abs=0.01)


def test_other_images_other_labels_and_other_classes_are_refused_with_the_reason():
    first = predictions_of([1, 0, 1])
    with pytest.raises(NotComparableError, match="other test images: 3 and 3, of which both have 2"):
        compare(first, predictions_of([1, 0, 1], ids=[0, 1, 7]))
    with pytest.raises(NotComparableError, match="other test images: 3 and 2, of which both have 2"):
        compare(first, predictions_of([1, 0]))
    with pytest.raises(NotComparableError, match="other labels"):
        compare(first, predictions_of([1, 0, 1], [1, 1, 1]))
    with pytest.raises(NotComparableError, match=r"other classes: airplane, bird; and airplane, cat"):
        same_images(first, [replace(first, class_names=("airplane", "cat"))])
