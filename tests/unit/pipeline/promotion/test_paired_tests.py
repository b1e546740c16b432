"""The exact tests, against enumeration: every outcome of a few images, with its probability by hand."""

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.promotion.paired_tests import PairCounts, better, holm, not_worse, unequal


def counts_of(images: int, *, first: int, second: int) -> PairCounts:
    return PairCounts(images, only_first=first, only_second=second)


def outcomes(images: int, only_first: float, only_second: float):
    """Every pair of counts, and its trinomial probability."""
    both = 1 - only_first - only_second
    for b in range(images + 1):
        for c in range(images + 1 - b):
            ways = math.comb(images, b) * math.comb(images - b, c)
            yield (
                counts_of(images, first=b, second=c),
                ways * only_first**b * only_second**c * both ** (images - b - c),
            )


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (1, 8), (9, 2), (0, 5)])
def test_mcnemar_is_the_chance_of_as_uneven_a_split_of_the_disputed_images(first, second):
    disputed = first + second
    splits = [sum(split) for split in itertools.product((0, 1), repeat=disputed)]
    two_sided = sum(abs(2 * wins - disputed) >= abs(second - first) for wins in splits) / len(splits)
    one_sided = sum(wins >= second for wins in splits) / len(splits)
    counts = counts_of(50, first=first, second=second)
    assert unequal(counts) == pytest.approx(two_sided)
    assert better(counts) == pytest.approx(one_sided)


def test_images_on_which_both_agree_change_nothing_in_mcnemars_test():
    assert better(counts_of(20, first=3, second=9)) == better(counts_of(20_000, first=3, second=9))


known_not_worse = functools.cache(not_worse)  # the same outcomes at every share


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9, 1.0])
def test_a_model_worse_by_the_margin_is_called_not_worse_at_most_as_often_as_the_level_says(share):
    """The size of the test at the edge of its null hypothesis, by enumeration of all outcomes."""
    images, margin = 40, 0.1
    edge = list(outcomes(images, (share + margin) / 2, (share - margin) / 2))
    assert sum(chance for _, chance in edge) == pytest.approx(1)
    p_values = np.array([known_not_worse(counts, margin) for counts, _ in edge])
    chances = np.array([chance for _, chance in edge])
    for level in (0.01, 0.05, 0.2):
        assert chances[p_values <= level].sum() <= level
    if share > margin:
        assert chances[p_values <= 0.2].sum() > 0.05, "it is not so careful as to find nothing"


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_equal_models_are_called_better_at_most_as_often_as_the_level_says(share):
    edge = list(outcomes(40, share / 2, share / 2))
    for level in (0.01, 0.05, 0.2):
        assert sum(chance for counts, chance in edge if better(counts) <= level) <= level


def test_the_p_value_of_not_worse_is_the_tail_of_the_difference_in_the_worst_case():
    """By enumeration over a fine grid of disputed shares up to the bound."""
    from scipy.stats import binomtest

    counts, margin = counts_of(30, first=3, second=5), 0.1
    bound = binomtest(counts.disputed, 30, alternative="less").proportion_ci(1 - 1e-6, method="exact").high
    worst = 0.0
    for share in np.linspace(margin, bound, 50):
        tail = [
            chance
            for other, chance in outcomes(30, (share + margin) / 2, (share - margin) / 2)
            if other.only_second - other.only_first >= 2
        ]
        worst = max(worst, sum(tail))
    assert not_worse(counts, margin) == pytest.approx(worst + 1e-6, abs=1e-8)


@pytest.mark.parametrize("images", [400, 4000, 10_000])
def test_with_many_images_not_worse_is_close_to_the_normal_test(images):
    """Never below it by much, and above it only by whole images and the care for the share of disputed ones."""
    from scipy.stats import norm

    first, second, margin = round(0.05 * images), round(0.052 * images), 0.01
    counts = counts_of(images, first=first, second=second)
    deviation = math.sqrt((counts.disputed / images - margin**2) / images)
    normal = norm.sf((counts.difference + margin) / deviation)
    careful = norm.sf((counts.difference - 1 / images + margin) / deviation / 1.4)
    assert normal * 0.9 <= not_worse(counts, margin) <= careful


def test_no_margin_is_the_test_of_better():
    counts = counts_of(100, first=4, second=12)
    assert not_worse(counts, 0) == better(counts)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 30), st.integers(0, 30))
def test_a_wider_margin_is_easier_to_keep_and_more_wins_are_better_evidence(first, second):
    counts, more = counts_of(200, first=first, second=second), counts_of(200, first=first, second=second + 1)
    assert not_worse(counts, 0.05) <= not_worse(counts, 0.02) + 1e-9
    assert better(more) <= better(counts)


def test_without_images_nothing_is_shown():
    none = counts_of(0, first=0, second=0)
    assert (unequal(none), better(none), not_worse(none, 0.1), none.difference) == (1, 1, 1, 0)


@pytest.mark.parametrize("wrong", [{"first": -1, "second": 2}, {"first": 6, "second": 5}])
def test_counts_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="cannot be"):
        counts_of(10, **wrong)
    with pytest.raises(ValueError, match="not a share"):
        not_worse(counts_of(10, first=1, second=1), 1)


def closed_testing(p_values: list[float]) -> list[float]:
    """What Holm's correction is by definition: the worst Bonferroni p-value of all sets that a hypothesis is in."""
    adjusted = []
    for index in range(len(p_values)):
        others = [number for number in range(len(p_values)) if number != index]
        sets = [(index, *some) for size in range(len(p_values)) for some in itertools.combinations(others, size)]
        adjusted.append(max(min(1.0, len(some) * min(p_values[one] for one in some)) for some in sets))
    return adjusted


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=6))
def test_holms_correction_is_closed_testing_with_bonferronis(p_values):
    assert holm(p_values) == pytest.approx(closed_testing(p_values))
