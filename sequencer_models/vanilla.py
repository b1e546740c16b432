"""The vanilla BiLSTM: the image as one flat sequence, stacked BiLSTMs, a fully connected layer, a classifier.

The baseline that Sequencer2D is measured against: no convolution, no residual, no mixing in two dimensions.

Shapes: B batch, T steps, F features of a step, D hidden size of one direction.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from sequencer_models import lstm
from sequencer_models.initialisation import init_weights
from sequencer_models.layers import LAYER_NORM_EPS
from sequencer_models.pooling import pooling_of
from sequencer_models.vanilla_spec import VanillaArchitecture


class VanillaBiLSTM(nn.Module):
    """`B x in_channels x image_size x image_size` normalised pixels to `B x classes` logits.

    The last BiLSTM's outputs are pooled over the steps: every step is then one layer away from the loss,
    where the two end states would see the middle of the image only through half of the steps.
    """

    def __init__(self, architecture: VanillaArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.rnn = nn.LSTM(
            architecture.features,
            architecture.hidden,
            num_layers=architecture.layers,
            batch_first=True,
            bidirectional=True,
            dropout=architecture.dropout
            if architecture.layers > 1
            else 0.0,  # torch warns of dropout without a layer behind it
        )
        self.between = nn.Dropout(architecture.dropout)  # the layers of `rnn`, where the native kernel runs them
        self.pooling = pooling_of(architecture.pooling, 2 * architecture.hidden)
        self.norm = nn.LayerNorm(2 * architecture.hidden, eps=LAYER_NORM_EPS)
        self.fc = nn.Linear(2 * architecture.hidden, 2 * architecture.hidden)
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(2 * architecture.hidden, architecture.classes)
        init_weights(
            self,
            self.head,
            architecture.init,
            recurrent_init=architecture.recurrent_init,
            forget_bias=architecture.forget_bias,
        )

    def forward(self, images: Tensor) -> Tensor:
        """`B x in_channels x image_size x image_size` to `B x classes`."""
        steps = self.flatten(images)  # B x T x F
        x = self.pooling(self.recur(steps))  # B x T x 2D, then B x 2D
        x = F.gelu(self.fc(self.dropout(self.norm(x))))
        logits: Tensor = self.head(self.dropout(x))
        return logits

    def recur(self, steps: Tensor) -> Tensor:
        """The stacked BiLSTMs: `B x T x F` to `B x T x 2D`."""
        if not lstm.uses_native(steps):
            return lstm.eager(self.rnn, steps)
        x, lanes = steps, lstm.sequence_lanes(*steps.shape[:2])
        directions = lstm.weights_of(self.rnn)
        for layer in range(self.architecture.layers):
            if layer:
                x = self.between(x)
            x = lstm.native(x, directions[2 * layer : 2 * layer + 2], lanes)  # B x T x 2D
        return x

    def flatten(self, images: Tensor) -> Tensor:
        """`B x in_channels x image_size x image_size` to the sequence `B x T x F` that the architecture asks for."""
        if self.architecture.sequence == "rows":
            return images.permute(0, 2, 3, 1).flatten(2)  # B x height x width*in_channels
        patch = self.architecture.patch_size
        patches = images.unfold(2, patch, patch).unfold(3, patch, patch)  # B x in_channels x H x W x patch x patch
        return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)  # B x H*W x patch*patch*in_channels
