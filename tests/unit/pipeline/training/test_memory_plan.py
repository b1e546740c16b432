import dataclasses

import pytest
import torch

from pipeline.errors import MemoryCapError
from pipeline.training import memory_plan
from sequencer_models import catalog, kernels
from sequencer_models.kernels import Kernels


@pytest.fixture
def model():
    return catalog.build("small", 3, dims=(32, 64), depths=(2, 2), drop_path=0.1)


@pytest.fixture
def numerics(bench, monkeypatch):
    monkeypatch.setattr(memory_plan, "tree_memory_mb", lambda pid: 100.0)
    return bench.numerics


def held_mb(model, numerics) -> float:
    """What the plan says one image needs, less that image."""
    with pytest.raises(MemoryCapError, match="needs") as caught:
        memory_plan.micro_batch_size(1.0, 8, model, numerics, checkpointing=False)
    return float(str(caught.value).split("needs ")[1].split(" MB")[0])


def test_what_is_kept_is_what_autograd_saves(numerics):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 5))
    # the pixels for the linear layer's gradient, and for the loss the log-probabilities and the label
    assert memory_plan.kept_mb_per_image(model, numerics, checkpointing=False) * 1e6 == 4 * 3072 + 4 * 5 + 8


@pytest.mark.usefixtures("native_kernel")
def test_the_native_kernel_keeps_less_than_nn_lstm_and_bf16_less_than_fp32(model, numerics):
    eager = memory_plan.kept_mb_per_image(model, numerics, checkpointing=False)
    kernels.select(Kernels(lstm="native"))
    native = memory_plan.kept_mb_per_image(model, numerics, checkpointing=False)
    bf16 = memory_plan.kept_mb_per_image(model, dataclasses.replace(numerics, precision="bf16"), checkpointing=False)
    assert native < eager
    assert bf16 < 0.6 * native


def test_without_the_native_kernel_one_mixer_at_a_time_holds_all_that_nn_lstm_keeps(numerics):
    one, two, three = (
        memory_plan.kept_mb_per_image(
            catalog.build("small", 3, dims=(32,), depths=(depth,), pointwise=(), drop_path=0.0),
            numerics,
            checkpointing=False,
        )
        for depth in (1, 2, 3)
    )
    assert two - one == pytest.approx(three - two)
    assert two - one < 0.5 * one


def test_activation_checkpointing_keeps_less(model, numerics):
    kept = [memory_plan.kept_mb_per_image(model, numerics, checkpointing) for checkpointing in (False, True)]
    assert kept[1] < 0.8 * kept[0]


def test_a_higher_cap_lets_more_images_in_up_to_the_whole_batch(model, numerics):
    needed = held_mb(model, numerics)
    image = memory_plan.WORKING_SHARE * memory_plan.kept_mb_per_image(model, numerics, checkpointing=False)
    sizes = [
        memory_plan.micro_batch_size(needed + more * image, 12, model, numerics, checkpointing=False)
        for more in (1, 3, 5, 11, 100)
    ]
    assert sizes == [2, 4, 6, 12, 12]


def test_a_batch_is_cut_into_equal_parts(model, numerics):
    cap = held_mb(model, numerics)
    image = memory_plan.WORKING_SHARE * memory_plan.kept_mb_per_image(model, numerics, checkpointing=False)
    assert memory_plan.micro_batch_size(cap + 99 * image, 128, model, numerics, checkpointing=False) == 64


def test_counting_leaves_model_and_random_state_alone(model, numerics):
    model.eval()
    before = torch.get_rng_state()
    memory_plan.kept_mb_per_image(model, numerics, checkpointing=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
