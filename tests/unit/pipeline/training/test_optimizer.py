import pytest
import torch
from torch import nn

from pipeline.config.schema import TrainConfig
from pipeline.training.optimizer import adamw
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
