"""The vanilla BiLSTM: its fields, and what is known of it. The network is in `vanilla`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from sequencer_models.model_spec import (
    ForgetBiasSetting,
    InitSetting,
    ModelSpec,
    PoolingSetting,
    Published,
    RecurrentInitSetting,
    Setting,
    check_settings,
)

SequenceKind = Literal["rows", "patches"]


@dataclass(frozen=True)
class VanillaArchitecture:
    """A vanilla BiLSTM over the image as one sequence.

    "rows" are 32 steps of 96 features, "patches" 64 steps of 48 in reading order: twice the steps, so half the speed.
    Raises `ValueError`, with the fix in the message, for fields that do not fit each other.
    """

    classes: int
    sequence: Annotated[SequenceKind, Setting("One step of the sequence: a row of pixels, or a 4x4 patch.")] = "rows"
    hidden: Annotated[int, Setting("Hidden size of each direction.", ge=1, le=4096)] = 192
    layers: Annotated[int, Setting("Stacked BiLSTM layers.", ge=1, le=16)] = 2
    dropout: Annotated[
        float, Setting("Dropout between the layers and before the classification head.", ge=0, lt=1)
    ] = 0.1
    pooling: PoolingSetting = "mean"
    init: InitSetting = "he"
    recurrent_init: RecurrentInitSetting = "uniform"
    forget_bias: ForgetBiasSetting = 0.0
    image_size: int = 32
    in_channels: int = 3
    patch_size: int = 4
    """Pixels per side of a patch; only with sequence "patches"."""

    def __post_init__(self) -> None:
        check_settings(self)
        for field in ("classes", "image_size", "in_channels", "patch_size"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}: give at least 1")
        if self.sequence == "patches" and self.image_size % self.patch_size:
            fits = [n for n in range(1, self.image_size + 1) if self.image_size % n == 0]
            raise ValueError(
                f"patch_size is {self.patch_size}, which does not divide the {self.image_size} pixels of a side: "
                f"choose from {fits}"
            )

    @property
    def features(self) -> int:
        """Features of one step."""
        if self.sequence == "rows":
            return self.in_channels * self.image_size
        return self.in_channels * self.patch_size**2


VANILLA = ModelSpec(
    name="vanilla",
    summary="the image as one sequence of rows, stacked BiLSTMs",
    architecture=VanillaArchitecture,
    network="sequencer_models.vanilla:VanillaBiLSTM",
    search_space={
        "dropout": {"uniform": [0.0, 0.4]},
        "hidden": {"choice": [128, 192, 256, 384]},
        "layers": {"integer": [1, 3]},
    },
    published=Published(accuracy=0.6777, loss=0.9368),
)
