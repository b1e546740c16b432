"""BiLSTM2D, the token mixer of Sequencer2D (Tatsunami and Taki 2022, arXiv 2205.01972, section 3.2).

Shapes: B batch, H, W token rows and columns, C channels, D hidden size of one direction.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sequencer_models import lstm
from sequencer_models.linear import TokenLinear
from sequencer_models.sequencer2d_spec import Mixing


class BiLSTM2D(nn.Module):
    """Mix tokens with a bidirectional LSTM down every column and one along every row, then a linear layer.

    `B x H x W x C` in and out. Each token's `2 * hidden` vertical and `2 * hidden` horizontal features are
    concatenated and brought back to `channels` by `fc` (paper, section 3.2 and figure 2). `mixing`: "columns" and
    "rows" have the one LSTM alone, as an ablation.

    `rnn_v` and `rnn_h` are plain `nn.LSTM` modules, so weights go to and from any other BiLSTM2D that holds its
    LSTMs under these names.
    """

    def __init__(self, channels: int, hidden: int, mixing: Mixing = "both") -> None:
        super().__init__()
        self.rnn_v = _bidirectional(channels, hidden) if mixing != "rows" else None
        self.rnn_h = _bidirectional(channels, hidden) if mixing != "columns" else None
        self.fc = TokenLinear((4 if mixing == "both" else 2) * hidden, channels)
        self.checkpoint_activations = True
        """Of the eager LSTMs on a CPU: only the input is kept for the backward pass. `nn.LSTM` would keep six times
        what the native kernel does, twice the memory of a whole training."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix `B x H x W x C` tokens; returns the same shape."""
        if lstm.uses_native(x):
            return self.forward_native(x)
        if self.checkpoint_activations and x.device.type == "cpu" and torch.is_grad_enabled():
            mixed: Tensor = checkpoint(self.forward_reference, x, use_reentrant=False, preserve_rng_state=False)
            return mixed
        return self.forward_reference(x)

    def forward_reference(self, x: Tensor) -> Tensor:
        """The mixer as the paper has it: `nn.LSTM` over columns and over rows."""
        B, H, W, C = x.shape
        features = []  # of each axis, B x H x W x 2D
        if self.rnn_v is not None:
            columns = x.transpose(1, 2).reshape(B * W, H, C)  # columns as sequences
            features.append(lstm.eager(self.rnn_v, columns).reshape(B, W, H, -1).transpose(1, 2))
        if self.rnn_h is not None:
            rows = x.reshape(B * H, W, C)  # rows as sequences
            features.append(lstm.eager(self.rnn_h, rows).reshape(B, H, W, -1))
        mixed: Tensor = self.fc(torch.cat(features, dim=-1))  # B x H x W x 4D (one axis: 2D), then C
        return mixed

    def forward_native(self, x: Tensor) -> Tensor:
        """The same function as one call of the native kernel over two lanes for each axis: both ways."""
        B, H, W, _ = x.shape
        directions, lanes = [], []
        if self.rnn_v is not None:
            directions += lstm.weights_of(self.rnn_v)
            lanes += lstm.column_lanes(B, H, W)
        if self.rnn_h is not None:
            directions += lstm.weights_of(self.rnn_h)
            lanes += lstm.row_lanes(B, H, W)
        hidden = lstm.native(x, directions, lanes)  # B x H x W x 4D (one axis: 2D)
        mixed: Tensor = self.fc(hidden)  # B x H x W x C
        return mixed


def _bidirectional(channels: int, hidden: int) -> nn.LSTM:
    return nn.LSTM(channels, hidden, batch_first=True, bidirectional=True)
