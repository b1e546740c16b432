"""From the tokens of an image to one vector: their mean, or a mean that is weighted by attention.

Shapes: B batch, C channels; tokens are `B x ... x C`, a grid or a sequence.
"""

from torch import Tensor, nn

from sequencer_models.model_spec import Pooling


class MeanPooling(nn.Module):
    """The mean of all tokens: adaptive average pooling to one."""

    def forward(self, x: Tensor) -> Tensor:
        """`B x ... x C` tokens to `B x C`."""
        return x.mean(dim=tuple(range(1, x.dim() - 1)))


class AttentionPooling(nn.Module):
    """Sequence pooling (Hassani et al. 2021, arXiv 2104.05704): the tokens' mean, weighted by a softmax of scores.

    The score of a token is one linear map of it; a bias would change no weight.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`B x ... x C` tokens to `B x C`."""
        x = x.flatten(1, -2)  # B x T x C
        weights = self.score(x).float().softmax(dim=1)  # B x T x 1, in float32 under autocast too
        pooled: Tensor = (x * weights).sum(dim=1)
        return pooled


def pooling_of(kind: Pooling, channels: int) -> nn.Module:
    """The pooling that an architecture names."""
    return AttentionPooling(channels) if kind == "attention" else MeanPooling()
