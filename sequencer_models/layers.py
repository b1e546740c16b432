"""The parts of Sequencer2D around its mixer: stems, merging, MLP, drop path, and the two initialisations.

Shapes: B batch, H, W token rows and columns, C channels. Tokens are `B x H x W x C`; only stems see `B x C x H x W`.
Nothing here mixes the images of a batch, and no layer keeps running statistics.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequencer_models.linear import TokenLinear
from sequencer_models.model_spec import Init

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
    """A stem of 3x3 convolutions of stride 2, each followed by LayerNorm, with GELU between them.

    Each halves the grid; the width doubles from one to the next and ends at `channels`. Overlapping
    receptive fields train more steadily than patches cut apart (Xiao et al. 2021, arXiv 2106.14881).
    """

    def __init__(self, in_channels: int, channels: int, halvings: int) -> None:
        super().__init__()
        widths = [in_channels] + [max(1, channels >> (halvings - n)) for n in range(1, halvings + 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=LAYER_NORM_EPS) for width in widths[1:])

    def forward(self, images: Tensor) -> Tensor:
        """`B x in_channels x height x width` pixels to `B x H x W x C` tokens."""
        x = images.permute(0, 2, 3, 1)  # B x height x width x in_channels
        for n, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if n:
                x = F.gelu(x)
            x = norm(conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # B x H x W x C, half the side
        return x


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


def init_weights(model: nn.Module, init: Init, head: nn.Linear) -> None:
    """Initialise every layer of `model` in place; `head` is the linear layer that gives the logits.

    Both: LayerNorm 1 and 0; LSTM weights and biases uniform in +-1/sqrt(hidden).

    - "he": normal with variance 2/fan_in for linear layers and convolutions (He et al. 2015), biases 0. The head,
      behind which there is no rectifier, has 1/fan_in.
    - "paper": what the paper's code does. Xavier uniform for linear layers, LeCun normal for convolutions, biases
      0 but those of an MLP, which are normal with deviation 1e-6; the head is 0, so the first logits are too.
    """
    mlp_linears = {id(layer) for mlp in model.modules() if isinstance(mlp, Mlp) for layer in (mlp.fc1, mlp.fc2)}
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            bound = 1.0 / math.sqrt(module.hidden_size)
            for weight in module.parameters():
                nn.init.uniform_(weight, -bound, bound)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            assert module.bias is not None
            nn.init.zeros_(module.bias)
            if init == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is head else "relu")
            elif module is head:
                nn.init.zeros_(module.weight)
            elif isinstance(module, nn.Conv2d):
                _lecun_normal_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight)
                if id(module) in mlp_linears:
                    nn.init.normal_(module.bias, std=1e-6)


def _lecun_normal_(weight: Tensor) -> None:
    """Truncated normal with variance 1/fan_in (`weight` is out x in x kernel x kernel)."""
    # cutting a normal at two deviations leaves 0.8796 of its deviation
    std = 1.0 / math.sqrt(weight[0].numel()) / 0.87962566103423978
    with torch.no_grad():
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
