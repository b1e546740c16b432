from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import TrainConfig
from pipeline.training.learning_rate import learning_rate_at


def rates(schedule: str, total: int = 100, warmup: float = 0.25) -> list[float]:
    config = TrainConfig(schedule=schedule, learning_rate=0.4, warmup_fraction=warmup)
    return [learning_rate_at(step, total, config) for step in range(total)]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "linear"])
def test_the_rate_rises_to_its_peak_and_falls_to_about_nothing(schedule):
    found = rates(schedule)
    peak = found.index(max(found))
    assert peak == 25
    assert found[peak] == pytest.approx(0.4)
    assert all(early < late for early, late in pairwise(found[: peak + 1]))
    assert all(early > late for early, late in pairwise(found[peak:]))
    assert 0 < found[-1] < 0.4 / (70 if schedule == "linear" else 1000)


def test_one_cycle_starts_at_a_25th_of_its_peak_and_rises_along_a_cosine():
    found = rates("one_cycle")
    assert found[0] == pytest.approx(0.4 / 25)
    assert found[5] - found[4] < found[13] - found[12] > found[24] - found[23]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_these_schedules_warm_up_in_a_straight_line(schedule):
    found = rates(schedule)
    steps = [late - early for early, late in pairwise(found[:25])]
    assert steps == pytest.approx([steps[0]] * 24)
    assert 0 < found[0] < found[1]


def test_the_linear_schedule_falls_in_a_straight_line_that_ends_at_nothing_one_step_after_the_last():
    found = rates("linear")
    assert [late - early for early, late in pairwise([*found[25:], 0.0])] == pytest.approx([-0.4 / 75] * 75)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "linear"])
def test_without_a_warm_up_the_rate_starts_at_its_peak(schedule):
    assert rates(schedule, warmup=0)[0] == 0.4


def test_a_constant_rate_stays_at_its_peak():
    assert set(rates("constant")) == {0.4}


@given(
    st.sampled_from(["one_cycle", "cosine", "linear", "constant"]),
    st.integers(1, 1000),
    st.floats(0, 1, exclude_max=True),
    st.data(),
)
def test_the_rate_is_above_nothing_and_never_above_its_peak(schedule, total, warmup, data):
    config = TrainConfig(schedule=schedule, learning_rate=0.3, warmup_fraction=warmup)
    rate = learning_rate_at(data.draw(st.integers(0, total - 1)), total, config)
    assert 0 < rate <= 0.3 * (1 + 1e-12)
