"""`numerics.json`: what a training computes with, chosen at its start and used again by every resume."""

import contextlib
import dataclasses
import json
from pathlib import Path

from pipeline.config.schema import RunConfig
from pipeline.errors import MachineUnfitError
from pipeline.progress import Reporter
from pipeline.training import memory_plan, resolve_numerics
from pipeline.training.memory_limit import Limit, limit_of
from pipeline.training.numerics import Numerics
from pipeline.workspace.durable_files import write_json
from sequencer_models.capabilities import this_machine

FILE_NAME = "numerics.json"
COMPARED = {
    "torch": "torch",
    "cpu": "processor",
    "kernel": "LSTM kernel",
    "lstm_precision": "precision of the LSTMs",
}
"""What may have changed when a training is resumed, and what a warning calls it."""


def numerics_of(
    config: RunConfig,
    classes: int,
    folder: Path,
    reporter: Reporter,
    *,
    trial_mb: float | None = None,
    halvings: int = 0,
) -> Numerics:
    """Those in the training's folder; without any, choose them and write them there.

    So a resume computes the same bits, unless the config asks for fewer images at once. Warns of what differs now,
    and of what the config asks for in vain.
    `trial_mb`: the memory that a trial of a search plans with. `halvings`: how often it has hit its cap.

    Raises:
        MachineUnfitError: the device of the training is not available here.
        MemoryCapError: the memory of the config does not hold a single image.
    """
    path = folder / FILE_NAME
    try:
        kept = Numerics.from_json(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        kept = None
    if kept is not None:
        _warn_of_changes(config, kept, reporter)
        numerics = _with_fewer_images(config, kept, reporter)
    else:
        numerics = resolve_numerics.resolve(config.compute, config.train.batch_size)
        limit = limit_of(config.compute, numerics.device) if trial_mb is None else Limit(trial_mb, "trial")
        if limit is not None:
            numerics = memory_plan.fitted(limit, config, classes, numerics, reporter)
    numerics = numerics.halved(halvings)
    if numerics != kept:
        write_json(path, numerics.to_json())
    return numerics


def forget_missing_device(folder: Path) -> None:
    """Have a training choose anew that began on a device which this machine has not: a trial on another laptop."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        kept = Numerics.from_json(json.loads((folder / FILE_NAME).read_bytes()))
        try:
            resolve_numerics.resolve_device(kept.device)
        except MachineUnfitError:
            (folder / FILE_NAME).unlink()


def _warn_of_changes(config: RunConfig, kept: Numerics, reporter: Reporter) -> None:
    try:
        same = {"device": kept.device, "kernel": "eager" if kept.kernel == "eager" else "auto"}
        present = resolve_numerics.resolve(config.compute.model_copy(update=same), config.train.batch_size)
    except MachineUnfitError:
        raise MachineUnfitError(
            f"this training began on {kept.device}, which is not here; go on where it is, or start again with --fresh"
        ) from None
    for field, what in COMPARED.items():
        before, now = getattr(kept, field), getattr(present, field)
        if before is not None and before != now:
            reporter.warn(
                f"started with the {what} {before}, going on with {now}: the weights will not be the same bit for bit"
            )
    asked = config.compute
    ignored = {
        "device": asked.device not in ("auto", kept.device),
        "threads": asked.threads not in (None, kept.threads),
        "kernel": asked.kernel not in ("auto", kept.kernel.partition(" ")[0]),
        "micro_batch_size": (asked.micro_batch_size or 0) > kept.micro_batch_size,
    }
    for name in (name for name, differs in ignored.items() if differs):
        reporter.warn(
            f"this training was started with {name} {getattr(kept, name)} and goes on so; --fresh starts it again"
        )


def _with_fewer_images(config: RunConfig, kept: Numerics, reporter: Reporter) -> Numerics:
    """With as many at once as the config asks for, if that is less: so a training resumes that ran out of memory."""
    asked = config.compute.micro_batch_size
    if asked is None or asked >= kept.micro_batch_size:
        return kept
    reporter.warn(
        f"started with {kept.micro_batch_size} images at once, going on with {asked}: the weights will not be the "
        "same bit for bit"
    )
    return dataclasses.replace(kept, micro_batch_size=asked)


def in_words(numerics: Numerics, config: RunConfig) -> str:
    """A line on what a training computes with."""
    means = f"on {numerics.device} in {numerics.precision}, {numerics.threads} threads"
    if numerics.kernel != "eager":
        built = f", built by {numerics.kernel_compiler}" if numerics.kernel_compiler else ""
        return f"{means}, with the native LSTM kernel{built}"
    if numerics.lstm_precision not in (None, numerics.precision):
        means += f", the LSTMs in {numerics.lstm_precision} (this processor has none in {numerics.precision})"
    if numerics.device != "cpu" or config.compute.kernel == "eager":
        return means
    return f"{means}, without the native LSTM kernel, which is faster ({this_machine().native_kernel[1]})"
