"""One process' work on a training: everything that is built anew each time it goes on, put together in one place.

The `train` stage and the trials of a search both train by this, so that the same config ends in the same weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.config.schema import RunConfig
from pipeline.data.batches import LabelledImages, Normalisation, TrainBatches, derive_seed
from pipeline.data.prepared import PreparedData
from pipeline.progress import Reporter
from pipeline.stop import StopToken
from pipeline.tracking.journal import Journal
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import KEPT, Checkpoint, CheckpointWriter
from pipeline.training.device import Numerics
from pipeline.training.loop import Training, Validation, telling_of_memory
from pipeline.training.models import build_model
from sequencer_models.activation_checkpointing import checkpoint_activations


@dataclass(frozen=True)
class Session:
    """A training that is about to begin or to go on."""

    training: Training
    journal: Journal
    writer: CheckpointWriter
    """The caller closes it: that waits for the last checkpoint, and only the caller knows for how long to wait."""
    checkpoint: Checkpoint | None
    """Where it goes on from; the caller hands it to `training.resume`."""
    parameters: int
    images: int
    """In the training split."""


@contextmanager
def opened(
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
) -> Iterator[Session]:
    """Build the training of `folder` on the prepared data, with the folder's journal open.

    `durable`, `kept` and `keeps_best` are the checkpoint writer's.

    Raises:
        WorkspaceError: the prepared data are not what was prepared.
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
    with telling_of_memory(numerics):
        model = build_model(config, len(prepared.class_names))
    checkpoint_activations(model, config.compute.recompute)
    torch.manual_seed(derive_seed(config.seed, "dropout"))

    checkpoint = checkpoints.latest(folder, reporter.warn)
    with telling_of_memory(numerics), Journal(folder) as journal:
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
            validation=Validation(validation_split, normalise, min(250, 4 * numerics.micro_batch_size)),
            config=config.train,
            numerics=numerics,
            journal=journal,
            writer=writer,
            reporter=reporter,
            stop_token=stop_token,
            checkpoint_every_s=config.compute.checkpoint_every_s,
        )
        parameters = sum(parameter.numel() for parameter in model.parameters())
        yield Session(training, journal, writer, checkpoint, parameters, len(train_split))
