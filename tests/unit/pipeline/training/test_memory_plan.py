"""How a training is fitted into its memory, with made-up figures: 10 MB an image, 4 with activation checkpointing."""

import dataclasses
import sys

import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import MemoryCapError
from pipeline.training import memory_plan
from pipeline.training.memory_forecast import LIBRARIES_MB, MLFLOW_MB, Line, StepMemory, TrainingMemory
from pipeline.training.memory_limit import Limit
from pipeline.training.numerics import Numerics

pytestmark = pytest.mark.usefixtures("round_memory_figures")

NUMERICS = Numerics("cpu", "fp32", 1, "eager", "matmul", 128, "2.13", "Some CPU")
HELD_MB = 100.0
STATES_MB = 2 * 3 * 5.0
"""Weights of 5 MB and Adam's two averages, and a checkpoint's copy of them."""
BASE_MB = HELD_MB + LIBRARIES_MB + STATES_MB


def step(mb_per_image: float) -> StepMemory:
    return StepMemory((Line(0.0, mb_per_image),), (Line(0.0, 0.1),))


@pytest.fixture(autouse=True)
def _made_up(monkeypatch):
    memory = TrainingMemory(5.0, step(10.0), step(4.0), 1e9)
    monkeypatch.setattr(memory_plan, "memory_of", lambda config, classes, numerics: memory)
    monkeypatch.setattr(memory_plan, "tree_memory_mb", lambda pid: HELD_MB)
    monkeypatch.setattr(memory_plan, "imports_mb", lambda measured: measured)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)


def config_with(*settings: str):
    return resolve("small", None, ["train.batch_size=128", "train.ema_decay=null", *settings], {})


def chosen(numerics: Numerics) -> tuple[int, bool | None]:
    return numerics.micro_batch_size, numerics.activation_checkpointing


@pytest.fixture
def fit(recorder):
    def fit(mb: float, kind: str = "trial", *settings: str) -> tuple[int, bool | None]:
        return chosen(memory_plan.fitted(Limit(mb, kind), config_with(*settings), 10, NUMERICS, recorder))

    return fit


def test_what_fits_is_not_changed_and_nothing_is_said(fit, recorder):
    assert fit(BASE_MB + 1280) == (128, False)
    assert not recorder.notes
    assert not recorder.warnings


@pytest.mark.parametrize(
    ("kind", "beside_mb", "whose"),
    [
        ("trial", 0.0, ""),
        ("cap", MLFLOW_MB, " (--max-memory-mb)"),
        ("container", MLFLOW_MB, " (the container's limit)"),
        ("free", MLFLOW_MB, " that are free now"),
    ],
)
def test_fewer_images_at_once_are_noted_with_the_limit(fit, recorder, kind, beside_mb, whose):
    mb = BASE_MB + beside_mb + 5 + 640  # the 5 for gradients that are there before a part
    assert fit(mb, kind) == (64, False)
    assert recorder.notes == [f"64 images at once, to stay within {mb:.0f} MB{whose}"]
    assert fit(mb - 1, kind) == (43, False)


def test_a_trial_counts_the_imports_that_the_search_has_counted(fit, monkeypatch):
    monkeypatch.setattr(memory_plan, "imports_mb", lambda measured: measured - 3)
    assert fit(BASE_MB - 3 + 1280) == (128, False)
    assert fit(BASE_MB - 3 + 1280 + MLFLOW_MB, "cap") == (64, False), "a command counts what it holds"


def test_mlflow_that_is_loaded_is_already_in_what_is_held(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", object())
    assert fit(BASE_MB + 1280, "free") == (128, False)


def test_checkpointing_comes_after_the_last_image_and_is_noted(fit, recorder):
    assert fit(BASE_MB + 5 + 10) == (1, False)
    assert fit(BASE_MB + 5 + 9) == (2, True)
    assert recorder.notes[-1].startswith("2 images at once and activation checkpointing, to stay within ")


def test_checkpointing_that_the_config_asks_for_stays_and_is_no_change(fit, recorder):
    assert fit(BASE_MB + 4 * 128, "trial", "compute.recompute=true") == (128, True)
    assert not recorder.notes


def test_a_micro_batch_of_the_config_is_kept_whatever_the_limit(fit, recorder):
    for kind in ("trial", "cap", "container", "free"):
        assert fit(1, kind, "compute.micro_batch_size=128") == (128, None)
    assert not recorder.notes


def test_a_trial_for_which_there_is_too_little_takes_the_least_and_goes_on(fit, recorder):
    assert fit(1) == (1, True)
    assert not recorder.warnings


@pytest.mark.parametrize(("kind", "advice"), [("cap", "--max-memory-mb"), ("container", "the container's limit")])
def test_a_cap_that_does_not_hold_an_image_is_refused_with_the_figure(fit, kind, advice):
    needed = BASE_MB + MLFLOW_MB + 5 + 4
    with pytest.raises(MemoryCapError) as caught:
        fit(needed - 1, kind)
    assert str(caught.value) == (
        f"{needed - 1:.0f} MB are too few: this training needs {needed:.0f} MB with 1 image at once and activation "
        f"checkpointing.\nGive it as many ({advice}), or choose a smaller model."
    )
    assert fit(needed, kind) == (1, True)


def test_too_little_free_memory_is_a_warning_and_the_least_is_tried(fit, recorder):
    needed = BASE_MB + MLFLOW_MB + 5 + 4
    assert fit(needed - 1, "free") == (1, True)
    (warning,) = recorder.warnings
    assert warning == (
        f"this training needs {needed:.0f} MB even with 1 image at once and activation checkpointing, of "
        f"{needed - 1:.0f} MB that are free now: close other programs, or choose a smaller model"
    )
    assert not recorder.notes


def test_a_moving_average_counts_twice_as_the_weights_do(fit):
    needed = BASE_MB + MLFLOW_MB + 1280 + 10
    assert fit(needed, "cap", "train.ema_decay=0.9") == (128, False)
    assert fit(needed - 1, "cap", "train.ema_decay=0.9") == (64, False)


def test_the_fit_of_given_numerics_is_what_these_need():
    config = config_with()
    given = dataclasses.replace(NUMERICS, micro_batch_size=64, activation_checkpointing=True)
    found = memory_plan.fit_of(config, 10, given, mlflow=False)
    assert (found.micro_batch_size, found.checkpointing) == (64, True)
    assert found.peak_mb == pytest.approx(BASE_MB + 5 + 4 * 64)
    older = dataclasses.replace(NUMERICS, activation_checkpointing=None)
    assert memory_plan.fit_of(config, 10, older, mlflow=True).peak_mb == pytest.approx(BASE_MB + MLFLOW_MB + 1280)
    asked = config_with("compute.recompute=true")
    assert memory_plan.fit_of(asked, 10, older, mlflow=False).checkpointing
