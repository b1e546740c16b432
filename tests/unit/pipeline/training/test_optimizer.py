from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.config.schema import TrainConfig
from pipeline.training.optimizer import MovingAverage, adamw, learning_rate_at, set_learning_rate
from sequencer_models import catalog


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


@pytest.mark.parametrize("name", ["small", "vanilla"])
def test_weight_decay_falls_on_matrices_only(name):
    architecture = {"small": {"dims": (8, 16), "depths": (1, 1)}, "vanilla": {"hidden": 8}}[name]
    model = catalog.build(name, 3, **architecture)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, plain = adamw(model, TrainConfig(weight_decay=0.2)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.2, 0.0)
    assert {names[p] for p in plain["params"]} == {
        n for n in names.values() if "bias" in n or "norm" in n.split(".")[-2]
    }
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_a_decayed_matrix_shrinks_and_a_bias_does_not():
    model = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = adamw(model, TrainConfig(weight_decay=0.5, learning_rate=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight, before["weight"] * 0.95)
    assert torch.equal(model.bias, before["bias"])


def test_every_group_gets_the_rate():
    optimizer = adamw(nn.Linear(2, 2), TrainConfig())
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_a_moving_average_follows_the_weights_by_its_decay():
    model = nn.BatchNorm1d(2)
    average = MovingAverage(model, decay=0.9)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.num_batches_tracked.fill_(7)
    average.update(model, step=1000)
    torch.testing.assert_close(average.weights["weight"], torch.tensor([1.1, 1.1]))
    assert average.weights["num_batches_tracked"] == 7  # a count is taken over as it is


def test_a_moving_average_shares_no_memory_with_the_model():
    model = nn.Linear(1, 1)
    average = MovingAverage(model, decay=0.9)
    kept = average.weights["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(average.weights["weight"], kept)
    average.load({"weight": torch.full((1, 1), 3.0)})
    assert average.weights["weight"].item() == 3


def test_a_moving_average_forgets_the_weights_that_it_started_from():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = MovingAverage(model, decay=0.9999)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for step in range(100):
        average.update(model, step)
    assert average.weights["weight"].item() > 0.99  # 0.01 with the full decay from the first step
