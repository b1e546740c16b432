"""The vanilla BiLSTM: the image as one flat sequence, stacked BiLSTMs, a fully connected layer, a classifier.

The baseline that Sequencer2D is measured against: no convolution, no residual, no mixing in two dimensions.

Shapes: B batch, T steps, F features of a step, D hidden size of one direction.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from sequencer_models import recurrence
from sequencer_models.layers import LAYER_NORM_EPS, Init, init_weights

SequenceKind = Literal["rows", "patches"]


@dataclass(frozen=True)
class VanillaSpec:
    """What a vanilla BiLSTM is made of. Raises `ValueError`, with the fix in the message, where a field cannot be."""

    classes: int
    """Classes, so logits."""
    image_size: int = 32
    """Pixels per side."""
    in_channels: int = 3
    """Colour channels."""
    sequence: SequenceKind = "rows"
    """"rows": a step is a row of pixels (32 steps of 96 features). "patches": a step is a square patch, in reading
    order (64 steps of 48 at `patch_size` 4): twice the steps, so half the speed."""
    patch_size: int = 4
    """Pixels per side of a patch; only with sequence "patches"."""
    hidden: int = 128
    """Hidden size of each direction."""
    layers: int = 2
    """BiLSTMs on top of each other."""
    dropout: float = 0.0
    """Dropout between the BiLSTMs, and before the fully connected and the classifying layer."""
    init: Init = "he"
    """Initialisation, see `layers.init_weights`."""

    def __post_init__(self) -> None:
        for field in ("classes", "image_size", "in_channels", "patch_size", "hidden", "layers"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}: give at least 1")
        if self.sequence not in get_args(SequenceKind):
            raise ValueError(f"sequence is {self.sequence!r}: choose one of {', '.join(get_args(SequenceKind))}")
        if self.sequence == "patches" and self.image_size % self.patch_size:
            fits = [n for n in range(1, self.image_size + 1) if self.image_size % n == 0]
            raise ValueError(
                f"patch_size is {self.patch_size}, which does not divide the {self.image_size} pixels of a side: "
                f"choose from {fits}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}: give a rate from 0 up to, but not including, 1")
        if self.init not in get_args(Init):
            raise ValueError(f"init is {self.init!r}: choose one of {', '.join(get_args(Init))}")

    @property
    def features(self) -> int:
        """Features of one step."""
        if self.sequence == "rows":
            return self.in_channels * self.image_size
        return self.in_channels * self.patch_size**2


class VanillaBiLSTM(nn.Module):
    """`B x in_channels x image_size x image_size` normalised pixels to `B x classes` logits.

    The last BiLSTM's outputs are averaged over the steps: every step is then one layer away from the loss,
    where the two end states would see the middle of the image only through half of the steps.
    """

    def __init__(self, spec: VanillaSpec) -> None:
        super().__init__()
        self.spec = spec
        self.rnn = nn.LSTM(
            spec.features,
            spec.hidden,
            num_layers=spec.layers,
            batch_first=True,
            bidirectional=True,
            dropout=spec.dropout if spec.layers > 1 else 0.0,  # torch warns of dropout without a layer behind it
        )
        self.norm = nn.LayerNorm(2 * spec.hidden, eps=LAYER_NORM_EPS)
        self.fc = nn.Linear(2 * spec.hidden, 2 * spec.hidden)
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(2 * spec.hidden, spec.classes)
        init_weights(self, spec.init, self.head)

    def forward(self, images: Tensor) -> Tensor:
        """`B x in_channels x image_size x image_size` to `B x classes`."""
        steps = self.flatten(images)  # B x T x F
        x = self.recur(steps).mean(dim=1)  # B x T x 2D, then B x 2D
        x = F.gelu(self.fc(self.dropout(self.norm(x))))
        logits: Tensor = self.head(self.dropout(x))
        return logits

    def recur(self, steps: Tensor) -> Tensor:
        """The stacked BiLSTMs: `B x T x F` to `B x T x 2D`."""
        if not recurrence.is_native_for(steps):
            return recurrence.eager(self.rnn, steps)
        x, lanes = steps, recurrence.sequence_lanes(*steps.shape[:2])
        directions = recurrence.weights_of(self.rnn)
        for layer in range(self.spec.layers):
            if layer:
                x = F.dropout(x, self.spec.dropout, self.training)
            x = recurrence.lstm(x, directions[2 * layer : 2 * layer + 2], lanes)  # B x T x 2D
        return x

    def flatten(self, images: Tensor) -> Tensor:
        """`B x in_channels x image_size x image_size` to the sequence `B x T x F` that the spec asks for."""
        if self.spec.sequence == "rows":
            return images.permute(0, 2, 3, 1).flatten(2)  # B x height x width*in_channels
        patch = self.spec.patch_size
        patches = images.unfold(2, patch, patch).unfold(3, patch, patch)  # B x in_channels x H x W x patch x patch
        return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)  # B x H*W x patch*patch*in_channels
