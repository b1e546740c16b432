import itertools

import numpy as np
import pytest

from pipeline.promotion import bootstrap
from pipeline.promotion.bootstrap import mean_intervals


def test_the_interval_is_that_of_every_possible_resample():
    """Five images have 3125 resamples, all equally likely."""
    values = np.array([0.0, 1.0, 1.5, 4.0, 10.0])
    means = [np.mean(values[list(rows)]) for rows in itertools.product(range(5), repeat=5)]
    [found] = mean_intervals(values[None], confidence=0.9, resamples=200_000)
    assert found.estimate == pytest.approx(3.3)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])), abs=0.11)


def test_it_agrees_with_scipys_bootstrap():
    from scipy import stats

    values = np.random.default_rng(3).normal(0.2, 1, 500)
    [found] = mean_intervals(values[None])
    other = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", batch=500)
    assert found.low == pytest.approx(other.confidence_interval.low, abs=0.006)
    assert found.high == pytest.approx(other.confidence_interval.high, abs=0.006)


def test_an_interval_of_95_percent_holds_the_truth_95_times_in_100():
    generator = np.random.default_rng(1)
    samples = generator.exponential(1.0, (400, 200))
    held = [one.low <= 1.0 <= one.high for one in mean_intervals(samples, resamples=1000)]
    assert 0.91 <= np.mean(held) <= 0.98


def test_every_row_sees_the_same_resamples_however_many_are_drawn_at_once(monkeypatch):
    values = np.random.default_rng(0).normal(size=300)
    plain, shifted = mean_intervals(np.stack([values, 5 + 2 * values]), resamples=500)
    assert shifted.low == pytest.approx(5 + 2 * plain.low)
    assert shifted.high == pytest.approx(5 + 2 * plain.high)
    monkeypatch.setattr(bootstrap, "_NUMBERS_AT_ONCE", 10 * 300)
    (few,) = mean_intervals(values[None], resamples=500)
    assert (few.low, few.high) == pytest.approx((plain.low, plain.high), rel=1e-12)


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    values = np.random.default_rng(0).normal(size=(1, 50))
    assert mean_intervals(values, resamples=200) == mean_intervals(values, resamples=200)
    assert mean_intervals(values, resamples=200, seed=1) != mean_intervals(values, resamples=200)


@pytest.mark.parametrize("shape", [(3,), (2, 0)])
def test_values_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="rows x images"):
        mean_intervals(np.zeros(shape))
