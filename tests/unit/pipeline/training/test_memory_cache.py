import dataclasses
import json

import pytest
import torch

from pipeline.config.resolution import resolve
from pipeline.training import memory_cache, step_memory
from pipeline.training.memory_cache import IMPORTS_VARY_MB, imports_mb, memory_of
from pipeline.training.memory_forecast import Line, StepMemory
from pipeline.training.models import build_model
from pipeline.training.optimizer import Optimizer
from sequencer_models import cache_folder
from sequencer_models.activation_checkpointing import Blocks, checkpoint_activations
from sequencer_models.flops import training_flops


def config_of(model: str = "small", *settings: str):
    tiny = {
        "small": ("model.dims=[16,32]", "model.depths=[1,1]"),
        "vanilla": ("model.hidden=16", "model.layers=1"),
    }
    return resolve(model, None, [*tiny[model], *settings], {})


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(cache_folder, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch):
    """Whether blocks were computed again in each measurement; the figures say it too."""
    measured = []

    def measure(model, numerics):
        checkpoints = any(isinstance(one, Blocks) and one.checkpoint_activations for one in model.modules())
        measured.append(checkpoints)
        return StepMemory((Line(1.0, 2.0 - checkpoints),), (Line(0.0, 0.5),))

    monkeypatch.setattr(step_memory, "measure", measure)
    return measured


@pytest.fixture
def memory(bench):
    return lambda config=None, classes=3, **changes: memory_of(
        config or config_of(), classes, dataclasses.replace(bench.numerics, **changes)
    )


def test_steps_are_measured_with_and_without_checkpointing_and_then_read(folder, measured, memory):
    first = memory()
    assert measured == [False, True]
    assert first.as_it_is.training == (Line(1.0, 2.0),)
    assert first.checkpointed.training == (Line(1.0, 1.0),)
    assert memory() == first
    assert measured == [False, True]
    assert len(list(folder.iterdir())) == 1


def test_a_model_without_blocks_has_no_checkpointed_steps(folder, measured, memory):
    first = memory(config_of("vanilla"))
    assert measured == [False]
    assert first.checkpointed is None
    assert memory(config_of("vanilla")) == first


def test_the_figures_are_those_of_the_model(folder, bench, memory):
    config = config_of()
    found = memory(config)
    model = build_model(config, 3)
    assert found.weights_mb == sum(4 * parameter.numel() for parameter in model.parameters()) / 1e6
    assert found.flops_per_image == training_flops(model, torch.zeros(1, 3, 32, 32))
    assert found.as_it_is == step_memory.measure(model, bench.numerics)
    checkpoint_activations(model, True)
    assert found.checkpointed == step_memory.measure(model, bench.numerics)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_optimiser_is_the_one_of_the_config(folder, measured, memory, name):
    config = config_of("small", f"train.optimizer={name}")
    found, optimizer = memory(config), Optimizer(build_model(config, 3), config.train)
    assert found.optimizer_copies * found.weights_mb == pytest.approx(optimizer.state_bytes / 1e6)
    assert (found.optimizer_copies == 2) == (name == "adamw")
    assert found.optimizer_scratch_mb == optimizer.scratch_bytes / 1e6
    assert found.optimizer_flops == optimizer.flops


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '"text"', '{"weights_mb": 1.0, "as_it_is": null}', "null"])
def test_a_damaged_file_is_measured_again_and_replaced(folder, measured, memory, content):
    first = memory()
    (path,) = folder.iterdir()
    path.write_text(content)
    assert memory() == first
    assert len(measured) == 4
    assert json.loads(path.read_bytes()) == json.loads(json.dumps(dataclasses.asdict(first)))


def test_without_a_folder_that_can_be_written_each_call_measures(folder, measured, memory):
    folder.write_text("a file in its place")
    assert memory() == memory()
    assert len(measured) == 4
    assert folder.read_text() == "a file in its place"


def test_a_file_that_cannot_be_read_is_measured_again(folder, measured, memory):
    memory()
    (path,) = folder.iterdir()
    path.unlink()
    path.mkdir()
    memory()
    assert len(measured) == 4


@pytest.mark.parametrize(
    "words",
    [
        {"classes": 4},
        {"config": config_of("small", "model.depths=[2,1]")},
        {"config": config_of("small", "model.drop_path=0.1")},
        {"config": config_of("small", "train.optimizer=adamw")},
        {"precision": "bf16"},
        {"lstm_precision": "bf16"},
        {"kernel": "native 0123"},
        {"linear": "convolution"},
        {"torch": "1.0"},
    ],
)
def test_what_changes_the_figures_is_measured_anew(folder, measured, memory, words):
    memory()
    memory(**words)
    assert len(measured) == 4


@pytest.mark.parametrize(
    "words",
    [
        {"config": config_of("small", "train.batch_size=64", "train.learning_rate=0.1")},
        {"threads": 2},
        {"cpu": "another"},
        {"micro_batch_size": 1, "activation_checkpointing": True, "halvings": 1},
    ],
)
def test_what_does_not_change_them_is_not(folder, measured, memory, words):
    memory()
    memory(**words)
    assert len(measured) == 2


def test_other_code_of_the_models_is_measured_anew(folder, measured, memory, monkeypatch):
    memory()
    monkeypatch.setattr(memory_cache, "file_sha256", lambda path: f"another {path.name}")
    memory()
    assert len(measured) == 4


def test_imports_are_the_same_figure_for_all_until_they_are_others(folder):
    assert imports_mb(160.0) == 160.0
    assert imports_mb(163.5) == 160.0
    assert imports_mb(160.0 - IMPORTS_VARY_MB + 0.1) == 160.0
    assert imports_mb(160.0 + IMPORTS_VARY_MB) == 160.0 + IMPORTS_VARY_MB
    assert imports_mb(170.0) == 160.0 + IMPORTS_VARY_MB
    (folder / "imports.json").write_text("{")
    assert imports_mb(120.0) == 120.0
    assert imports_mb(121.0) == 120.0
