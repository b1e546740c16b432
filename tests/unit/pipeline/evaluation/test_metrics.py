import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.evaluation.metrics import ClassificationReport, compute, wilson_interval
from pipeline.evaluation.predictions import Predictions

Make = Callable[..., Predictions]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_agrees_with_published_ones(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("trials", [1, 3, 7, 4000])
def test_the_wilson_interval_stays_in_0_to_1_and_mirrors(trials: int) -> None:
    for successes in range(0, trials + 1, max(1, trials // 50)):
        low, high = wilson_interval(successes, trials)
        assert 0 <= low <= successes / trials <= high <= 1
        mirrored = wilson_interval(trials - successes, trials)
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (2, 1), (-1, 4)])
def test_an_interval_needs_a_proportion(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        wilson_interval(successes, trials)


def test_calibration_matches_a_hand_calculation(make_predictions: Make) -> None:
    report = compute(
        make_predictions([0, 1, 0, 1], [[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.55, 0.45]]), calibration_bins=5
    )
    # (0.8, 1]: 2 images, 1 right, gap 0.4; (0.6, 0.8]: 1 image, right, gap 0.3; (0.4, 0.6]: 1 image, wrong, 0.55
    assert report.ece == pytest.approx(0.5 * 0.4 + 0.25 * 0.3 + 0.25 * 0.55)
    assert report.max_calibration_error == pytest.approx(0.55)
    assert [bin_.count for bin_ in report.reliability] == [0, 0, 1, 1, 2]
    assert [bin_.accuracy for bin_ in report.reliability] == [None, None, 0.0, 1.0, 0.5]
    assert report.reliability[4].confidence == pytest.approx(0.9)
    assert report.reliability[0].confidence is None
    assert (report.reliability[3].low, report.reliability[3].high) == pytest.approx((0.6, 0.8))


def test_a_confidence_on_an_edge_belongs_to_the_bin_below(make_predictions: Make) -> None:
    report = compute(make_predictions([0, 0], [[0.8, 0.2], [0.6, 0.4]]), calibration_bins=5)
    assert [bin_.count for bin_ in report.reliability] == [0, 0, 1, 1, 0]


def test_fifteen_bins_by_default(make_predictions: Make) -> None:
    assert len(compute(make_predictions([0], [[1, 0]])).reliability) == 15


def test_figures_match_a_hand_calculation_with_a_class_never_predicted(make_predictions: Make) -> None:
    report = compute(
        make_predictions(
            labels=[0, 0, 1, 1, 2],
            probabilities=[
                [0.5, 0.25, 0.25],  # right
                [0.25, 0.5, 0.25],  # 0 predicted as 1
                [0.25, 0.5, 0.25],  # right
                [0.125, 0.75, 0.125],  # right
                [0.75, 0.125, 0.125],  # 2 predicted as 0
            ],
        )
    )
    assert report.images == 5
    assert report.accuracy == pytest.approx(3 / 5)
    assert report.loss == pytest.approx(-math.log(0.5 * 0.25 * 0.5 * 0.75 * 0.125) / 5)
    assert report.confusion == ((1, 1, 0), (0, 2, 0), (1, 0, 0))
    airplane, automobile, bird = report.classes
    assert (airplane.precision, airplane.recall, airplane.f1, airplane.support) == pytest.approx((0.5, 0.5, 0.5, 2))
    assert (automobile.precision, automobile.recall, automobile.f1) == pytest.approx((2 / 3, 1, 0.8))
    assert (bird.name, bird.precision, bird.recall, bird.f1, bird.support) == ("bird", 0, 0, 0, 1)
    assert report.macro_f1 == pytest.approx((0.5 + 0.8 + 0) / 3)


def test_a_class_without_images_keeps_its_place(make_predictions: Make) -> None:
    report = compute(make_predictions([0, 1], [[1, 0, 0], [0, 1, 0]]))
    assert report.confusion == ((1, 0, 0), (0, 1, 0), (0, 0, 0))
    assert report.classes[2].support == 0
    assert report.macro_f1 == pytest.approx(2 / 3)


def test_perfect_predictions(make_predictions: Make) -> None:
    report = compute(make_predictions([0, 1, 2, 3] * 5, np.tile(np.eye(4), (5, 1))))
    assert (report.accuracy, report.loss, report.ece, report.max_calibration_error, report.macro_f1) == (
        1,
        0,
        0,
        0,
        1,
    )
    assert report.accuracy_high == 1
    assert report.accuracy_low == pytest.approx(1 - 0.1611, abs=5e-5)


def test_a_single_wrong_image(make_predictions: Make) -> None:
    report = compute(make_predictions([1], [[0.75, 0.25]]))
    assert report.loss == pytest.approx(math.log(4))
    assert report.accuracy == 0
    assert report.ece == report.max_calibration_error == 0.75
    assert (report.accuracy_low, report.accuracy_high) == pytest.approx((0, 0.7935), abs=5e-5)


def test_only_a_probability_that_underflowed_is_clipped(make_predictions: Make) -> None:
    assert compute(make_predictions([1], [[1, 0]])).loss == pytest.approx(87.34, abs=0.01)
    assert compute(make_predictions([1], [[1, 1e-30]])).loss == pytest.approx(30 * math.log(10), rel=1e-6)


def test_the_order_of_images_changes_nothing(random_predictions: Callable[[int, int], Predictions]) -> None:
    predictions = random_predictions(500, 4)
    order = np.random.default_rng(1).permutation(500)
    shuffled = Predictions(
        predictions.ids[order], predictions.labels[order], predictions.probabilities[order], predictions.class_names
    )
    before, after = compute(predictions), compute(shuffled)
    assert after.confusion == before.confusion
    assert (after.loss, after.ece) == pytest.approx((before.loss, before.ece), abs=1e-12)


def test_a_report_survives_json(random_predictions: Callable[[int, int], Predictions]) -> None:
    report = compute(random_predictions(50, 4))
    text = json.dumps(report.to_json(), allow_nan=False)
    assert ClassificationReport.from_json(json.loads(text)) == report
    assert any(bin_.accuracy is None for bin_ in report.reliability)


def test_json_that_is_not_a_report_is_refused(make_predictions: Make) -> None:
    plain = compute(make_predictions([0], [[1, 0]])).to_json()
    del plain["ece"]
    with pytest.raises(ValueError, match="ece"):
        ClassificationReport.from_json(plain)
