"""Fits a training into its memory before it starts: by fewer images at once, then by activation checkpointing.

Both compute the same: the gradients of a batch's parts add up, and what is computed again has the same bits.
"""

import dataclasses
import os
import sys

from pipeline.config.schema import RunConfig
from pipeline.errors import MemoryCapError
from pipeline.progress import Reporter
from pipeline.training.memory_cache import imports_mb, memory_of
from pipeline.training.memory_forecast import MLFLOW_MB, Fit
from pipeline.training.memory_limit import Limit
from pipeline.training.numerics import Numerics
from tuning.capped.run_capped import tree_memory_mb


def fitted(limit: Limit, config: RunConfig, classes: int, numerics: Numerics, reporter: Reporter) -> Numerics:
    """The numerics with which the training stays within the limit; those given where the config names a micro-batch.

    Where nothing fits, what needs the least: a trial's cap is enforced, and free memory may grow.

    Raises:
        MemoryCapError: a cap or a container does not hold a single image.
    """
    if config.compute.micro_batch_size is not None:
        return numerics
    held_mb = imports_mb(base_mb(mlflow=False)) if limit.kind == "trial" else base_mb(mlflow=True)
    found = memory_of(config, classes, numerics).fit_config(config, limit.mb, held_mb)
    if found.peak_mb > limit.mb:
        _refuse(limit, found)
        if limit.kind == "free":
            reporter.warn(
                f"this training needs {found.peak_mb:.0f} MB even with {found.in_words()}, of "
                f"{limit.in_words()}: close other programs, or choose a smaller model"
            )
    elif found.change_in_words(config):
        reporter.note(f"{found.in_words()}, to stay within {limit.in_words()}")
    return dataclasses.replace(
        numerics, micro_batch_size=found.micro_batch_size, activation_checkpointing=found.checkpointing
    )


def fit_of(config: RunConfig, classes: int, numerics: Numerics, *, mlflow: bool) -> Fit:
    """That of a training with these numerics, which this process is about to start."""
    images, checkpointing = numerics.micro_batch_size, numerics.checkpoints_activations(config)
    peak_mb = memory_of(config, classes, numerics).peak_mb(
        images,
        config.train.batch_size,
        checkpointing=checkpointing,
        averages=config.train.ema_decay is not None,
        base_mb=base_mb(mlflow),
    )
    return Fit(images, checkpointing, peak_mb)


def base_mb(mlflow: bool) -> float:
    """What this process holds before its training, and what MLflow's client adds to it."""
    return tree_memory_mb(os.getpid()) + (MLFLOW_MB if mlflow and "mlflow" not in sys.modules else 0.0)


def _refuse(limit: Limit, least: Fit) -> None:
    advice = {"cap": "--max-memory-mb", "container": "the container's limit"}.get(limit.kind)
    if advice is not None:
        raise MemoryCapError(
            f"{limit.mb:.0f} MB are too few: this training needs {least.peak_mb:.0f} MB with {least.in_words()}.\n"
            f"Give it as many ({advice}), or choose a smaller model."
        )
