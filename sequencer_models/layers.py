"""The parts of Sequencer2D around its mixer: merging, MLP, drop path.

Shapes: B batch, H, W token rows and columns, C channels. Tokens are `B x H x W x C`.
Nothing here mixes the images of a batch, and no layer keeps running statistics.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from sequencer_models.linear import TokenLinear

LAYER_NORM_EPS = 1e-6  # the paper's code; torch's own default is 1e-5


class DropPath(nn.Module):
    """Stochastic depth: in training, drop the whole branch of an image with probability `rate` (Huang et al. 2016).

    One draw per image of the batch; what is kept is divided by `1 - rate`, so the expectation stays.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop images of `B x ...`."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep)  # B x 1 x 1 x 1
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        """Show the rate when the model is printed."""
        return f"rate={self.rate:.4g}"


class Mlp(nn.Module):
    """Channel mixing: linear, GELU, linear, at every token (paper, section 3.3)."""

    def __init__(self, channels: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = TokenLinear(channels, hidden)
        self.fc2 = TokenLinear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`B x H x W x C` in and out."""
        x = self.dropout(F.gelu(self.fc1(x)))
        mixed: Tensor = self.dropout(self.fc2(x))
        return mixed


class PatchMerging(nn.Module):
    """Merge each 2x2 square of tokens of an image into one by a linear map (paper, section 3.3).

    A 2x2 convolution of stride 2, so that it cannot reach from one image to another.
    """

    def __init__(self, channels: int, channels_out: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels_out, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`B x H x W x C` to `B x H/2 x W/2 x channels_out`."""
        merged: Tensor = self.down(x.permute(0, 3, 1, 2))  # B x C x H x W in, halved out
        return merged.permute(0, 2, 3, 1)


class PointwiseLinear(TokenLinear):
    """One linear map at every token: the paper's "patch merging" where the grid stays as it is (patch size 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)
