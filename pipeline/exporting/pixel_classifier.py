"""A registered model as the one module that is exported: pixels in, probabilities out.

Shapes: N images of 32 x 32 pixels in 3 channels (RGB), K classes.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.inference.images import SIDE
from pipeline.inference.model_card import ModelCard
from sequencer_models import kernels
from sequencer_models.kernels import Kernels

EXAMPLE_IMAGES = 3
"""Of the batch that is traced: more than 1, which tracing would take for the size of every batch."""


class PixelClassifier(nn.Module):
    """`N x 32 x 32 x 3` pixels (uint8) to the probabilities `N x K` (float32) that `seqpipe predict` gives.

    Normalisation, softmax and, if the model was evaluated so, the mean over mirrored views are part of it: whoever
    has the file needs to know nothing else. The network is a frozen copy.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float()
        self.mirrored = card.mirrored
        self.register_buffer("shift", torch.tensor(card.mean).view(-1, 1, 1))
        self.register_buffer("scale", torch.tensor(card.std).view(-1, 1, 1).reciprocal())
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """As `sequencer_models.inference.probabilities`, but for both views as one batch.

        With the network twice in the graph, ONNX Runtime's quantiser would take the weights of an LSTM twice.
        """
        normalised = (pixels.permute(0, 3, 1, 2).float() - self.shift) * self.scale  # N x 3 x 32 x 32
        if not self.mirrored:
            return torch.softmax(self.network(normalised), dim=1)
        views = torch.cat([normalised, normalised.flip(3)])  # 2 N x 3 x 32 x 32
        found = torch.softmax(self.network(views), dim=1)
        return found.reshape(2, -1, found.shape[1]).mean(dim=0)


def example() -> Tensor:
    """A batch of made-up pixels, to trace a model with."""
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (EXAMPLE_IMAGES, SIDE, SIDE, 3), dtype=torch.uint8, generator=draws)


@contextmanager
def plain_operators() -> Iterator[None]:
    """Have models compute with `nn.LSTM` and `F.linear` inside the block, and without gradients.

    Exporters know these. Of the native kernel, an `autograd.Function`, they would keep what they saw it return.
    """
    before = kernels.selected()
    kernels.select(Kernels("eager", "matmul"))
    try:
        with torch.no_grad():
            yield
    finally:
        kernels.select(before)
