import pytest
import torch
from torch import nn

from pipeline.config.schema import TrainConfig
from pipeline.training.optimizer import MovingAverage, adamw
from sequencer_models import catalog


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
