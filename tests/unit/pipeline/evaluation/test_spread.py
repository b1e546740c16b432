import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.spread import spread

VALUES = (0.85, 0.86, 0.88, 0.87)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_figures_are_those_of_scipy_and_numpy(count):
    values = VALUES[:count]
    found = spread(values)
    assert found.count == count
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    interval = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(interval)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [spread(values) for values in rng.normal(0.9, 0.01, (2000, 3)).tolist()]
    assert np.mean([one.low <= 0.9 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)


def test_one_value_has_neither_a_deviation_nor_an_interval():
    assert spread([0.9]) == type(spread([0.9]))(1, 0.9, None, None, None)


def test_the_interval_goes_no_further_than_a_share():
    found = spread([0.1, 0.9])
    assert (found.low, found.high) == (0.0, 1.0)


def test_equal_values_have_an_interval_of_no_width():
    found = spread([0.5, 0.5, 0.5])
    assert (found.deviation, found.low, found.high) == (0.0, 0.5, 0.5)


def test_the_words_have_every_figure():
    assert spread([0.85, 0.87]).in_words() == (
        "86.00 %, mean of 2 seeds (deviation 1.41 points, 95 % interval 73.29 to 98.71 %)"
    )
    assert spread([0.85]).in_words() == "85.00 %, one seed"
