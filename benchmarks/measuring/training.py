"""The product's own training step, on any network and made-up images."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from measuring.ours import kernels_of
from pipeline.config.schema import RunConfig
from pipeline.data.batch import Batch
from pipeline.data.batches import LabelledImages, Normalisation, TrainBatches
from pipeline.progress import SilentReporter
from pipeline.stop import StopToken
from pipeline.tracking.journal import Journal
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.loop import Training
from pipeline.training.numerics import Numerics
from pipeline.training.validation import Validation
from sequencer_models import kernels
from sequencer_models.kernels import Kernels

CLASSES = 4
IMAGES = 18000
NORMALISE = Normalisation((125.0,) * 3, (60.0,) * 3)


def made_up_split(images: int = IMAGES) -> LabelledImages:
    """Random images and labels, as many as four classes of CIFAR-10 leave for training."""
    draws = np.random.default_rng(0)
    return LabelledImages(
        draws.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8),
        draws.integers(0, CLASSES, images, dtype=np.int64),
    )


def batches_of(split: LabelledImages, config: RunConfig) -> TrainBatches:
    """Augmented batches as the config has them."""
    return TrainBatches(split, NORMALISE, config.train.augment, config.train.batch_size, seed=0)


@contextmanager
def training_of(
    model: nn.Module, config: RunConfig, numerics: Numerics, batches: TrainBatches, folder: Path | None = None
) -> Iterator[Training]:
    """A `Training` that is ready for its first step, in `folder` or in one that is removed afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        with Journal(folder) as journal:
            writer = CheckpointWriter(folder, before=journal.sync, durable=lambda _: None)
            training = Training(
                model=model,
                batches=batches,
                validation=Validation(batches.split, batches.normalise),
                config=config.train,
                numerics=numerics,
                journal=journal,
                writer=writer,
                reporter=SilentReporter(),
                stop_token=StopToken(),
                checkpoint_every_s=float("inf"),
            )
            training.model.train()
            try:
                yield training
            finally:
                writer.close()


def step(training: Training, numerics: Numerics, batch: Batch, ways: Kernels | None = None) -> Callable[[], None]:
    """A call that makes one optimiser step, exactly as the loop does, by `ways` (the numerics' own by default)."""
    chosen = ways or kernels_of(numerics)

    def make() -> None:
        kernels.select(chosen)
        training.numerics = numerics
        training.step(batch)

    return make


def optimizer_alone(training: Training) -> Callable[[], None]:
    """A call that makes the optimiser's part of a step, on gradients that were drawn."""

    def make() -> None:
        for weight in training.model.parameters():
            if weight.requires_grad and weight.grad is None:
                weight.grad = torch.randn_like(weight)
        training.optimizer.step()

    return make


def first_batch(batches: TrainBatches) -> Batch:
    """One batch, made ahead, so that its making is not timed."""
    torch.manual_seed(0)
    return next(batches.epoch(0))
