import dataclasses

import numpy as np
import pytest
import torch

from pipeline.data.batch import Batch
from pipeline.training import step_memory
from pipeline.training.memory_forecast import Line
from sequencer_models import catalog, kernels
from sequencer_models.activation_checkpointing import Blocks, checkpoint_activations
from sequencer_models.kernels import Kernels

SMALL = {"dims": (16, 32), "depths": (2, 2), "grid": 8, "drop_path": 0.1, "dropout": 0.1}
VANILLA = {"hidden": 16, "layers": 2, "dropout": 0.2}
EVERY_OPTION = {
    **SMALL, "stem": "deep", "stem_width": 6, "whitened": True, "mixing": "columns", "pooling": "attention",
    "recurrent_init": "orthogonal", "forget_bias": 1.0,
}  # fmt: skip


def model_of(name: str):
    if name == "small, every option":
        return catalog.build("small", 3, **EVERY_OPTION)
    return catalog.build(name, 3, **(SMALL if name == "small" else VANILLA))


@pytest.fixture
def numerics(bench):
    return bench.numerics


def linear():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 50))


def test_a_step_holds_what_can_be_counted_by_hand(numerics):
    found = step_memory.measure(linear(), numerics)
    images = 100
    pixels, gradient, logits = 4 * 3072 * images, 4 * 3072 * 50, 4 * 50 * images
    assert pixels + gradient + logits < found.training_mb(images) * 1e6 < pixels + gradient + 5 * logits
    assert found.validation_mb(images) * 1e6 == pytest.approx(pixels + logits)


def test_a_weight_that_is_not_trained_takes_no_gradient(numerics):
    model = linear()
    trained = step_memory.measure(model, numerics).training_mb(100)
    model[1].weight.requires_grad_(False)
    fixed = step_memory.measure(model, numerics).training_mb(100)
    assert trained - fixed > 0.9 * 4 * 3072 * 50 / 1e6, "its gradient was most of the highest moment"


def peak_mb(model, numerics, images, step) -> float:
    """Measured with so many images."""
    return max(step_memory._live_bytes(model, numerics, images, step)) / 1e6


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", ["eager", "native"])
@pytest.mark.parametrize("name", ["small", "vanilla", "small, every option"])
def test_the_lines_hold_for_numbers_of_images_that_were_not_measured(
    request, numerics, name, kernel, precision, checkpointing
):
    if kernel == "native":
        request.getfixturevalue("native_kernel")
        kernels.select(Kernels(lstm="native"))
    model, numerics = model_of(name), dataclasses.replace(numerics, precision=precision)
    checkpoint_activations(model, checkpointing)
    found = step_memory.measure(model, numerics)
    for images in (16, 23):
        measured = peak_mb(model, numerics, images, step_memory._train)
        assert found.training_mb(images) == pytest.approx(measured, rel=0.01)
        measured = peak_mb(model, numerics, images, step_memory._validate)
        assert found.validation_mb(images) == pytest.approx(measured, rel=0.01)


def test_in_fp32_the_lines_are_right_to_the_byte(numerics):
    model = model_of("small")
    found = step_memory.measure(model, numerics)
    assert found.training_mb(16) == pytest.approx(peak_mb(model, numerics, 16, step_memory._train), abs=1e-9)


def test_the_measured_steps_are_those_of_the_training(bench, tmp_path):
    """Against the loop's own step, which differs in nothing that holds memory but the optimiser."""
    bench = dataclasses.replace(bench, name="small", architecture=SMALL, images=16).with_config(batch_size=16)
    bench = bench.with_numerics(micro_batch_size=16)
    with bench.training(tmp_path / "training") as training:
        found = step_memory.measure(training.model, bench.numerics)
        batch = next(iter(training.batches.epoch(0)))
        peaks = []
        backward = torch.autograd.backward

        def stop_after(*given, **words):
            backward(*given, **words)
            peaks.append(max(live.bytes_after) / 1e6)

        live = step_memory._LiveTensors(training.model)
        with pytest.MonkeyPatch.context() as patch, live:
            patch.setattr(torch.autograd, "backward", stop_after)
            training.step(Batch(batch.images.clone(), batch.labels.clone()))
    assert found.training_mb(16) == pytest.approx(peaks[0], rel=0.01)


@pytest.mark.parametrize("name", ["small", "vanilla"])
def test_activation_checkpointing_and_bf16_and_the_native_kernel_hold_less(numerics, name, native_kernel):
    def training_mb(*, checkpointing=False, precision="fp32"):
        model = model_of(name)
        checkpoint_activations(model, checkpointing)
        return step_memory.measure(model, dataclasses.replace(numerics, precision=precision)).training_mb(64)

    eager = training_mb()
    if name == "small":
        assert training_mb(checkpointing=True) < 0.9 * eager
    kernels.select(Kernels(lstm="native"))
    native = training_mb()
    assert native < eager
    assert training_mb(precision="bf16") < native


@pytest.mark.parametrize("mode", [True, False])
def test_measuring_leaves_everything_as_it_was(numerics, mode):
    model = model_of("small").train(mode)
    checkpoint_activations(model, True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    torch.set_num_threads(2)  # set back by a fixture
    step_memory.measure(model, numerics)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == 2
    assert all(module.training == mode for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(module.checkpoint_activations for module in model.modules() if isinstance(module, Blocks))


def test_a_step_that_fails_leaves_everything_as_it_was_too(numerics, monkeypatch):
    model = linear().eval()
    torch.set_num_threads(2)

    train = step_memory._train

    def fail(*given):
        train(*given)
        torch.rand(1)
        raise MemoryError

    random = torch.get_rng_state()
    monkeypatch.setattr(step_memory, "_train", fail)
    with pytest.raises(MemoryError):
        step_memory.measure(model, numerics)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == 2
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_kept_lines_are_the_highest_for_every_number_of_images():
    draws = np.random.default_rng(0)
    for _ in range(20):
        fixed, slopes = draws.integers(0, 10_000_000, 30), draws.integers(0, 100_000, 30)
        at = [(fixed + images * slopes).tolist() for images in (step_memory.FEW, step_memory.MORE)]
        kept = step_memory._highest(*at)
        for images in (*range(1, 400), 5000):
            highest = max(fixed + images * slopes) / 1e6
            assert max(line.at(images) for line in kept) == pytest.approx(highest)
        assert len(kept) <= 30


def test_a_line_that_is_the_highest_for_a_few_numbers_only_is_kept():
    few, more = (
        [fixed + images * slope for fixed, slope in ((10**6, 0), (5 * 10**5, 7500), (0, 14000))] for images in (4, 8)
    )
    kept = step_memory._highest(few, more)
    assert [line.mb_per_image for line in kept] == [0.0, 0.0075, 0.014]


def test_where_two_steps_made_other_operations_their_peaks_are_compared():
    assert step_memory._highest([4_000_000, 1], [1, 8_000_000, 2]) == (Line(0.0, 1.0),)
