import numpy as np
import pytest
from scipy import stats

from pipeline.promotion.seeds import group_difference


def groups(generator, seeds=(3, 4), images=300, *, seed_sd=0.0, image_sd=1.0, both_sd=1.0, difference=0.0):
    """Figures with a known effect of seeds, of images (which the groups share in part), and of both together."""
    shared = generator.normal(0, image_sd, images)
    found = []
    for group, count in enumerate(seeds):
        own = generator.normal(0, image_sd / 2, images)
        effects = generator.normal(0, seed_sd, (count, 1)) + generator.normal(0, both_sd, (count, images))
        found.append(shared + own + effects + difference * group)
    return found


@pytest.mark.parametrize("seed_sd", [0.0, 0.05, 0.3])
def test_an_interval_of_95_percent_holds_the_truth_at_least_95_times_in_100_over_seeds_and_images(seed_sd):
    generator = np.random.default_rng(5)
    held = [
        one.low <= 0.2 <= one.high
        for one in (group_difference(*groups(generator, seed_sd=seed_sd, difference=0.2)) for _ in range(400))
    ]
    assert np.mean(held) >= 0.925, "0.95 less three standard errors would be 0.917"


def test_seeds_that_differ_much_and_images_that_do_not_give_welchs_test_of_the_seeds():
    generator = np.random.default_rng(0)
    first, second = (generator.normal(0, 1, (count, 1)) + np.zeros((count, 500)) for count in (4, 6))
    found = group_difference(first, second)
    welch = stats.ttest_ind(second[:, 0], first[:, 0], equal_var=False)
    interval = welch.confidence_interval()
    assert (found.p_value, found.degrees) == pytest.approx((welch.pvalue, welch.df))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.unit == "seeds and images"


def test_seeds_that_do_not_differ_give_the_paired_test_of_the_images():
    generator = np.random.default_rng(0)
    first, second = generator.normal(0, 1, (2, 200))
    found = group_difference(np.tile(first, (3, 1)), np.tile(second, (3, 1)))
    paired = stats.ttest_rel(second, first)
    assert (found.estimate, found.p_value) == pytest.approx((np.mean(second - first), paired.pvalue))
    assert found.degrees == pytest.approx(199)


def test_a_group_of_one_seed_says_that_the_unit_is_the_image():
    generator = np.random.default_rng(0)
    first, second = groups(generator, seeds=(1, 3), seed_sd=5.0)
    found = group_difference(first, second)
    assert found.unit == "images"
    paired = stats.ttest_rel(second.mean(axis=0), first[0])
    assert found.p_value == pytest.approx(paired.pvalue)


def test_few_seeds_that_differ_give_a_wide_interval():
    """With two seeds each the quantile is nearer to 4.3 than to 2."""
    generator = np.random.default_rng(2)
    first, second = groups(generator, seeds=(2, 2), seed_sd=3.0, images=2000, both_sd=0.1)
    found = group_difference(first, second)
    seeds = [group.mean(axis=1).var(ddof=1) / 2 for group in (first, second)]
    assert found.degrees < 2.5
    assert found.high - found.estimate > 2.9 * np.sqrt(sum(seeds))


def test_groups_that_did_the_same_on_every_image_do_not_differ():
    same = np.ones((3, 10))
    found = group_difference(same, same)
    assert (found.estimate, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert group_difference(same, same + 1).p_value == 0


def test_groups_of_other_images_are_refused():
    with pytest.raises(ValueError, match="the same two or more images"):
        group_difference(np.ones((2, 5)), np.ones((2, 6)))
