"""Builds everything that a training needs in a process, at its start and at each resume.

Used by the `train` stage and by the trials of a search, so that the same config gives the same weights in both.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.config.schema import RunConfig
from pipeline.data.batches import LabelledImages, Normalisation, TrainBatches, derive_seed, plain_batches
from pipeline.data.prepared import PreparedData
from pipeline.progress import Reporter
from pipeline.stop import StopToken
from pipeline.tracking.journal import Journal
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.checkpoint_writer import KEPT, CheckpointWriter
from pipeline.training.loop import Training
from pipeline.training.memory_forecast import validation_batch
from pipeline.training.models import build_model
from pipeline.training.numerics import Numerics
from pipeline.training.out_of_memory import explaining_out_of_memory
from pipeline.training.validation import Validation
from sequencer_models.activation_checkpointing import checkpoint_activations
from sequencer_models.whitening import whiten

WHITENING_IMAGES = 5000
"""Training images, the first ones, that a whitened stem is computed from."""


@dataclass(frozen=True)
class OpenTraining:
    """A training that is ready to start or to resume."""

    training: Training
    journal: Journal
    writer: CheckpointWriter
    """Closed by the caller, because it waits for the last checkpoint."""
    checkpoint: Checkpoint | None
    """To resume from: the caller passes it to `training.resume`."""
    parameters: int
    images: int
    """In the training split."""


@contextmanager
def open_training(
    config: RunConfig,
    prepared: PreparedData,
    folder: Path,
    numerics: Numerics,
    reporter: Reporter,
    stop_token: StopToken,
    *,
    durable: Callable[[int], None],
    kept: int = KEPT,
    keeps_best: bool = True,
) -> Iterator[OpenTraining]:
    """Build the training in `folder` on the prepared data, and open its journal.

    `durable`, `kept` and `keeps_best` are those of `CheckpointWriter`.

    Raises:
        WorkspaceError: the prepared data have changed since they were prepared.
        CheckpointError: there are checkpoints, and none can be used.
        MemoryCapError: there is no memory for the model.
    """
    numerics.apply()
    normalise = Normalisation(prepared.mean, prepared.std)
    train_split, validation_split = (
        LabelledImages(prepared.array(f"{name}_images"), prepared.array(f"{name}_labels"))
        for name in ("train", "validation")
    )
    batches = TrainBatches(train_split, normalise, config.train.augment, config.train.batch_size, config.seed)
    with explaining_out_of_memory(numerics):
        model = build_model(config, len(prepared.class_names))
    checkpoint_activations(model, numerics.checkpoints_activations(config))
    torch.manual_seed(derive_seed(config.seed, "dropout"))

    checkpoint = checkpoints.latest(folder, reporter.warn)
    if checkpoint is None:
        first = LabelledImages(train_split.images[:WHITENING_IMAGES], train_split.labels[:WHITENING_IMAGES])
        whiten(model, (images for images, _ in plain_batches(first, normalise, batch_size=250)))
    with explaining_out_of_memory(numerics), Journal(folder) as journal:
        writer = CheckpointWriter(
            folder,
            before=journal.sync,
            durable=durable,
            durable_offset=checkpoint.journal_offset if checkpoint else 0,
            kept=kept,
            keeps_best=keeps_best,
        )
        training = Training(
            model=model,
            batches=batches,
            validation=Validation(validation_split, normalise, validation_batch(numerics.micro_batch_size)),
            config=config.train,
            numerics=numerics,
            journal=journal,
            writer=writer,
            reporter=reporter,
            stop_token=stop_token,
            checkpoint_every_s=config.compute.checkpoint_every_s,
        )
        parameters = sum(parameter.numel() for parameter in model.parameters())
        yield OpenTraining(training, journal, writer, checkpoint, parameters, len(train_split))
