import subprocess
import sys

import pytest
import safetensors.torch
import torch

from sequencer_models import catalog
from sequencer_models.activation_checkpointing import blocks_of

NAMES = ["small", "medium", "vanilla"]
LSTMS = {"pooling": "attention", "recurrent_init": "orthogonal", "forget_bias": 1.0}
DEPARTING = {
    "small, rows": ("small", {**LSTMS, "stem": "deep", "stem_width": 64, "whitened": True, "mixing": "rows"}),
    "medium, columns": ("medium", {"stem": "deep", "mixing": "columns"}),
    "vanilla, attention": ("vanilla", LSTMS),
}
"""Architectures with the options that depart from what the names stand for."""
ALL = [*NAMES, *DEPARTING]


def build(name: str) -> torch.nn.Module:
    name, fields = DEPARTING.get(name, (name, {}))
    return catalog.build(name, 7, **fields)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {name: build(name).eval() for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_logits_have_one_column_per_class_and_are_finite(models, name):
    logits = models[name](torch.randn(3, 3, 32, 32))
    assert logits.shape == (3, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_every_parameter_that_is_trained_gets_a_finite_gradient(models, name, bf16):
    model = models[name]
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(torch.randn(4, 3, 32, 32))
    torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3])).backward()
    fixed = ["stem.convs.0.weight"] if getattr(model.architecture, "whitened", False) else []
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == fixed
    for parameter_name, parameter in model.named_parameters():
        if parameter_name in fixed:
            continue
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_the_batch_changes_no_prediction(models, name, grad):
    images = torch.randn(5, 3, 32, 32)
    order = torch.tensor([3, 0, 4, 2, 1])
    with torch.set_grad_enabled(grad):
        together = models[name](images)
        alone = torch.cat([models[name](images[n : n + 1]) for n in range(5)])
        permuted = models[name](images[order])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(permuted, together[order], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)  # it does look at the images


@pytest.mark.parametrize("name", [name for name in ALL if "vanilla" not in name])
def test_an_image_gets_no_gradient_from_another_in_bf16_training(models, name):
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        models[name](images)[1].sum().backward()
    assert images.grad[1].abs().max() > 0
    assert images.grad[[0, 2, 3]].abs().max() == 0


@pytest.mark.parametrize("name", ALL)
def test_weights_survive_safetensors(models, name):
    saved = safetensors.torch.save(models[name].state_dict())
    other = build(name).eval()
    other.load_state_dict(safetensors.torch.load(saved))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(images), models[name](images))


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_weights(name):
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build(name).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("name", "parameters"), [("small", 7_568_074), ("medium", 13_043_914), ("vanilla", 1_485_706)]
)
def test_size_is_the_published_one(name, parameters):
    assert sum(parameter.numel() for parameter in catalog.build(name, 10).parameters()) == parameters


def test_architecture_fields_reach_the_model_and_lists_count_as_tuples():
    model = catalog.build("small", 4, dims=[16, 24], depths=[1, 1], grid=4, init="paper")
    assert (model.architecture.dims, model.architecture.depths, model.architecture.grid, model.architecture.init) == (
        (16, 24),
        (1, 1),
        4,
        "paper",
    )


def test_a_model_has_its_own_fields_and_those_that_are_given():
    assert catalog.build("medium", 4).architecture.pointwise == (2, 3)
    assert catalog.build("medium", 4, pointwise=[3]).architecture.pointwise == (3,)
    assert catalog.build("vanilla", 4).architecture.hidden == 192, "as in a config"


def test_an_unknown_model_or_field_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no model 'smol'; choose from small, medium, vanilla"):
        catalog.build("smol", 4)
    with pytest.raises(ValueError, match=r"small has no architecture field 'drop_pat'; choose from .*drop_path"):
        catalog.build("small", 4, drop_pat=0.1)
    with pytest.raises(ValueError, match="vanilla has no architecture field 'grid'"):
        catalog.build("vanilla", 4, grid=8)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_blocks_if_it_says_so(models, name):
    assert bool(blocks_of(models[name])) == catalog.MODELS[name].has_blocks


def test_models_are_declared_without_torch():
    program = "import sys; from sequencer_models import catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
