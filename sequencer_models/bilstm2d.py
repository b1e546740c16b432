"""BiLSTM2D, the token mixer of Sequencer2D (Tatsunami and Taki 2022, arXiv 2205.01972, section 3.2).

Shapes: B batch, H, W token rows and columns, C channels, D hidden size of one direction.
In the batched path also: N tokens per side (H == W == N), S = B * N sequences of N steps each, and two leading
axes: the pass (0 down the columns, 1 along the rows) and the direction (0 forwards, 1 backwards).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
        self.fc = nn.Linear(4 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Mix `B x H x W x C` tokens; returns the same shape."""
        # Where the batched path wins was measured: training on a CPU under bfloat16 autocast. In float32 and in
        # inference oneDNN's LSTM is as fast or faster, and CUDA has cuDNN's.
        training_in_bf16 = (
            torch.is_grad_enabled()
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
        )
        if x.device.type == "cpu" and x.shape[1] == x.shape[2] and training_in_bf16:
            return self.forward_batched(x)
        return self.forward_reference(x)

    def forward_reference(self, x: Tensor) -> Tensor:
        """The mixer as the paper has it: `nn.LSTM` over columns and over rows."""
        B, H, W, C = x.shape
        columns = x.transpose(1, 2).reshape(B * W, H, C)  # columns as sequences
        rows = x.reshape(B * H, W, C)  # rows as sequences
        vertical = self.rnn_v(columns)[0].reshape(B, W, H, -1).transpose(1, 2)  # B x H x W x 2D
        horizontal = self.rnn_h(rows)[0].reshape(B, H, W, -1)  # B x H x W x 2D
        mixed: Tensor = self.fc(torch.cat([vertical, horizontal], dim=-1))  # B x H x W x 4D, then C
        return mixed

    def forward_batched(self, x: Tensor) -> Tensor:
        """The same function where H == W, as one recurrence over four directions: columns and rows, both ways."""
        weights = [direction for rnn in (self.rnn_v, self.rnn_h) for direction in rnn.all_weights]
        w_ih, w_hh, b_ih, b_hh = (torch.stack(kind) for kind in zip(*weights, strict=True))  # 4 x 4D x (C, D, -, -)
        D, C = w_hh.shape[-1], w_ih.shape[-1]
        w_ih = w_ih.view(2, 8 * D, C)
        w_hh = w_hh.view(2, 2, 4 * D, D)
        bias = (b_ih + b_hh).view(2, 8 * D)
        fc_weight = torch.stack(self.fc.weight.chunk(2, dim=1))  # 2 x C x 2D
        mixed: Tensor = _BatchedRecurrence.apply(x, w_ih, w_hh, bias, fc_weight, self.fc.bias)  # type: ignore[no-untyped-call]
        return mixed


class _BatchedRecurrence(torch.autograd.Function):
    """Projection, recurrence and `fc` of all four directions, with the backward pass written out.

    Features are the axis in front of the tokens, so a gate of a step is a block of long contiguous rows, and the
    recurrent product is added to the gates in place. Every weight gradient is one GEMM over all steps.

    Under CPU autocast the GEMMs, and the gates kept for the backward pass, have its type; cell state and gate
    arithmetic have float32. Without autocast everything has the type of `x`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor, fc_weight: Tensor, fc_bias: Tensor
    ) -> Tensor:
        ctx.input_dtypes = [given.dtype for given in (x, w_ih, w_hh, bias, fc_weight, fc_bias)]
        wide = x.dtype  # of the cell state
        narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else wide  # of the GEMMs
        if wide.itemsize < 4:
            wide = torch.float32
        x, w_ih, w_hh, bias, fc_weight, fc_bias = (
            given.to(narrow) for given in (x, w_ih, w_hh, bias, fc_weight, fc_bias)
        )
        B, N, _, _ = x.shape
        D, S = w_hh.shape[-1], B * N
        with torch.autocast("cpu", enabled=False):
            gates = torch.baddbmm(bias[..., None], w_ih, _by_step(x).transpose(1, 2))  # 2 x 8D x N*S
            gates = gates.view(2, 2, 4 * D, N, S)  # projected inputs, made into gates step by step
            hidden = gates.new_empty(2, 2, D, N, S)
            cell = gates.new_empty(2, 2, D, N, S, dtype=wide)
            step_gates = gates.new_empty(2, 4 * D, S, dtype=wide)
            tanh_cell = gates.new_empty(2, D, S, dtype=wide)
            for step, direction, t, before, _ in _schedule(N):
                g = gates[:, direction, :, t]  # 2 x 4D x S: input, forget, candidate, output
                if step > 0:
                    g.baddbmm_(w_hh[:, direction], hidden[:, direction, :, before])
                g[:, : 2 * D].sigmoid_()
                g[:, 2 * D : 3 * D].tanh_()
                g[:, 3 * D :].sigmoid_()
                i, f, candidate, o = (g if narrow == wide else step_gates.copy_(g)).chunk(4, dim=1)  # 2 x D x S each
                c = cell[:, direction, :, t]
                torch.mul(i, candidate, out=c)
                if step > 0:
                    c.addcmul_(f, cell[:, direction, :, before])
                torch.tanh(c, out=tanh_cell)
                hidden[:, direction, :, t].copy_(tanh_cell.mul_(o))
            mixed = torch.bmm(hidden.view(2, 2 * D, N * S).transpose(1, 2), fc_weight.transpose(1, 2))  # 2 x N*S x C
            out = _sum_passes(mixed, B, N).add_(fc_bias)  # B x N x N x C
        ctx.save_for_backward(x, w_ih, w_hh, fc_weight, gates, cell, hidden)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, ...]:
        x, w_ih, w_hh, fc_weight, gates, cell, hidden = ctx.saved_tensors
        sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        narrow, wide = gates.dtype, cell.dtype
        B, N, _, _ = x.shape
        D, S = w_hh.shape[-1], B * N
        with torch.autocast("cpu", enabled=False):
            grad_mixed = _by_step(grad_out.to(narrow))  # 2 x N*S x C
            grad_fc_weight = torch.bmm(
                grad_mixed.transpose(1, 2), hidden.view(2, 2 * D, N * S).transpose(1, 2)
            )  # 2 x C x 2D
            grad_fc_bias = grad_out.sum((0, 1, 2), dtype=wide)  # C
            grad_hidden = torch.bmm(fc_weight.transpose(1, 2), grad_mixed.transpose(1, 2))  # 2 x 2D x N*S
            grad_hidden = grad_hidden.view(2, 2, D, N, S)
            grad_gates = torch.empty_like(gates)  # 2 x 2 x 4D x N x S, before their sigmoid or tanh
            grad_cell = cell.new_zeros(2, 2, D, S)  # of the step at hand
            step_gates = cell.new_empty(2, 4 * D, S)
            step_grads = cell.new_empty(2, 4 * D, S)
            tanh_cell, through_tanh = cell.new_empty(2, D, S), cell.new_empty(2, D, S)
            for step, direction, t, before, after in reversed(_schedule(N)):
                dh = grad_hidden[:, direction, :, t]  # 2 x D x S
                if step < N - 1:
                    dh.baddbmm_(w_hh[:, direction].transpose(1, 2), grad_gates[:, direction, :, after])
                dh = dh.to(wide)
                g = step_gates.copy_(gates[:, direction, :, t])
                i, f, candidate, o = g.chunk(4, dim=1)  # 2 x D x S each
                di, df, dcandidate, do = step_grads.chunk(4, dim=1)
                dc = grad_cell[:, direction]
                torch.tanh(cell[:, direction, :, t], out=tanh_cell)
                torch.mul(dh, tanh_cell, out=do)
                torch.mul(dh, o, out=through_tanh)
                dc.add_(tanh_backward(through_tanh, tanh_cell, grad_input=through_tanh))
                torch.mul(dc, candidate, out=di)
                if step > 0:
                    torch.mul(dc, cell[:, direction, :, before], out=df)
                else:
                    df.zero_()  # nothing to forget yet
                torch.mul(dc, i, out=dcandidate)
                dc.mul_(f)  # what goes on to the step before
                sigmoid_backward(step_grads[:, : 2 * D], g[:, : 2 * D], grad_input=step_grads[:, : 2 * D])
                tanh_backward(dcandidate, candidate, grad_input=dcandidate)
                sigmoid_backward(do, o, grad_input=do)
                grad_gates[:, direction, :, t].copy_(step_grads)
            flat = grad_gates.view(2, 8 * D, N * S)
            grad_w_ih = torch.bmm(flat, _by_step(x))  # 2 x 8D x C
            grad_bias = flat.sum(-1, dtype=wide)  # 2 x 8D
            grad_x = _sum_passes(torch.bmm(flat.transpose(1, 2), w_ih), B, N)  # B x N x N x C
            forwards = _over_steps(grad_gates[:, 0, :, 1:], hidden[:, 0, :, :-1])  # a step meets the one before it
            backwards = _over_steps(grad_gates[:, 1, :, :-1], hidden[:, 1, :, 1:])
            grad_w_hh = torch.stack([forwards, backwards], dim=1)  # 2 x 2 x 4D x D
        grads = (grad_x, grad_w_ih, grad_w_hh, grad_bias, grad_fc_weight, grad_fc_bias)
        return tuple(grad.to(dtype) for grad, dtype in zip(grads, ctx.input_dtypes, strict=True))


def _schedule(side: int) -> list[tuple[int, int, int, int, int]]:
    """For each step and direction: step, direction, and the token that is read at it, before it and after it."""
    order = []
    for step in range(side):
        order.append((step, 0, step, step - 1, step + 1))
        order.append((step, 1, side - 1 - step, side - step, side - 2 - step))
    return order


def _by_step(x: Tensor) -> Tensor:
    """`B x N x N x C` to `2 x N*S x C`: the tokens step by step, for the columns and for the rows."""
    return torch.stack([x.permute(1, 0, 2, 3), x.permute(2, 0, 1, 3)]).view(2, -1, x.shape[-1])


def _sum_passes(y: Tensor, batch: int, side: int) -> Tensor:
    """`2 x N*S x C`, step by step, back to `B x N x N x C`, the two passes added."""
    y = y.view(2, side, batch, side, -1)  # step x image x the other side
    out = y.new_empty(batch, side, side, y.shape[-1])
    return torch.add(y[0].permute(1, 0, 2, 3), y[1].permute(1, 2, 0, 3), out=out)


def _over_steps(a: Tensor, b: Tensor) -> Tensor:
    """`2 x P x T x S` and `2 x Q x T x S` to `2 x P x Q`: the products summed over T steps and S sequences."""
    return torch.bmm(a.flatten(2), b.flatten(2).transpose(1, 2))
