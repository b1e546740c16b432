"""Sequencer2D small and medium: their fields, and what is known of them. The network is in `sequencer2d`."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

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

Stem = Literal["patch", "conv", "deep"]
Mixing = Literal["both", "rows", "columns"]


@dataclass(frozen=True)
class Sequencer2DArchitecture:
    """Sequencer2D: levels of blocks that mix tokens with a BiLSTM down the columns and one along the rows.

    Raises `ValueError`, with the fix in the message, where the fields do not fit each other.
    """

    classes: int
    dims: Annotated[tuple[int, ...], Setting("Channels, one per level.", ge=4, le=4096, multiple_of=4)]
    depths: Annotated[tuple[int, ...], Setting("Blocks of each level.", ge=1, lt=2**31)]
    grid: Annotated[
        int,
        Setting(
            "Tokens on a side: 8 cuts patches of 4 pixels; the notebooks had 4 (patches of 8 pixels).",
            choices=(4, 8, 16),
        ),
    ] = 8
    stem: Annotated[
        Stem,
        Setting(
            "patch: one linear embedding per patch; conv: 3x3 convolutions of stride 2; deep: one of stride 1 first."
        ),
    ] = "patch"
    stem_width: Annotated[
        int | None,
        Setting("Channels of stem deep's first convolution; doubled from there. null: dims[0] / 4.", ge=1, le=4096),
    ] = None
    whitened: Annotated[
        bool, Setting("Whether stem deep's first convolution is fixed to whiten patches of the training images.")
    ] = False
    mixing: Annotated[
        Mixing, Setting("The axes along which tokens are mixed: both, or rows or columns alone, as an ablation.")
    ] = "both"
    mlp_ratio: Annotated[float, Setting("Hidden width of the MLP, in multiples of the channels.", gt=0, le=8)] = 3.0
    dropout: Annotated[float, Setting("Dropout before the classification head.", ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Setting("Drop path of the last block; it ramps up linearly from 0.", ge=0, lt=1)] = (
        0.1
    )
    pooling: PoolingSetting = "mean"
    init: InitSetting = "he"
    recurrent_init: RecurrentInitSetting = "uniform"
    forget_bias: ForgetBiasSetting = 0.0
    image_size: int = 32
    in_channels: int = 3
    pointwise: tuple[int, ...] = (2,)
    """The levels, counted from 1, that end in a pointwise linear layer."""
    mlp_dropout: float = 0.0
    """Dropout inside the MLPs."""

    def __post_init__(self) -> None:
        check_settings(self)
        for field in ("classes", "in_channels"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}: give at least 1")
        if not 0.0 <= self.mlp_dropout < 1.0:
            raise ValueError(f"mlp_dropout is {self.mlp_dropout}: give a rate from 0 up to, but not including, 1")
        if any(int(self.mlp_ratio * C) < 1 for C in self.dims):
            raise ValueError(f"mlp_ratio is {self.mlp_ratio}, which leaves an MLP without a channel: raise it")
        self._check_grid()
        self._check_levels()
        self._check_stem()

    def _check_grid(self) -> None:
        if self.grid < 1 or self.image_size % self.grid:
            fits = [n for n in range(1, self.image_size + 1) if self.image_size % n == 0]
            raise ValueError(
                f"grid is {self.grid}, which does not divide {self.image_size} pixels of a side: choose from {fits}"
            )
        if self.stem != "patch" and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise ValueError(
                f"stem {self.stem} halves {self.image_size} pixels, which never gives grid {self.grid}: choose a "
                "grid that is the image size over 2, 4, 8, ..., or stem patch"
            )
        if len(self.dims) > 1 and self.grid % 2:
            raise ValueError(
                f"grid is {self.grid}, but level 2 merges 2x2 tokens: choose an even grid, or a single level"
            )

    def _check_levels(self) -> None:
        if not self.dims or len(self.dims) != len(self.depths):
            raise ValueError(
                f"dims names {len(self.dims)} levels and depths {len(self.depths)}: give one of each per level"
            )
        if len(set(self.dims[1:])) > 1:
            raise ValueError(
                f"dims are {self.dims}, but only level 2 changes the width: give level 2 and those after it the same"
            )
        beyond = [level for level in self.pointwise if not 1 <= level <= len(self.dims)]
        if beyond:
            raise ValueError(f"pointwise names level {beyond[0]}: levels go from 1 to {len(self.dims)}")

    def _check_stem(self) -> None:
        for field, given in (("stem_width", self.stem_width is not None), ("whitened", self.whitened)):
            if given and self.stem != "deep":
                raise ValueError(
                    f"{field} is {getattr(self, field)}, but stem {self.stem} has no such convolution: "
                    f"choose stem deep, or leave {field} out"
                )

    @property
    def patch_size(self) -> int:
        """Pixels per side of what becomes one token of level 1."""
        return self.image_size // self.grid

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Channels of each convolution of stem conv or deep: they double on the way, and the last has `dims[0]`.

        conv: one for each halving, so the first has what doubling leaves for it. deep: the first has `stem_width`,
        then one for each halving has twice as many as the one before, but never more than `dims[0]`: 48, 96, 192;
        from 64 on 64, 128, 192; with three halvings 48, 96, 192, 192.
        """
        C, halvings = self.dims[0], self.patch_size.bit_length() - 1
        if self.stem == "conv":
            return tuple(max(1, C >> (halvings - n)) for n in range(1, halvings + 1))
        first = self.stem_width or C // 4
        return *(min(C, first * 2**n) for n in range(halvings)), C

    def drop_path_rates(self) -> list[float]:
        """The drop-path rate of every block, first to last: a straight line from 0 to `drop_path` over all levels."""
        last = sum(self.depths) - 1
        if last == 0:
            return [self.drop_path]
        return [self.drop_path * block / last for block in range(last + 1)]


_SEARCHED: dict[str, dict[str, list[Any]]] = {
    "drop_path": {"uniform": [0.0, 0.3]},
    "dropout": {"uniform": [0.0, 0.3]},
    "stem": {"choice": ["patch", "conv", "deep"]},
}

SMALL = ModelSpec(
    name="small",
    summary="Sequencer2D, 4 blocks of 192 channels, then 3 of 384",
    architecture=Sequencer2DArchitecture,
    network="sequencer_models.sequencer2d:Sequencer2D",
    own_values={"dims": (192, 384), "depths": (4, 3), "pointwise": (2,)},
    search_space={
        **_SEARCHED,
        "dims": {"choice": [[128, 256], [192, 384], [256, 512]]},
        "depths": {"choice": [[3, 2], [4, 3], [5, 4]]},
    },
    has_blocks=True,
    published=Published(accuracy=0.8411, loss=0.4246),
)
MEDIUM = ModelSpec(
    name="medium",
    summary="as small, then a pointwise linear layer and 3 more blocks of 384",
    architecture=Sequencer2DArchitecture,
    network="sequencer_models.sequencer2d:Sequencer2D",
    own_values={"dims": (192, 384, 384), "depths": (4, 3, 3), "pointwise": (2, 3)},
    search_space={
        **_SEARCHED,
        "dims": {"choice": [[128, 256, 256], [192, 384, 384], [256, 512, 512]]},
        "depths": {"choice": [[3, 2, 2], [4, 3, 3], [5, 4, 3]]},
    },
    has_blocks=True,
    published=Published(accuracy=0.8485, loss=0.4407),
)
