import pytest
import torch
from torch import nn

from pipeline.config.schema import TrainConfig
from pipeline.training.muon import matrices_of
from pipeline.training.optimizer import Optimizer
from sequencer_models import catalog

ARCHITECTURES = {"small": {"dims": (8, 16), "depths": (1, 1)}, "vanilla": {"hidden": 8}}


def one_step(model: nn.Module, optimizer: Optimizer, gradient: float) -> dict[str, torch.Tensor]:
    """The weights' changes by a step with the same gradient everywhere."""
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return {name: value.detach() - before[name] for name, value in model.named_parameters()}


@pytest.mark.parametrize("name", ["small", "vanilla"])
def test_weight_decay_falls_on_matrices_only(name):
    model = catalog.build(name, 3, **ARCHITECTURES[name])
    optimizer = Optimizer(model, TrainConfig(weight_decay=0.2, learning_rate=0.1))
    changes = one_step(model, optimizer, 0.0)
    still = {name for name, change in changes.items() if not change.any()}
    assert still == {n for n in changes if "bias" in n or "norm" in n.split(".")[-2]}
    weight = model.head.weight.detach()
    torch.testing.assert_close(weight / 0.98 - weight, -changes["head.weight"])


def test_biases_and_norms_have_their_multiple_of_the_rate():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = Optimizer(model, TrainConfig(weight_decay=0.0, bias_rate_factor=4.0))
    optimizer.set_learning_rate(0.01)
    changes = one_step(model, optimizer, 1.0)  # the first step of Adam is as long as the rate
    found = {name: -change.mean().item() for name, change in changes.items()}
    assert found == pytest.approx({"0.weight": 0.01, "0.bias": 0.04, "1.weight": 0.04, "1.bias": 0.04}, rel=1e-4)
    optimizer.set_learning_rate(0.0)
    assert not any(change.any() for change in one_step(model, optimizer, 1.0).values())


@pytest.mark.parametrize("beta2", [0.999, 0.5])
def test_it_is_adamw_with_the_beta2_that_was_asked_for(beta2):
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = Optimizer(ours, TrainConfig(learning_rate=0.1, weight_decay=0.0, adam_beta2=beta2))
    oracle = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.0, betas=(0.9, beta2), fused=True)
    for gradient in (1.0, -3.0, 0.2):
        one_step(ours, optimizer, gradient)
        for parameter in theirs.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        oracle.step()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_with_muon_the_matrices_of_hidden_layers_are_its_own_and_all_else_is_adamws():
    model = catalog.build("small", 3, **ARCHITECTURES["small"])
    before = Optimizer(model, TrainConfig(optimizer="muon"))
    one_step(model, before, 0.1)
    slots: dict[str, set[str]] = {}
    for name in before.state():
        weight, _, slot = name.rpartition(".")
        slots.setdefault(weight, set()).add(slot)
    assert set(slots) == {name for name, _ in model.named_parameters()}
    assert {name for name, found in slots.items() if found == {"momentum"}} == set(matrices_of(model))


def test_muon_has_its_own_peak_on_the_same_schedule_and_its_own_weight_decay():
    model = nn.ModuleDict({"fc": nn.Linear(4, 4, bias=False), "head": nn.Linear(4, 4, bias=False)})
    settings = {"learning_rate": 0.1, "muon_learning_rate": 0.4, "weight_decay": 0.5, "optimizer": "muon"}
    optimizer = Optimizer(model, TrainConfig(**settings))
    optimizer.set_learning_rate(0.05)  # half of the peak
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    changes = one_step(model, optimizer, 0.0)
    torch.testing.assert_close(changes["fc.weight"], -0.2 * 0.5 * weights["fc.weight"])
    torch.testing.assert_close(changes["head.weight"], -0.05 * 0.5 * weights["head.weight"])


def test_muon_computes_in_the_precision_of_the_training():
    model, gradient = nn.ModuleDict({"fc": nn.Linear(4, 6, bias=False)}), torch.randn(6, 4)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    changes = []
    for precision in ("fp32", "bf16", "fp32"):
        model.load_state_dict(kept)
        optimizer = Optimizer(model, TrainConfig(optimizer="muon"), precision)
        model["fc"].weight.grad = gradient.clone()
        optimizer.step()
        changes.append(model["fc"].weight.detach() - kept["fc.weight"])
    assert torch.equal(changes[0], changes[2])
    assert not torch.equal(changes[0], changes[1])
    assert (changes[0] - changes[1]).norm() < 0.05 * changes[0].norm()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_it_keeps_is_as_large_as_it_says(optimizer, frozen):
    model = catalog.build("small", 3, **ARCHITECTURES["small"])
    model.levels.requires_grad_(not frozen)
    found = Optimizer(model, TrainConfig(optimizer=optimizer))
    one_step(model, found, 0.1)
    assert found.state_bytes == sum(value.nbytes for name, value in found.state().items() if "step" not in name)


def test_only_muon_has_arithmetic_and_scratch():
    model = catalog.build("small", 3, **ARCHITECTURES["small"])
    plain, muon = (Optimizer(model, TrainConfig(optimizer=name)) for name in ("adamw", "muon"))
    assert (plain.flops, plain.scratch_bytes) == (0, 0)
    assert muon.flops > muon.scratch_bytes > 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_weights_are_left_alone_and_have_no_state(optimizer):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    optimizer = Optimizer(model, TrainConfig(weight_decay=0.5, optimizer=optimizer))
    changes = one_step(model, optimizer, 0.0)
    assert not changes["0.weight"].any()
    assert changes["1.weight"].any()
    assert {name.rpartition(".")[0] for name in optimizer.state()} == {"0.bias", "1.weight", "1.bias"}


def test_its_state_goes_by_the_names_of_the_weights():
    model = nn.Linear(3, 2)
    optimizer = Optimizer(model, TrainConfig())
    assert optimizer.state() == {}
    one_step(model, optimizer, 1.0)
    assert set(optimizer.state()) == {
        f"{name}.{slot}" for name in ("weight", "bias") for slot in ("step", "exp_avg", "exp_avg_sq")
    }


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_it_goes_on_from_a_state_bit_for_bit(name):
    model = nn.Linear(3, 2)
    optimizer = Optimizer(model, TrainConfig(optimizer=name))
    one_step(model, optimizer, 1.0)
    state = {name: value.clone() for name, value in optimizer.state().items()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    one_step(model, optimizer, -2.0)
    again = nn.Linear(3, 2)
    again.load_state_dict(weights)
    resumed = Optimizer(again, TrainConfig(optimizer=name))
    resumed.load_state(state)
    one_step(again, resumed, -2.0)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, resumed.state()[name]) for name, value in optimizer.state().items())


def test_gradients_are_freed():
    model = nn.Linear(3, 2)
    optimizer = Optimizer(model, TrainConfig())
    one_step(model, optimizer, 1.0)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
