"""Sequencer2D (Tatsunami and Taki 2022, arXiv 2205.01972): BiLSTMs down the columns and along the rows mix tokens.

mixer -> block -> level -> model, read from top to bottom. "Level" is what the paper calls a stage.

Shapes: B batch, H, W token rows and columns (H == W == grid at level 1, half of it from level 2 on), C channels.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sequencer_models.bilstm2d import BiLSTM2D
from sequencer_models.layers import (
    LAYER_NORM_EPS,
    ConvStem,
    DropPath,
    Init,
    Mlp,
    PatchEmbedding,
    PatchMerging,
    PointwiseLinear,
    init_weights,
)

Stem = Literal["patch", "conv"]


@dataclass(frozen=True)
class Sequencer2DSpec:
    """What a Sequencer2D is made of. The defaults are the small model.

    Raises `ValueError`, with the fix in the message, where the fields do not fit each other.
    """

    classes: int
    """Classes, so logits."""
    grid: int = 8
    """Tokens per side at level 1; a patch is `image_size / grid` pixels wide."""
    image_size: int = 32
    """Pixels per side."""
    in_channels: int = 3
    """Colour channels."""
    stem: Stem = "patch"
    """"patch": one patch embedding. "conv": 3x3 convolutions of stride 2 down to the same grid."""
    dims: tuple[int, ...] = (192, 384)
    """Channels of each level."""
    depths: tuple[int, ...] = (4, 3)
    """Blocks of each level."""
    pointwise: tuple[int, ...] = (2,)
    """The levels, counted from 1, that end in a pointwise linear layer."""
    mlp_ratio: float = 3.0
    """Hidden width of the MLP over C."""
    dropout: float = 0.0
    """Dropout before the classifier."""
    mlp_dropout: float = 0.0
    """Dropout inside the MLPs."""
    drop_path: float = 0.0
    """Drop path of the last block; it grows linearly from 0 at the first."""
    init: Init = "he"
    """Initialisation, see `layers.init_weights`."""

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ValueError(f"classes is {self.classes}: give at least 1")
        if self.in_channels < 1:
            raise ValueError(f"in_channels is {self.in_channels}: give at least 1")
        self._check_grid()
        self._check_levels()
        for field, value in (
            ("dropout", self.dropout),
            ("mlp_dropout", self.mlp_dropout),
            ("drop_path", self.drop_path),
        ):
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{field} is {value}: give a rate from 0 up to, but not including, 1")
        if not self.mlp_ratio > 0.0 or any(int(self.mlp_ratio * C) < 1 for C in self.dims):
            raise ValueError(f"mlp_ratio is {self.mlp_ratio}: give a positive number, such as 3")
        if self.init not in get_args(Init):
            raise ValueError(f"init is {self.init!r}: choose one of {', '.join(get_args(Init))}")

    def _check_grid(self) -> None:
        if self.grid < 1 or self.image_size % self.grid:
            fits = [n for n in range(1, self.image_size + 1) if self.image_size % n == 0]
            raise ValueError(
                f"grid is {self.grid}, which does not divide {self.image_size} pixels of a side: choose from {fits}"
            )
        if self.stem not in get_args(Stem):
            raise ValueError(f"stem is {self.stem!r}: choose one of {', '.join(get_args(Stem))}")
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
        if any(C < 4 or C % 4 for C in self.dims):
            raise ValueError(f"dims are {self.dims}: each must be a multiple of 4, as four directions share it")
        if any(depth < 1 for depth in self.depths):
            raise ValueError(f"depths are {self.depths}: give each level at least one block")
        if len(set(self.dims[1:])) > 1:
            raise ValueError(
                f"dims are {self.dims}, but only level 2 changes the width: give level 2 and those behind it the same"
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


class Sequencer2DBlock(nn.Module):
    """A residual BiLSTM2D, then a residual MLP, each behind a LayerNorm (paper, figure 2 and section 3.3)."""

    def __init__(self, channels: int, mlp_ratio: float, mlp_dropout: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.mixer = BiLSTM2D(channels, hidden=channels // 4)
        self.norm2 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(channels, int(mlp_ratio * channels), mlp_dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """`B x H x W x C` in and out."""
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        mixed: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return mixed


class Sequencer2DLevel(nn.Module):
    """Merging (level 2 only), blocks, and a pointwise linear layer where the spec has one."""

    def __init__(self, spec: Sequencer2DSpec, level: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        C = spec.dims[level - 1]
        self.merging = PatchMerging(spec.dims[0], C) if level == 2 else nn.Identity()
        self.blocks = nn.Sequential(
            *[Sequencer2DBlock(C, spec.mlp_ratio, spec.mlp_dropout, rate) for rate in drop_path_rates]
        )
        self.pointwise = PointwiseLinear(C) if level in spec.pointwise else nn.Identity()
        self.recompute = False
        """Keep only the blocks' inputs for the backward pass, and compute the rest again there (Chen et al. 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """`B x H x W x C` tokens of the level before to those of this one."""
        x = self.merging(x)  # B x H/2 x W/2 x C at level 2
        for block in self.blocks:
            recompute = self.recompute and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        tokens: Tensor = self.pointwise(x)
        return tokens


class Sequencer2D(nn.Module):
    """The classifier: stem, levels, LayerNorm, average pooling, dropout, linear (paper, figure 1).

    `B x in_channels x image_size x image_size` normalised pixels to `B x classes` logits. No position embedding:
    an LSTM knows where it is. The logits of an image do not depend on the rest of its batch.
    """

    def __init__(self, spec: Sequencer2DSpec) -> None:
        super().__init__()
        self.spec = spec
        if spec.stem == "patch":
            self.stem: nn.Module = PatchEmbedding(spec.in_channels, spec.dims[0], spec.patch_size)
        else:
            self.stem = ConvStem(spec.in_channels, spec.dims[0], halvings=spec.patch_size.bit_length() - 1)
        rates = iter(spec.drop_path_rates())
        self.levels = nn.Sequential(
            *[
                Sequencer2DLevel(spec, level, [next(rates) for _ in range(depth)])
                for level, depth in enumerate(spec.depths, start=1)
            ]
        )
        self.norm = nn.LayerNorm(spec.dims[-1], eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(spec.dims[-1], spec.classes)
        self._init()

    def forward(self, images: Tensor) -> Tensor:
        """`B x in_channels x image_size x image_size` to `B x classes`."""
        x = self.stem(images)  # B x H x W x C
        x = self.levels(x)  # B x H/2 x W/2 x C, C of the last level
        x = self.norm(x).mean(dim=(1, 2))  # B x C: adaptive average pooling to one token
        logits: Tensor = self.head(self.dropout(x))
        return logits

    def _init(self) -> None:
        init_weights(self, self.spec.init, self.head)
        if self.spec.init == "he":
            # He's gain of 2 lets every branch add about as much variance as the stream has. Scaling the last layer of
            # all 2 * depth branches keeps their sum near 1 at any depth (Radford et al. 2019, section 2.3).
            scale = 1.0 / math.sqrt(2 * sum(self.spec.depths))
            with torch.no_grad():
                for block in self.modules():
                    if isinstance(block, Sequencer2DBlock):
                        block.mixer.fc.weight.mul_(scale)
                        block.mlp.fc2.weight.mul_(scale)
