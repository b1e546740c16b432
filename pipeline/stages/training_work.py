"""The work of a training in its folder: from whatever the folder holds to the final weights.

The same here and on another laptop: what the folder holds on the way is what a resume anywhere needs.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.progress import Reporter
from pipeline.provenance import git_commit
from pipeline.stages import run_page
from pipeline.stop import StopToken
from pipeline.workspace.durable_files import write_json

if TYPE_CHECKING:
    from pipeline.training.checkpoint_writer import CheckpointWriter
    from pipeline.training.open_training import OpenTraining


@dataclass(frozen=True)
class Figures:
    """What a training has come to."""

    parameters: int
    epochs: int
    best_epoch: int
    validation_accuracy: float
    validation_loss: float
    trained_s: float
    images_per_s: float
    peak_memory_mb: float
    numerics: Mapping[str, Any]
    pflop: float
    """The arithmetic of all epochs, in 10^15 floating point operations."""


@dataclass(frozen=True)
class Surroundings:
    """What a training has around it: whom it tells, what may stop it, where it runs."""

    reporter: Reporter
    stop_token: StopToken
    durable: Callable[[int], None]
    """Called with the offset of the journal that a checkpoint on disk covers now."""
    closing: "Callable[[CheckpointWriter], AbstractContextManager[object]]"
    """Around the training: it waits for the last checkpoint."""
    on_resume: Callable[[int], None] = lambda _: None
    """Called with the offset of the journal that the training goes on from."""
    commit: Callable[[], str | None] = git_commit
    tags: Mapping[str, str] = field(default_factory=dict)
    """More tags of its run, if it begins here."""
    memory_mb: float | None = None
    """The memory to plan with; None for what the config says, or the machine has."""


def train_in(folder: Path, config: RunConfig, prepared: PreparedData, around: Surroundings) -> Figures:
    """Train, going on from the folder's newest whole checkpoint.

    Raises:
        TrainingDivergedError, MemoryCapError: the training cannot go on; the last checkpoint is kept.
        BudgetExhaustedError, InterruptedRunError: asked to leave, after a checkpoint.
    """
    from pipeline.training import checkpoint as checkpoints
    from pipeline.training.numerics_file import in_words, numerics_of
    from pipeline.training.open_training import open_training

    reporter = around.reporter
    numerics = numerics_of(config, len(prepared.class_names), folder, reporter, trial_mb=around.memory_mb)
    reporter.note(in_words(numerics, config))
    with (
        open_training(
            config, prepared, folder, numerics, reporter, around.stop_token, durable=around.durable
        ) as opened,
        around.closing(opened.writer),
    ):
        training, journal = opened.training, opened.journal
        if opened.checkpoint is None:
            journal.truncate(0)
            run_page.describe(
                config, prepared, numerics, opened.parameters, folder, journal, around.commit(), around.tags
            )
            training.save()
        else:
            training.resume(opened.checkpoint, checkpoints.best_epoch(folder))
            around.on_resume(journal.offset)
        progress = training.fit()
    checkpoints.save_weights(folder / "last.safetensors", training.model.state_dict())
    write_json(folder / "epochs.json", progress.rows)
    return Figures(
        parameters=opened.parameters,
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        validation_accuracy=progress.best_accuracy,
        validation_loss=progress.best_loss,
        trained_s=progress.trained_s,
        images_per_s=opened.images * progress.epoch / progress.steps_s,
        peak_memory_mb=progress.peak_memory_mb,
        numerics=numerics.to_json(),
        pflop=_pflop(opened, prepared),
    )


def _pflop(opened: "OpenTraining", prepared: PreparedData) -> float:
    import torch

    from pipeline.training.time_forecast import TotalWork

    training = opened.training
    work = TotalWork(training.progress.epoch, opened.images, prepared.images_in("validation"))
    return work.pflop(training.flops_per_image(torch.zeros(1, 3, 32, 32)))
