"""Checkpoints that survive anything: written beside, synced, renamed, and checked by hash when read.

    step-00000140.safetensors   weights, optimiser state, moving average, random states
    step-00000140.json          hash of the former, position, sums of the running epoch, journal offset, numerics
    best.safetensors, best.json the weights with the best validation accuracy so far

The JSON is written last: a checkpoint without one does not exist. The two newest are kept, so that a damaged one
costs the work since the one before it.
"""

import json
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.training.moving_average import MovingAverage
from pipeline.workspace.durable_files import replacing, write_json, writing
from pipeline.workspace.fingerprints import file_sha256

FORMAT = 1
KEPT = 2


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
    numerics: Mapping[str, Any]
    journal_offset: int


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None) -> dict[str, Tensor]:
    """Copies of every tensor that a training needs to go on, by name."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.weights.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        tensors["random.mps"] = torch.mps.get_rng_state()
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def restore(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
) -> None:
    """Put a snapshot back into freshly built objects."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    model.load_state_dict(parts["model"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in parts.get("optimizer", {}).items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    if average is not None:
        average.load(parts["average"])
    torch.set_rng_state(parts["random"]["cpu"])
    if "cuda" in parts["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(parts["random"]["cuda"])
    if "mps" in parts["random"] and torch.backends.mps.is_available():
        torch.mps.set_rng_state(parts["random"]["mps"])


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


class CheckpointWriter:
    """Writes snapshots in a thread, so that the loop waits for a copy in memory and not for the disk.

    `before` runs ahead of each write (the journal's sync), `durable` after it with the journal offset that is now
    covered. An error of a write reaches the next `submit` or `close`. `kept` checkpoints stay on disk. `keeps_best`:
    whether it is to be given the best weights.
    """

    def __init__(
        self,
        folder: Path,
        before: Callable[[], None],
        durable: Callable[[int], None],
        durable_offset: int = 0,
        *,
        kept: int = KEPT,
        keeps_best: bool = True,
    ) -> None:
        self.keeps_best = keeps_best
        self._kept = kept
        self._folder = folder
        self._before = before
        self._durable = durable
        self._jobs: queue.Queue[tuple[dict[str, Tensor], dict[str, Tensor] | None, dict[str, Any]] | None]
        self._jobs = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self.durable_offset = durable_offset
        """How much of the journal the newest checkpoint on disk covers."""
        self._thread = threading.Thread(target=self._work, name="checkpoint-writer", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return self._jobs.unfinished_tasks > 0

    def submit(
        self,
        tensors: dict[str, Tensor],
        progress: Progress,
        numerics: Mapping[str, Any],
        journal_offset: int,
        best: dict[str, Tensor] | None = None,
    ) -> None:
        """Hand over a snapshot; waits only while an earlier one is still being written."""
        self._raise()
        described = {
            "format": FORMAT,
            "progress": asdict(progress),
            "numerics": dict(numerics),
            "journal_offset": journal_offset,
        }
        self._jobs.put((tensors, best, described))

    def wait(self) -> None:
        """Wait until what was handed over is on disk."""
        self._jobs.join()
        self._raise()

    def close(self) -> None:
        """Wait until everything is on disk, and end."""
        self._jobs.put(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if job is None:
                    return
                if self._error is None:
                    self._write(*job)
            except BaseException as error:  # handed to the loop, which is the one that can stop the training
                self._error = error
            finally:
                self._jobs.task_done()

    def _write(self, tensors: dict[str, Tensor], best: dict[str, Tensor] | None, described: dict[str, Any]) -> None:
        progress = described["progress"]
        if best is not None:
            digest = save_weights(self._folder / "best.safetensors", best)
            summary = {"epoch": progress["best_epoch"], "validation_accuracy": progress["best_accuracy"]}
            write_json(self._folder / "best.json", summary | {"sha256": digest})
        path = self._folder / f"step-{progress['step']:08d}.safetensors"
        digest = save_weights(path, tensors)
        self._before()
        write_json(path.with_suffix(".json"), described | {"sha256": digest})
        self.durable_offset = described["journal_offset"]
        for old in sorted(self._folder.glob("step-*.json"), reverse=True)[self._kept :]:
            remove(old)
        self._durable(self.durable_offset)


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
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{described}: written by another version of seqpipe (format {content['format']}, "
            f"this one reads {FORMAT}); go on with that version, or start again with --fresh"
        )
    path = described.with_suffix(".safetensors")
    if file_sha256(path) != content["sha256"]:
        raise ValueError("its hash does not match")
    known = {item.name for item in fields(Progress)}
    progress = Progress(**{key: value for key, value in content["progress"].items() if key in known})
    return Checkpoint(progress, load_file(path), content["numerics"], content["journal_offset"])
