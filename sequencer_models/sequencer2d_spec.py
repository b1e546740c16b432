"""Sequencer2D small and medium: their fields, and what is known of them. The network is in `sequencer2d`."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sequencer_models.model_spec import Init, ModelSpec, Published, Setting, check_settings

Stem = Literal["patch", "conv"]


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
    stem: Annotated[Stem, Setting("patch: one linear embedding per patch; conv: 3x3 convolutions of stride 2.")] = (
        "patch"
    )
    mlp_ratio: Annotated[float, Setting("Hidden width of the MLP, in multiples of the channels.", gt=0, le=8)] = 3.0
    dropout: Annotated[float, Setting("Dropout before the classification head.", ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Setting("Drop path of the last block; it ramps up linearly from 0.", ge=0, lt=1)] = (
        0.1
    )
    init: Annotated[Init, Setting("He initialisation of linear layers, or the paper's own.")] = "he"
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

    def _check_grid(self) -> None:
        if self.grid < 1 or self.image_size % self.grid:
            fits = [n for n in range(1, self.image_size + 1) if self.image_size % n == 0]
            raise ValueError(
                f"grid is {self.grid}, which does not divide {self.image_size} pixels of a side: choose from {fits}"
            )
        if self.stem == "conv" and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise ValueError(
                f"stem conv halves {self.image_size} pixels, which never gives grid {self.grid}: choose a grid "
                "that is the image size over 2, 4, 8, ..., or stem patch"
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

    @property
    def patch_size(self) -> int:
        """Pixels per side of what becomes one token of level 1."""
        return self.image_size // self.grid

    def drop_path_rates(self) -> list[float]:
        """The drop-path rate of every block, first to last: a straight line from 0 to `drop_path` over all levels."""
        last = sum(self.depths) - 1
        if last == 0:
            return [self.drop_path]
        return [self.drop_path * block / last for block in range(last + 1)]


_SEARCHED: dict[str, dict[str, list[Any]]] = {
    "drop_path": {"uniform": [0.0, 0.3]},
    "dropout": {"uniform": [0.0, 0.3]},
    "stem": {"choice": ["patch", "conv"]},
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
