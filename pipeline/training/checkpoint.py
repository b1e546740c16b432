"""Checkpoints that survive anything: written beside, synced, renamed, and checked by hash when read.

    step-00000140.safetensors   weights, optimiser state, moving average, random states
    step-00000140.json          hash of the former, position, sums of the running epoch, journal offset, numerics
    best.safetensors, best.json the weights with the best validation accuracy so far

The JSON is written last: a checkpoint without one does not exist. The two newest are kept, so that a damaged one
costs the work since the one before it.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.training.moving_average import MovingAverage
from pipeline.training.optimizer import Optimizer
from pipeline.workspace.durable_files import replacing, writing
from pipeline.workspace.fingerprints import file_sha256

FORMAT = 2
READABLE = (1, FORMAT)
"""In the first, the optimiser's state goes by the numbers of the weights."""


@dataclass
class Progress:
    """Where a training stands; everything that is not a tensor."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the running epoch
    step: int = 0  # finished optimiser steps
    loss_sum: float = 0.0  # over the images of the running epoch
    correct: int = 0
    seen: int = 0
    epoch_s: float = 0.0  # in the steps of the running epoch, the making of batches included
    steps_s: float = 0.0  # in the steps of the finished epochs
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = 0.0
    trained_s: float = 0.0
    peak_memory_mb: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)  # figures of the finished epochs


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read back whole."""

    progress: Progress
    tensors: Mapping[str, Tensor]
    journal_offset: int


def snapshot(
    model: nn.Module,
    optimizer: Optimizer,
    average: MovingAverage | None,
    into: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Copies of every tensor that a training needs to go on, by name; in the memory of an earlier one, `into`."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.state().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.weights.items()}
    tensors |= {f"random.{device}": state for device, state in random_states().items()}
    return {name: _copy(value.detach(), (into or {}).get(name)) for name, value in tensors.items()}


def _copy(value: Tensor, into: Tensor | None) -> Tensor:
    if into is None or into.shape != value.shape or into.dtype != value.dtype:
        return value.to("cpu", copy=True).contiguous()
    return into.copy_(value)


def restore(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: Optimizer,
    average: MovingAverage | None,
) -> None:
    """Put a snapshot back into freshly built objects."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    model.load_state_dict(parts["model"])
    optimizer.load_state(parts.get("optimizer", {}))
    if average is not None:
        average.load(parts["average"])
    set_random_states(parts["random"])


def random_states() -> dict[str, Tensor]:
    """The states of torch's generators, which dropout and drop path draw from, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Put them back, as far as this machine has the devices."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


def latest(folder: Path, on_damage: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None if there never was one.

    Raises:
        CheckpointError: there are checkpoints, and none can be used.
    """
    candidates = sorted(folder.glob("step-*.json"), reverse=True)
    damaged: list[Path] = []
    for described in candidates:
        try:
            checkpoint = _read(described)
            for other in damaged:  # or it would count as one of those that are kept
                remove(other)
            return checkpoint
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            on_damage(f"{described.stem}: damaged checkpoint ({error}); trying the one before it")
            damaged.append(described)
    if candidates:
        raise CheckpointError(
            f"{folder}: none of the {len(candidates)} checkpoints can be read; --fresh trains from the start"
        )
    return None


def best_epoch(folder: Path) -> int:
    """The epoch that the best weights on disk are of; 0 if there are none."""
    try:
        epoch: int = json.loads((folder / "best.json").read_bytes())["epoch"]
        return epoch
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the weights cannot be read ({error}); --fresh trains again") from None


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> str:
    """Write a safetensors file durably; returns its SHA-256."""
    with writing(path), replacing(path) as beside:
        _save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, beside)
        return file_sha256(beside)


def remove(described: Path) -> None:
    """Remove one checkpoint, its JSON first, so that no half of it is taken for a whole one."""
    described.unlink(missing_ok=True)
    described.with_suffix(".safetensors").unlink(missing_ok=True)


def _save_file(weights: dict[str, Tensor], path: Path) -> None:
    path.touch()
    mode = path.stat().st_mode  # by the umask; safetensors puts a private file in its place
    try:
        save_file(weights, path)
        path.chmod(mode)
    except SafetensorError as error:  # the operating system's error is only in its text
        number = re.search(r"(?:os error|code:) (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _read(described: Path) -> Checkpoint:
    content = json.loads(described.read_bytes())
    if content["format"] not in READABLE:
        raise CheckpointError(
            f"{described}: written by another version of seqpipe (format {content['format']}, "
            f"this one reads up to {FORMAT}); go on with that version, or start again with --fresh"
        )
    path = described.with_suffix(".safetensors")
    if file_sha256(path) != content["sha256"]:
        raise ValueError("its hash does not match")
    known = {item.name for item in fields(Progress)}
    progress = Progress(**{key: value for key, value in content["progress"].items() if key in known})
    return Checkpoint(progress, load_file(path), content["journal_offset"])
