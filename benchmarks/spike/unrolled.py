"""Candidate: the recurrence written plainly, step by step, for `torch.compile` to make one graph of.

Shapes: B batch, N tokens a side, C channels, D hidden size, 4 directions: down, up, along the rows, and back.
"""

import torch
from torch import Tensor

from sequencer_models.bilstm2d import BiLSTM2D


def unrolled(mixer: BiLSTM2D, x: Tensor) -> Tensor:
    """`B x N x N x C` in and out; dynamo takes no `nn.LSTM`, so the weights are gathered outside of the graph."""
    weights = [direction for rnn in (mixer.rnn_v, mixer.rnn_h) for direction in rnn.all_weights]
    w_ih, w_hh, b_ih, b_hh = zip(*weights, strict=True)
    bias = torch.cat(b_ih) + torch.cat(b_hh)
    return graph(x, torch.cat(w_ih), torch.stack(w_hh), bias, mixer.fc.weight, mixer.fc.bias)


# dynamic=False: the steps are unrolled, and inductor makes the fastest code for sizes that it knows
@torch.compile(fullgraph=True, dynamic=False)
def graph(x: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor, fc_weight: Tensor, fc_bias: Tensor) -> Tensor:
    """w_ih 16D x C, w_hh 4 x 4D x D, bias 16D."""
    (B, N), D = x.shape[:2], w_hh.shape[-1]
    recurrent = w_hh.transpose(1, 2)  # 4 x D x 4D
    gates = torch.nn.functional.linear(x, w_ih, bias).float()
    down, up, along, back = gates.chunk(4, dim=-1)  # B x N x N x 4D each
    hidden = x.new_zeros(4, B * N, D)
    cell = x.new_zeros(4, B * N, D)
    steps = []
    for t in range(N):
        last = N - 1 - t
        step = torch.stack([down[:, t], up[:, last], along[:, :, t], back[:, :, last]]).view(4, B * N, 4 * D)
        if t > 0:
            step = step + torch.bmm(hidden, recurrent)
        i, f, candidate, o = step.float().chunk(4, dim=-1)
        cell = f.sigmoid() * cell + i.sigmoid() * candidate.tanh()
        hidden = o.sigmoid() * cell.tanh()
        steps.append(hidden.view(4, B, N, D))
    there, again = steps, steps[::-1]
    vertical = [torch.stack([one[0] for one in there], 1), torch.stack([one[1] for one in again], 1)]
    horizontal = [torch.stack([one[2] for one in there], 2), torch.stack([one[3] for one in again], 2)]
    return torch.nn.functional.linear(torch.cat([*vertical, *horizontal], -1), fc_weight, fc_bias)
