"""How fast a training is on this machine: a few steps are timed once, then the cache folder has the figure."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config.schema import RunConfig
from pipeline.data.batches import LabelledImages, Normalisation, TrainBatches
from pipeline.errors import WorkspaceError
from pipeline.progress import SilentReporter
from pipeline.stop import StopToken
from pipeline.tracking.journal import Journal
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.loop import Training
from pipeline.training.memory_forecast import what_counts
from pipeline.training.models import build_model
from pipeline.training.numerics import Numerics
from pipeline.training.time_forecast import TIMED_S
from pipeline.training.validation import Validation
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.fingerprints import canonical_json
from sequencer_models.activation_checkpointing import checkpoint_activations
from sequencer_models.cache_folder import cache_folder

STEPS = 2
"""So few steps, and two seconds of them, since somebody waits for the answer."""
ENOUGH_S = 10.0
"""After so long one step is enough."""
UNDISTURBED = 0.7
"""A figure is kept if the training had this share of its threads' time: others took less of the processor."""


@dataclass(frozen=True)
class Timing:
    """What was measured."""

    images_per_s: float
    processor_share: float
    """Of the time of all its threads, what this process had of the processor."""


def speed_of(config: RunConfig, classes: int, numerics: Numerics, images: int, *, checkpointing: bool) -> float:
    """Images per second of a training's steps, with all that belongs to them, with `images` at once."""
    numerics = dataclasses.replace(numerics, micro_batch_size=images, activation_checkpointing=checkpointing)
    path = _path(config, classes, numerics)
    try:
        return float(json.loads(path.read_bytes())["images_per_s"])
    except (OSError, ValueError, TypeError, KeyError):
        found = measure(config, classes, numerics)
        if found.processor_share >= UNDISTURBED:  # else the next command measures again
            with contextlib.suppress(OSError, WorkspaceError):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, {"images_per_s": found.images_per_s})
        return found.images_per_s


def measure(config: RunConfig, classes: int, numerics: Numerics) -> Timing:
    """Train on made-up images, and time it."""
    numerics.apply()
    model = build_model(config, classes)
    checkpoint_activations(model, numerics.checkpoints_activations(config))
    draws, count = np.random.default_rng(0), 64 * config.train.batch_size
    made_up = LabelledImages(
        draws.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), draws.integers(0, classes, count)
    )
    normalise = Normalisation((120.0,) * 3, (60.0,) * 3)
    batches = TrainBatches(made_up, normalise, config.train.augment, config.train.batch_size, seed=0)
    with tempfile.TemporaryDirectory() as scratch, Journal(Path(scratch)) as journal:
        training = Training(
            model=model,
            batches=batches,
            validation=Validation(made_up, normalise),
            config=config.train,
            numerics=numerics,
            journal=journal,
            writer=CheckpointWriter(Path(scratch), before=journal.sync, durable=lambda _: None),
            reporter=SilentReporter(),
            stop_token=StopToken(),
            checkpoint_every_s=config.compute.checkpoint_every_s,
        )
        timing = _timed(training)
        training.writer.close()
    return timing


def _timed(training: Training) -> Timing:
    """Of the steps after the first, which sets everything up."""
    training.model.train()
    batches = itertools.chain.from_iterable(map(training.batches.epoch, itertools.count()))
    training.step(next(batches))
    started, busy_since = time.monotonic(), time.process_time()
    for steps, batch in enumerate(batches, start=1):
        training.step(batch)
        took_s = time.monotonic() - started
        if (steps >= STEPS and took_s >= TIMED_S) or took_s >= ENOUGH_S:
            break
    busy_s = time.process_time() - busy_since
    is_here = training.numerics.device == "cpu"
    share = busy_s / (took_s * training.numerics.threads) if is_here else 1.0
    return Timing(steps * training.config.batch_size / took_s, share)


def _path(config: RunConfig, classes: int, numerics: Numerics) -> Path:
    train = config.train
    identity = [
        what_counts(config),
        classes,
        [train.batch_size, train.ema_decay is None, train.augment.model_dump(mode="json")],
        {**numerics.to_json(), "activation_checkpointing": numerics.checkpoints_activations(config)},
    ]
    return cache_folder() / f"speed-{hashlib.sha256(canonical_json(identity)).hexdigest()[:16]}.json"
