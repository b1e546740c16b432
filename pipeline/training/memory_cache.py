"""The memory of a training's steps and of its imports: measured once per machine, then read from the cache folder."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.config.schema import RunConfig
from pipeline.errors import WorkspaceError
from pipeline.training import step_memory
from pipeline.training.memory_forecast import StepMemory, TrainingMemory, what_counts
from pipeline.training.models import build_model
from pipeline.training.numerics import Numerics
from pipeline.training.optimizer import Optimizer
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.fingerprints import canonical_json, file_sha256
from sequencer_models import cache_folder
from sequencer_models.activation_checkpointing import blocks_of, checkpoint_activations
from sequencer_models.flops import training_flops

IMPORTS_VARY_MB = 16.0
"""By less than this do processes differ that have imported the same."""


def imports_mb(measured_mb: float) -> float:
    """What a process holds that has imported what a training needs, the same figure in a search and in its trials.

    A megabyte more in a trial than in the forecast may mean that nothing fits: one image at once, four times slower.
    """
    path = cache_folder.cache_folder() / "imports.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known_mb = float(json.loads(path.read_bytes())["mb"])
        if abs(known_mb - measured_mb) < IMPORTS_VARY_MB:
            return known_mb
    _keep(path, {"mb": measured_mb})
    return measured_mb


def memory_of(config: RunConfig, classes: int, numerics: Numerics) -> TrainingMemory:
    """What the steps of a training hold: from the cache folder, or measured, which takes about a second."""
    path = cache_folder.cache_folder() / f"memory-{_key(config, classes, numerics)}.json"
    try:
        return TrainingMemory.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        found = _measure(config, classes, numerics)
        _keep(path, asdict(found))
        return found


def _keep(path: Path, content: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError, WorkspaceError):  # without a cache the next command measures again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)


def _measure(config: RunConfig, classes: int, numerics: Numerics) -> TrainingMemory:
    numerics.apply()
    model = build_model(config, classes).to(numerics.device)
    steps: list[StepMemory | None] = [None, None]
    for checkpointing in (False, True) if blocks_of(model) else (False,):
        checkpoint_activations(model, checkpointing)
        steps[checkpointing] = step_memory.measure(model, numerics)
    as_it_is, checkpointed = steps
    assert as_it_is is not None
    weights_bytes = sum(each.nbytes for each in model.parameters())
    optimizer = Optimizer(model, config.train, numerics.precision)
    return TrainingMemory(
        weights_mb=weights_bytes / 1e6,
        as_it_is=as_it_is,
        checkpointed=checkpointed,
        flops_per_image=training_flops(model, torch.zeros(1, 3, 32, 32, device=numerics.device)),
        optimizer_copies=optimizer.state_bytes / weights_bytes,
        optimizer_scratch_mb=optimizer.scratch_bytes / 1e6,
        optimizer_flops=optimizer.flops,
    )


def _key(config: RunConfig, classes: int, numerics: Numerics) -> str:
    computed = (numerics.device, numerics.precision, numerics.lstm_precision, numerics.kernel, numerics.linear)
    models = Path(cache_folder.__file__).parent
    measuring = [Path(__file__).with_name(f"{name}.py") for name in ("step_memory", "optimizer", "muon")]
    code = [file_sha256(path) for path in (*sorted(models.glob("*.py")), *measuring)]
    identity = [what_counts(config), classes, computed, numerics.torch, code]
    return hashlib.sha256(canonical_json(identity)).hexdigest()[:16]
