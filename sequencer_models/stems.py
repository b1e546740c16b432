"""The stems of Sequencer2D, from pixels to the tokens of level 1: patches, or 3x3 convolutions.

Shapes: B batch, H, W token rows and columns, C channels. Images are `B x in_channels x height x width`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from sequencer_models.layers import LAYER_NORM_EPS


class PatchEmbedding(nn.Module):
    """Cut the image into square patches, embed each by one linear map, then LayerNorm (paper, section 3.3).

    A convolution whose stride is its kernel is that linear map.
    """

    def __init__(self, in_channels: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """`B x in_channels x height x width` pixels to `B x H x W x C` tokens."""
        tokens: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))  # B x H x W x C
        return tokens


class ConvStem(nn.Module):
    """A stem of 3x3 convolutions, each followed by LayerNorm, with GELU between them.

    There is one for each of `widths`, its channels. Each halves the grid; the first only if `first_stride` is 2.
    Overlapping receptive fields train more steadily than patches cut apart (Xiao et al. 2021, arXiv 2106.14881).

    `whitened`: the filters of the first are not trained, but set once, from images, by `whitening.whiten`.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], *, first_stride: int = 2, whitened: bool = False
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=2 if n else first_stride, padding=1)
            for n, (before, after) in enumerate(pairwise([in_channels, *widths]))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=LAYER_NORM_EPS) for width in widths)
        self.whitened = whitened
        if whitened:
            self.convs[0].weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """`B x in_channels x height x width` pixels to `B x H x W x C` tokens."""
        x = images.permute(0, 2, 3, 1).contiguous()  # B x height x width x in_channels, which convolutions keep
        for n, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if n:
                x = F.gelu(x)
            x = norm(conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # B x H x W x C
        return x
