"""Candidate: the four directions as one recurrence of plain torch operations, its backward pass written out.

Shapes: B batch, N tokens a side, S = B * N sequences a pass, C channels, D hidden size. In front of the features
stand the pass (columns, rows) and the direction. Features are the axis in front of the tokens, so that a gate of a
step is a block of long rows. This is what the models had before the native kernel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sequencer_models.bilstm2d import BiLSTM2D


def batched_eager(mixer: BiLSTM2D, x: Tensor) -> Tensor:
    """`B x N x N x C` in and out."""
    weights = [direction for rnn in (mixer.rnn_v, mixer.rnn_h) for direction in rnn.all_weights]
    w_ih, w_hh, b_ih, b_hh = (torch.stack(kind) for kind in zip(*weights, strict=True))
    D, C = w_hh.shape[-1], w_ih.shape[-1]
    hidden: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
        x, w_ih.view(2, 8 * D, C), w_hh.view(2, 2, 4 * D, D), (b_ih + b_hh).view(2, 8 * D)
    )
    B, N = x.shape[:2]
    weight = torch.stack(mixer.fc.weight.chunk(2, dim=1))  # 2 x C x 2D
    mixed = torch.bmm(hidden.transpose(1, 2), weight.transpose(1, 2))  # 2 x N*S x C
    return _sum_passes(mixed, B, N) + mixer.fc.bias


class _Recurrence(torch.autograd.Function):
    """Tokens to hidden states, 2 x 2D x N*S. Products have autocast's type, states and gate arithmetic float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> Tensor:
        ctx.types = [given.dtype for given in (x, w_ih, w_hh, bias)]
        wide = x.dtype
        narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else wide
        x, w_ih, w_hh, bias = (given.to(narrow) for given in (x, w_ih, w_hh, bias))
        (B, N), D = x.shape[:2], w_hh.shape[-1]
        S = B * N
        with torch.autocast("cpu", enabled=False):
            gates = torch.baddbmm(bias[..., None], w_ih, _by_step(x).transpose(1, 2)).view(2, 2, 4 * D, N, S)
            hidden = gates.new_empty(2, 2, D, N, S)
            cell = gates.new_empty(2, 2, D, N, S, dtype=wide)
            step_gates, tanh_cell = (gates.new_empty(2, size * D, S, dtype=wide) for size in (4, 1))
            for step, direction, t, before, _ in _schedule(N):
                g = gates[:, direction, :, t]  # 2 x 4D x S
                if step > 0:
                    g.baddbmm_(w_hh[:, direction], hidden[:, direction, :, before])
                g[:, : 2 * D].sigmoid_()
                g[:, 2 * D : 3 * D].tanh_()
                g[:, 3 * D :].sigmoid_()
                i, f, candidate, o = (g if narrow == wide else step_gates.copy_(g)).chunk(4, dim=1)
                c = cell[:, direction, :, t]
                torch.mul(i, candidate, out=c)
                if step > 0:
                    c.addcmul_(f, cell[:, direction, :, before])
                torch.tanh(c, out=tanh_cell)
                hidden[:, direction, :, t].copy_(tanh_cell.mul_(o))
        ctx.save_for_backward(x, w_ih, w_hh, gates, cell, hidden)
        return hidden.view(2, 2 * D, N * S)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, ...]:
        x, w_ih, w_hh, gates, cell, hidden = ctx.saved_tensors
        sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        wide = cell.dtype
        (B, N), D = x.shape[:2], w_hh.shape[-1]
        S = B * N
        with torch.autocast("cpu", enabled=False):
            grad_hidden = grad_out.to(gates.dtype).contiguous().view(2, 2, D, N, S).clone()
            grad_gates = torch.empty_like(gates)
            grad_cell = cell.new_zeros(2, 2, D, S)
            step_gates, step_grads = cell.new_empty(2, 4 * D, S), cell.new_empty(2, 4 * D, S)
            tanh_cell, through_tanh = cell.new_empty(2, D, S), cell.new_empty(2, D, S)
            for step, direction, t, before, after in reversed(_schedule(N)):
                dh = grad_hidden[:, direction, :, t]
                if step < N - 1:
                    dh.baddbmm_(w_hh[:, direction].transpose(1, 2), grad_gates[:, direction, :, after])
                dh = dh.to(wide)
                g = step_gates.copy_(gates[:, direction, :, t])
                i, f, candidate, o = g.chunk(4, dim=1)
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
                    df.zero_()
                torch.mul(dc, i, out=dcandidate)
                dc.mul_(f)
                sigmoid_backward(step_grads[:, : 2 * D], g[:, : 2 * D], grad_input=step_grads[:, : 2 * D])
                tanh_backward(dcandidate, candidate, grad_input=dcandidate)
                sigmoid_backward(do, o, grad_input=do)
                grad_gates[:, direction, :, t].copy_(step_grads)
            flat = grad_gates.view(2, 8 * D, N * S)
            grad_w_ih = torch.bmm(flat, _by_step(x))
            grad_x = _sum_passes(torch.bmm(flat.transpose(1, 2), w_ih), B, N)
            forwards = _over_steps(grad_gates[:, 0, :, 1:], hidden[:, 0, :, :-1])
            backwards = _over_steps(grad_gates[:, 1, :, :-1], hidden[:, 1, :, 1:])
            grad_w_hh = torch.stack([forwards, backwards], dim=1)
        grads = (grad_x, grad_w_ih, grad_w_hh, flat.sum(-1, dtype=wide))
        return tuple(grad.to(dtype) for grad, dtype in zip(grads, ctx.types, strict=True))


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


def _sum_passes(y: Tensor, B: int, N: int) -> Tensor:
    """`2 x N*S x C`, step by step, back to `B x N x N x C`, the two passes added."""
    y = y.reshape(2, N, B, N, -1)
    return y[0].permute(1, 0, 2, 3) + y[1].permute(1, 2, 0, 3)


def _over_steps(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a.flatten(2), b.flatten(2).transpose(1, 2))
