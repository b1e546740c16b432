"""Sequencer2D (Tatsunami and Taki 2022, arXiv 2205.01972): BiLSTMs down the columns and along the rows mix tokens.

mixer -> block -> level -> model, read from top to bottom. "Level" is what the paper calls a stage.

Shapes: B batch, H, W token rows and columns (H == W == grid at level 1, half of it from level 2 on), C channels.
"""

import math

import torch
from torch import Tensor, nn

from sequencer_models.activation_checkpointing import Blocks
from sequencer_models.bilstm2d import BiLSTM2D
from sequencer_models.initialisation import init_weights
from sequencer_models.layers import LAYER_NORM_EPS, DropPath, Mlp, PatchMerging, PointwiseLinear
from sequencer_models.pooling import pooling_of
from sequencer_models.sequencer2d_spec import Mixing, Sequencer2DArchitecture
from sequencer_models.stems import ConvStem, PatchEmbedding


class Sequencer2DBlock(nn.Module):
    """A residual BiLSTM2D, then a residual MLP, each behind a LayerNorm (paper, figure 2 and section 3.3).

    With one axis its LSTM is twice as wide. So `fc` stays C to C, and a token costs 13 C^2 multiply-adds where both
    axes cost 12 C^2: 4 C^2 for the inputs of the LSTMs, 1 or 2 for their states, 1 for `fc`, 6 for the MLP.
    """

    def __init__(
        self, channels: int, mlp_ratio: float, mlp_dropout: float, drop_path: float, mixing: Mixing = "both"
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.mixer = BiLSTM2D(channels, channels // 4 if mixing == "both" else channels // 2, mixing)
        self.norm2 = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(channels, int(mlp_ratio * channels), mlp_dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """`B x H x W x C` in and out."""
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        mixed: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return mixed


class Sequencer2DLevel(nn.Module):
    """Merging (level 2 only), blocks, and a pointwise linear layer where the architecture has one."""

    def __init__(self, architecture: Sequencer2DArchitecture, level: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        C, mlp = architecture.dims[level - 1], (architecture.mlp_ratio, architecture.mlp_dropout)
        self.merging = PatchMerging(architecture.dims[0], C) if level == 2 else nn.Identity()
        self.blocks = Blocks(*[Sequencer2DBlock(C, *mlp, rate, architecture.mixing) for rate in drop_path_rates])
        self.pointwise = PointwiseLinear(C) if level in architecture.pointwise else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`B x H x W x C` tokens of the level before to those of this one."""
        x = self.merging(x)  # B x H/2 x W/2 x C at level 2
        tokens: Tensor = self.pointwise(self.blocks(x))
        return tokens


class Sequencer2D(nn.Module):
    """The classifier: stem, levels, LayerNorm, pooling, dropout, linear (paper, figure 1).

    `B x in_channels x image_size x image_size` normalised pixels to `B x classes` logits. No position embedding:
    an LSTM knows where it is. The logits of an image do not depend on the rest of its batch.
    """

    def __init__(self, architecture: Sequencer2DArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.stem = _stem(architecture)
        rates = iter(architecture.drop_path_rates())
        self.levels = nn.Sequential(
            *[
                Sequencer2DLevel(architecture, level, [next(rates) for _ in range(depth)])
                for level, depth in enumerate(architecture.depths, start=1)
            ]
        )
        self.norm = nn.LayerNorm(architecture.dims[-1], eps=LAYER_NORM_EPS)
        self.pooling = pooling_of(architecture.pooling, architecture.dims[-1])
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(architecture.dims[-1], architecture.classes)
        self._init()

    def forward(self, images: Tensor) -> Tensor:
        """`B x in_channels x image_size x image_size` to `B x classes`."""
        x = self.stem(images)  # B x H x W x C
        x = self.levels(x)  # B x H/2 x W/2 x C, C of the last level
        x = self.pooling(self.norm(x))  # B x C
        logits: Tensor = self.head(self.dropout(x))
        return logits

    def _init(self) -> None:
        init_weights(
            self,
            self.head,
            self.architecture.init,
            recurrent_init=self.architecture.recurrent_init,
            forget_bias=self.architecture.forget_bias,
        )
        if self.architecture.init == "he":
            # He's gain of 2 lets every branch add about as much variance as the stream has. Scaling the last layer of
            # all 2 * depth branches keeps their sum near 1 at any depth (Radford et al. 2019, section 2.3).
            scale = 1.0 / math.sqrt(2 * sum(self.architecture.depths))
            with torch.no_grad():
                for block in self.modules():
                    if isinstance(block, Sequencer2DBlock):
                        block.mixer.fc.weight.mul_(scale)
                        block.mlp.fc2.weight.mul_(scale)


def _stem(architecture: Sequencer2DArchitecture) -> nn.Module:
    if architecture.stem == "patch":
        return PatchEmbedding(architecture.in_channels, architecture.dims[0], architecture.patch_size)
    return ConvStem(
        architecture.in_channels,
        architecture.stem_widths,
        first_stride=1 if architecture.stem == "deep" else 2,
        whitened=architecture.whitened,
    )
