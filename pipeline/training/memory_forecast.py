"""The peak memory of a training before it starts, and how it is fitted to a cap. No torch here.

What the tensors of a step take is known to the byte (`step_memory`). What is added is what a training holds beside it
on every machine: copies of the weights, those of a checkpoint that is being written among them, and the buffers of
the libraries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pipeline.config.schema import RunConfig
from pipeline.counts import counted
from sequencer_models.catalog import MODELS
from sequencer_models.model_spec import settings_of

LIBRARIES_MB = 109.0
"""Buffers and code of the libraries that come with the first steps."""
STEP_SHARE = 1.22
"""What a step takes of the machine, as a multiple of its tensors: scratch of the libraries, and gaps in the heap."""
WORKING_COPIES = 0.4
"""Copies of the weights that libraries hold for a while: packed, or in another precision.

Fits to measured peaks (`benchmarks/forecast.py`), as the two above; with them 71 of 78 were at most 5 % too low and
10 % too high, the others 13 % too low to 10 % too high."""
MLFLOW_MB = 170.0
"""MLflow's client, which a training of `seqpipe run` loads while it works; trials do not."""

_RATE = 0.1
"""Stands for every rate above 0: they all hold the same."""


@dataclass(frozen=True)
class Line:
    """Megabytes as a function of the images at once."""

    fixed_mb: float
    mb_per_image: float

    def at(self, images: int) -> float:
        """The value for so many images."""
        return self.fixed_mb + images * self.mb_per_image


@dataclass(frozen=True)
class StepMemory:
    """The tensors of a step beside the weights; of all its moments those lines that are the highest somewhere."""

    training: tuple[Line, ...]
    validation: tuple[Line, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` made; raises `TypeError` or `KeyError` for anything else."""
        return cls(*(tuple(Line(**line) for line in content[name]) for name in ("training", "validation")))

    def training_mb(self, images: int) -> float:
        """The peak of a training step."""
        return max(line.at(images) for line in self.training)

    def validation_mb(self, images: int) -> float:
        """The peak of a validation batch."""
        return max(line.at(images) for line in self.validation)


@dataclass(frozen=True)
class Fit:
    """How a training is held within its memory."""

    micro_batch_size: int
    checkpointing: bool
    """Whether the blocks are computed again in the backward pass."""
    peak_mb: float
    """What it then holds in all, the imports included."""

    def in_words(self) -> str:
        """How many images at once, and whether blocks are computed again."""
        images = f"{counted(self.micro_batch_size, 'image')} at once"
        return f"{images} and activation checkpointing" if self.checkpointing else images

    def change_in_words(self, config: RunConfig) -> str:
        """How the training is changed to fit; empty if it is not."""
        size = min(config.compute.micro_batch_size or config.train.batch_size, config.train.batch_size)
        is_as_it_was = self.micro_batch_size >= size and self.checkpointing == config.compute.recompute
        return "" if is_as_it_was else self.in_words()


@dataclass(frozen=True)
class TrainingMemory:
    """What trainings of one architecture, precision and optimiser hold, for any number of images at once."""

    weights_mb: float
    as_it_is: StepMemory
    checkpointed: StepMemory | None
    """With activation checkpointing; None for a model without blocks."""
    flops_per_image: float
    """Floating point operations of a training step, without the optimiser's."""
    optimizer_copies: float = 2.0
    """Copies of the weights that the optimiser keeps: AdamW's two averages."""
    optimizer_scratch_mb: float = 0.0
    """What its step holds beside them and the gradients."""
    optimizer_flops: float = 0.0
    """Floating point operations of its step."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` made; raises `TypeError` or `KeyError` for anything else."""
        checkpointed = content["checkpointed"]
        return cls(
            content["weights_mb"],
            StepMemory.from_json(content["as_it_is"]),
            StepMemory.from_json(checkpointed) if checkpointed else None,
            content["flops_per_image"],
            content["optimizer_copies"],
            content["optimizer_scratch_mb"],
            content["optimizer_flops"],
        )

    def peak_mb(self, images: int, batch_size: int, *, checkpointing: bool, averages: bool, base_mb: float) -> float:
        """The peak with so many images at once; `base_mb` is held before the training, the imports included.

        `averages`: whether it keeps a moving average of the weights.
        """
        step = self.checkpointed if checkpointing and self.checkpointed else self.as_it_is
        states = 1 + self.optimizer_copies + averages
        accumulated = self.weights_mb if images < batch_size else 0.0  # gradients that are there before the step
        in_step = max(
            step.training_mb(images) + accumulated,
            self.weights_mb + self.optimizer_scratch_mb,  # the gradients, and what the optimiser makes of them
            step.validation_mb(validation_batch(images)),
        )
        copies = 2 * states + WORKING_COPIES  # twice: those of a checkpoint
        return base_mb + LIBRARIES_MB + copies * self.weights_mb + STEP_SHARE * in_step

    def fit_config(self, config: RunConfig, cap_mb: float, base_mb: float) -> Fit:
        """How a training with this config is fitted to a cap; `peak_mb` is above it if nothing fits."""
        return self.fit(
            cap_mb,
            config.train.batch_size,
            checkpointing=config.compute.recompute,
            averages=config.train.ema_decay is not None,
            base_mb=base_mb,
            images=config.compute.micro_batch_size,
        )

    def fit(
        self,
        cap_mb: float,
        batch_size: int,
        *,
        checkpointing: bool,
        averages: bool,
        base_mb: float,
        images: int | None = None,
    ) -> Fit:
        """The choice that changes the least: fewer images at once, then activation checkpointing.

        The parts of a batch are as equal as possible. If nothing fits, the choice that needs the least. `images`: so
        many at once, and no fewer.
        """
        choices = [checkpointing] if checkpointing or images or self.checkpointed is None else [False, True]
        sizes = [min(images, batch_size)] if images else equal_parts(batch_size)
        for checkpoints in choices:
            for size in sizes:
                peak = self.peak_mb(size, batch_size, checkpointing=checkpoints, averages=averages, base_mb=base_mb)
                if peak <= cap_mb:
                    return Fit(size, checkpoints, peak)
        return Fit(sizes[-1], choices[-1], peak)


def equal_parts(batch_size: int) -> list[int]:
    """The sizes of the largest part if a batch is cut as equally as possible, largest first."""
    return sorted({-(-batch_size // parts) for parts in range(1, batch_size + 1)}, reverse=True)


def validation_batch(images: int) -> int:
    """Validation images at once in a training of so many: without gradients, four times as many take no more."""
    return min(250, 4 * images)


def what_counts(config: RunConfig) -> dict[str, Any]:
    """The settings that decide what a training of a model holds: of rates, only whether they are above 0."""
    model = config.model.model_dump(mode="json")
    for name, (_, setting) in settings_of(MODELS[config.model.name].architecture).items():
        if setting.lt == 1 and model[name] > 0:
            model[name] = _RATE
    return {"optimizer": config.train.optimizer, **model}
