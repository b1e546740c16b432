import dataclasses
import itertools
import math

import pytest

from pipeline.config.resolution import resolve
from pipeline.training import memory_forecast
from pipeline.training.memory_forecast import (
    LIBRARIES_MB,
    Fit,
    Line,
    StepMemory,
    TrainingMemory,
    equal_parts,
    validation_batch,
    what_counts,
)

pytestmark = pytest.mark.usefixtures("round_memory_figures")

PLAIN = StepMemory((Line(1.0, 10.0),), (Line(2.0, 1.0),))
CHECKPOINTED = StepMemory((Line(1.0, 4.0),), (Line(2.0, 1.0),))
MEMORY = TrainingMemory(5.0, PLAIN, CHECKPOINTED, 1e9)
WITHOUT_BLOCKS = dataclasses.replace(MEMORY, checkpointed=None)
BATCH = 12


def peak(images: int, checkpointing: bool = False, **words) -> float:
    given = {"averages": False, "base_mb": 300.0} | words
    return MEMORY.peak_mb(images, BATCH, checkpointing=checkpointing, **given)


def fit(cap_mb: float, memory: TrainingMemory = MEMORY, **words) -> Fit:
    given = {"checkpointing": False, "averages": False, "base_mb": 300.0} | words
    return memory.fit(cap_mb, BATCH, **given)


def test_a_peak_is_the_sum_of_all_that_a_training_holds():
    weights_twice_with_adam = 2 * 3 * 5.0
    assert peak(BATCH) == 300 + LIBRARIES_MB + weights_twice_with_adam + 121
    assert peak(BATCH, averages=True) - peak(BATCH) == 2 * 5.0
    assert peak(BATCH, base_mb=0.0) == peak(BATCH) - 300
    assert peak(6) == 300 + LIBRARIES_MB + weights_twice_with_adam + 61 + 5, "gradients of the parts before"
    assert peak(6, checkpointing=True) == peak(6) - 6 * 6


def test_what_libraries_need_grows_with_the_step_and_the_weights(monkeypatch):
    plain = peak(BATCH)
    monkeypatch.setattr(memory_forecast, "STEP_SHARE", 1.5)
    assert peak(BATCH) == plain + 0.5 * 121
    monkeypatch.setattr(memory_forecast, "WORKING_COPIES", 2.0)
    assert peak(BATCH) == plain + 0.5 * 121 + 2 * 5


def test_an_optimiser_counts_by_what_it_keeps_a_checkpoints_copy_of_it_and_what_its_step_holds():
    muon = dataclasses.replace(MEMORY, optimizer_copies=1.2)
    found = muon.peak_mb(BATCH, BATCH, checkpointing=False, averages=True, base_mb=300.0)
    assert found == pytest.approx(peak(BATCH, averages=True) - 2 * 0.8 * 5.0)
    at_one_image = dataclasses.replace(MEMORY, optimizer_scratch_mb=20.0)
    found = at_one_image.peak_mb(1, 1, checkpointing=False, averages=False, base_mb=0.0)
    assert found == LIBRARIES_MB + 30 + 5 + 20, "the gradients, and what is made of them"
    assert at_one_image.peak_mb(BATCH, BATCH, checkpointing=False, averages=False, base_mb=300.0) == peak(BATCH)


def test_where_validation_holds_more_than_a_step_it_is_the_peak():
    memory = dataclasses.replace(MEMORY, as_it_is=StepMemory((Line(0, 1.0),), (Line(0, 3.0),)))
    found = memory.peak_mb(6, BATCH, checkpointing=False, averages=False, base_mb=0.0)
    assert found == LIBRARIES_MB + 30 + 3 * validation_batch(6)


def test_a_step_is_as_large_as_its_highest_line():
    step = StepMemory((Line(100.0, 0.0), Line(0.0, 10.0)), (Line(7.0, 0.0), Line(0.0, 1.0)))
    assert [step.training_mb(images) for images in (1, 10, 11)] == [100, 100, 110]
    assert [step.validation_mb(images) for images in (7, 8)] == [7, 8]


def test_the_least_change_that_fits_is_chosen():
    order = [(size, checkpoints) for checkpoints in (False, True) for size in (12, 6, 4, 3, 2, 1)]
    needs = [(peak(*choice), choice) for choice in order]
    for cap_mb in range(math.floor(peak(1, True)), math.ceil(peak(12)) + 2):
        expected = next((choice for needed, choice in needs if needed <= cap_mb), (1, True))
        found = fit(cap_mb)
        assert (found.micro_batch_size, found.checkpointing) == expected
        assert found.peak_mb == peak(*expected)


def test_a_cap_is_met_exactly_and_where_nothing_fits_it_is_the_least():
    assert fit(peak(12)).micro_batch_size == 12
    assert fit(peak(12) - 0.001).micro_batch_size == 6
    assert fit(0.0) == Fit(1, True, peak(1, True))
    assert fit(0.0, WITHOUT_BLOCKS) == Fit(1, False, peak(1))


def test_checkpointing_that_is_asked_for_is_never_left_out():
    assert fit(math.inf, checkpointing=True) == Fit(12, True, peak(12, True))


def test_images_that_are_asked_for_are_kept_and_nothing_else_is_changed():
    assert fit(0.0, images=4) == Fit(4, False, peak(4))
    assert fit(math.inf, images=100).micro_batch_size == BATCH
    assert fit(0.0, images=4, checkpointing=True) == Fit(4, True, peak(4, True))


@pytest.mark.parametrize("batch_size", [1, 2, 7, 12, 128])
def test_parts_are_as_equal_as_possible(batch_size):
    sizes = equal_parts(batch_size)
    assert sizes[0] == batch_size
    assert sizes[-1] == 1
    assert all(larger > smaller for larger, smaller in itertools.pairwise(sizes))
    for size in sizes:
        parts = math.ceil(batch_size / size)
        assert size == math.ceil(batch_size / parts), "no fewer at once would make as few parts"
    assert equal_parts(128)[:4] == [128, 64, 43, 32]


def test_the_fit_in_words():
    assert Fit(32, False, 0.0).in_words() == "32 images at once"
    assert Fit(1, False, 0.0).in_words() == "1 image at once"
    assert Fit(8, True, 0.0).in_words() == "8 images at once and activation checkpointing"


@pytest.mark.parametrize(
    ("settings", "fit", "words"),
    [
        ([], Fit(128, False, 0), ""),
        ([], Fit(64, False, 0), "64 images at once"),
        ([], Fit(128, True, 0), "128 images at once and activation checkpointing"),
        (["compute.recompute=true"], Fit(128, True, 0), ""),
        (["compute.micro_batch_size=32"], Fit(32, False, 0), ""),
        (["compute.micro_batch_size=32"], Fit(16, False, 0), "16 images at once"),
        (["compute.micro_batch_size=1000"], Fit(128, False, 0), ""),
    ],
)
def test_only_a_change_of_what_the_config_asks_for_is_one(settings, fit, words):
    config = resolve("small", None, ["train.batch_size=128", *settings], {})
    assert fit.change_in_words(config) == words


@pytest.mark.parametrize(
    "memory",
    [
        MEMORY,
        WITHOUT_BLOCKS,
        dataclasses.replace(MEMORY, optimizer_copies=1.5, optimizer_scratch_mb=7.0, optimizer_flops=3e9),
    ],
)
def test_figures_come_back_from_json(memory):
    assert TrainingMemory.from_json(dataclasses.asdict(memory)) == memory


@pytest.mark.parametrize(
    "content", [{}, {"weights_mb": 1.0}, dataclasses.asdict(MEMORY) | {"as_it_is": None}, [], ""]
)
def test_other_json_is_refused(content):
    with pytest.raises((TypeError, KeyError)):
        TrainingMemory.from_json(content)


def test_rates_of_a_model_count_only_as_zero_or_not():
    def of(*settings: str):
        return what_counts(resolve("small", None, list(settings), {}))

    assert of("model.drop_path=0.1") == of("model.drop_path=0.2")
    assert of("model.drop_path=0.1") != of("model.drop_path=0")
    assert of("model.dims=[32,64]") != of("model.dims=[64,64]")
    assert of("train.learning_rate=0.1") == of("train.learning_rate=0.2")
    assert of("train.optimizer=adamw") != of()
