import dataclasses
import re

import pytest
import torch

from pipeline.config.resolution import resolve
from pipeline.errors import MemoryCapError
from pipeline.progress import SilentReporter
from pipeline.training import memory_plan, numerics_file
from sequencer_models import catalog, kernels
from sequencer_models.kernels import Kernels
from tuning.machine import Machine


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
        memory_plan.micro_batch_size(1.0, 8, model, numerics, recompute=False)
    return float(str(caught.value).split("needs ")[1].split(" MB")[0])


def test_what_is_kept_is_what_autograd_saves(numerics):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 5))
    # the pixels for the linear layer's gradient, and for the loss the log-probabilities and the label
    assert memory_plan.kept_mb_per_image(model, numerics, recompute=False) * 1e6 == 4 * 3072 + 4 * 5 + 8


@pytest.mark.usefixtures("native_kernel")
def test_the_native_kernel_keeps_less_than_nn_lstm_and_bf16_less_than_fp32(model, numerics):
    eager = memory_plan.kept_mb_per_image(model, numerics, recompute=False)
    kernels.select(Kernels(lstm="native"))
    native = memory_plan.kept_mb_per_image(model, numerics, recompute=False)
    bf16 = memory_plan.kept_mb_per_image(model, dataclasses.replace(numerics, precision="bf16"), recompute=False)
    assert native < eager
    assert bf16 < 0.6 * native


def test_without_the_native_kernel_one_mixer_at_a_time_holds_all_that_nn_lstm_keeps(numerics):
    one, two, three = (
        memory_plan.kept_mb_per_image(
            catalog.build("small", 3, dims=(32,), depths=(depth,), pointwise=(), drop_path=0.0),
            numerics,
            recompute=False,
        )
        for depth in (1, 2, 3)
    )
    assert two - one == pytest.approx(three - two)
    assert two - one < 0.5 * one


def test_activation_checkpointing_keeps_less(model, numerics):
    kept = [memory_plan.kept_mb_per_image(model, numerics, recompute) for recompute in (False, True)]
    assert kept[1] < 0.8 * kept[0]


def test_a_higher_cap_lets_more_images_in_up_to_the_whole_batch(model, numerics):
    needed = held_mb(model, numerics)
    image = memory_plan.WORKING_SHARE * memory_plan.kept_mb_per_image(model, numerics, recompute=False)
    sizes = [
        memory_plan.micro_batch_size(needed + more * image, 12, model, numerics, recompute=False)
        for more in (1, 3, 5, 11, 100)
    ]
    assert sizes == [2, 4, 6, 12, 12]


def test_a_batch_is_cut_into_equal_parts(model, numerics):
    cap = held_mb(model, numerics)
    image = memory_plan.WORKING_SHARE * memory_plan.kept_mb_per_image(model, numerics, recompute=False)
    assert memory_plan.micro_batch_size(cap + 99 * image, 128, model, numerics, recompute=False) == 64


def test_counting_leaves_model_and_random_state_alone(model, numerics):
    model.eval()
    before = torch.get_rng_state()
    memory_plan.kept_mb_per_image(model, numerics, recompute=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def container_of(mb: float):
    return lambda: Machine(int(mb * 1e6), int((mb - 100) * 1e6), 1.0, memory_limit_bytes=int(mb * 1e6))


def test_a_containers_limit_sets_the_images_at_once_as_a_cap_does(tmp_path, numerics, monkeypatch):
    monkeypatch.setattr(numerics_file, "tree_memory_mb", lambda pid: 100.0)
    config = resolve("small", None, ["compute.kernel=eager", "compute.precision=fp32"], {})
    found = {}
    for mb in (500, 1000, 100_000):
        monkeypatch.setattr(numerics_file.machine, "this_machine", container_of(mb))
        (tmp_path / str(mb)).mkdir()
        try:
            found[mb] = numerics_file.numerics_of(config, 4, tmp_path / str(mb), SilentReporter()).micro_batch_size
        except MemoryCapError as error:
            found[mb] = str(error)
    assert re.match(r"500 MB are too few.*\nGive it as many \(the container's limit\)", found[500])
    assert 1 <= found[1000] < config.train.batch_size == found[100_000]


def test_where_no_container_limits_it_the_whole_batch_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(numerics_file.machine, "this_machine", lambda: Machine(10**9, 10**6, 1.0))
    config = resolve("small", None, ["compute.kernel=eager", "compute.precision=fp32"], {})
    found = numerics_file.numerics_of(config, 4, tmp_path, SilentReporter())
    assert found.micro_batch_size == config.train.batch_size
