from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.config.schema import TrainConfig
from pipeline.training.learning_rate import learning_rate_at, set_learning_rate
from pipeline.training.optimizer import adamw


def rates(schedule: str, total: int = 100, warmup: float = 0.25) -> list[float]:
    config = TrainConfig(schedule=schedule, learning_rate=0.4, warmup_fraction=warmup)
    return [learning_rate_at(step, total, config) for step in range(total)]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_the_rate_rises_to_its_peak_and_falls_to_about_nothing(schedule):
    found = rates(schedule)
    peak = found.index(max(found))
    assert peak == 25
    assert found[peak] == pytest.approx(0.4)
    assert all(early < late for early, late in pairwise(found[: peak + 1]))
    assert all(early > late for early, late in pairwise(found[peak:]))
    assert 0 < found[-1] < 0.4 / 1000


def test_one_cycle_starts_at_a_25th_of_its_peak_and_rises_along_a_cosine():
    found = rates("one_cycle")
    assert found[0] == pytest.approx(0.4 / 25)
    assert found[5] - found[4] < found[13] - found[12] > found[24] - found[23]


def test_the_cosine_schedule_warms_up_in_a_straight_line():
    found = rates("cosine")
    steps = [late - early for early, late in pairwise(found[:25])]
    assert steps == pytest.approx([steps[0]] * 24)
    assert 0 < found[0] < found[1]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_without_a_warm_up_the_rate_starts_at_its_peak(schedule):
    assert rates(schedule, warmup=0)[0] == 0.4


def test_a_constant_rate_stays_at_its_peak():
    assert set(rates("constant")) == {0.4}


@given(
    st.sampled_from(["one_cycle", "cosine", "constant"]),
    st.integers(1, 1000),
    st.floats(0, 1, exclude_max=True),
    st.data(),
)
def test_the_rate_is_above_nothing_and_never_above_its_peak(schedule, total, warmup, data):
    config = TrainConfig(schedule=schedule, learning_rate=0.3, warmup_fraction=warmup)
    rate = learning_rate_at(data.draw(st.integers(0, total - 1)), total, config)
    assert 0 < rate <= 0.3 * (1 + 1e-12)


def test_every_group_gets_the_rate():
    optimizer = adamw(nn.Linear(2, 2), TrainConfig())
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]
