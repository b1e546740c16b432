"""BiLSTM2D, the token mixer of Sequencer2D (Tatsunami and Taki 2022, arXiv 2205.01972, section 3.2).

Shapes: B batch, H, W token rows and columns, C channels, D hidden size of one direction.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sequencer_models import lstm
from sequencer_models.linear import TokenLinear


class BiLSTM2D(nn.Module):
    """Mix tokens with a bidirectional LSTM down every column and one along every row, then a linear layer.

    `B x H x W x C` in and out. Each token's `2 * hidden` vertical and `2 * hidden` horizontal features are
    concatenated and brought back to `channels` by `fc` (paper, section 3.2 and figure 2).

    `rnn_v` and `rnn_h` are plain `nn.LSTM` modules, so weights go to and from any other BiLSTM2D that holds its
    LSTMs under these names.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.rnn_v = nn.LSTM(channels, hidden, batch_first=True, bidirectional=True)
        self.rnn_h = nn.LSTM(channels, hidden, batch_first=True, bidirectional=True)
        self.fc = TokenLinear(4 * hidden, channels)
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
        columns = x.transpose(1, 2).reshape(B * W, H, C)  # columns as sequences
        rows = x.reshape(B * H, W, C)  # rows as sequences
        vertical = lstm.eager(self.rnn_v, columns).reshape(B, W, H, -1).transpose(1, 2)  # B x H x W x 2D
        horizontal = lstm.eager(self.rnn_h, rows).reshape(B, H, W, -1)  # B x H x W x 2D
        mixed: Tensor = self.fc(torch.cat([vertical, horizontal], dim=-1))  # B x H x W x 4D, then C
        return mixed

    def forward_native(self, x: Tensor) -> Tensor:
        """The same function as one call of the native kernel over four lanes: columns and rows, both ways."""
        B, H, W, _ = x.shape
        directions = [*lstm.weights_of(self.rnn_v), *lstm.weights_of(self.rnn_h)]
        hidden = lstm.native(x, directions, lstm.grid_lanes(B, H, W))  # B x H x W x 4D
        mixed: Tensor = self.fc(hidden)  # B x H x W x C
        return mixed
