"""Candidate: the gates of a step and their backward pass by numba, all products by torch.

Shapes: B batch, N tokens a side and steps, S = B * N sequences, C channels, D hidden size, 4 lanes: down, up, along
the rows, and back. Under autocast products are in bfloat16; numba has no such type, so gates and states are float32.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from sequencer_models.bilstm2d import BiLSTM2D

Floats = NDArray[np.float32]
LOG2_E, LN_2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)
C2, C3, C4, C5, C6 = (np.float32(value) for value in (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720))
ONE, TWO = np.float32(1), np.float32(2)
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """By numba, its `prange` on all threads."""
    return cast("Function", numba.njit(parallel=True, fastmath=True)(function))


def inlined(function: Function) -> Function:
    """By numba, into whatever calls it."""
    return cast("Function", numba.njit(fastmath=True, inline="always")(function))


@inlined
def exp(x: np.float32) -> Any:
    """e^x by a polynomial: without Intel's SVML, numba calls the C library for every single value of np.exp."""
    x = min(max(x, np.float32(-87)), np.float32(87))
    n = np.rint(x * LOG2_E)
    r = x - n * LN_2
    p = ONE + r * (ONE + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * C6)))))
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@inlined
def sigmoid(x: np.float32) -> Any:
    return ONE / (ONE + exp(-x))


@inlined
def tanh(x: np.float32) -> Any:
    return ONE - TWO / (ONE + exp(TWO * x))


@compiled
def gates_forward(gates: Floats, before: Floats, cell: Floats, hidden: Floats) -> None:
    """4 x S x 4D sums become gates; 4 x S x D cell states of the step before make those of this one."""
    lanes, S, D = cell.shape
    for row in numba.prange(lanes * S):
        g, c0, c, h = (gates[row // S, row % S], before[row // S, row % S], cell[row // S, row % S],
                       hidden[row // S, row % S])  # fmt: skip
        for d in range(D):
            i, f, n, o = sigmoid(g[d]), sigmoid(g[D + d]), tanh(g[2 * D + d]), sigmoid(g[3 * D + d])
            state = f * c0[d] + i * n
            g[d], g[D + d], g[2 * D + d], g[3 * D + d] = i, f, n, o
            c[d] = state
            h[d] = o * tanh(state)


@compiled
def gates_backward(gates: Floats, before: Floats, cell: Floats, grad_h: Floats, grad_c: Floats) -> None:
    """Gates become their gradients; grad_c that of the step before."""
    lanes, S, D = cell.shape
    for row in numba.prange(lanes * S):
        g, c0, c = gates[row // S, row % S], before[row // S, row % S], cell[row // S, row % S]
        dh, dc = grad_h[row // S, row % S], grad_c[row // S, row % S]
        for d in range(D):
            i, f, n, o = g[d], g[D + d], g[2 * D + d], g[3 * D + d]
            t = tanh(c[d])
            from_cell = dc[d] + dh[d] * o * (ONE - t * t)
            g[d] = from_cell * n * i * (ONE - i)
            g[D + d] = from_cell * c0[d] * f * (ONE - f)
            g[2 * D + d] = from_cell * i * (ONE - n * n)
            g[3 * D + d] = dh[d] * t * o * (ONE - o)
            dc[d] = from_cell * f


def numba_gates(mixer: BiLSTM2D, x: Tensor) -> Tensor:
    """`B x N x N x C` in and out."""
    weights = [direction for rnn in (mixer.rnn_v, mixer.rnn_h) for direction in rnn.all_weights]
    w_ih, w_hh, b_ih, b_hh = zip(*weights, strict=True)
    bias = torch.cat(b_ih) + torch.cat(b_hh)
    hidden: Tensor = _Recurrence.apply(x, torch.cat(w_ih), torch.stack(w_hh), bias)  # type: ignore[no-untyped-call]
    mixed: Tensor = mixer.fc(hidden)
    return mixed


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> Tensor:
        narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        x, w_ih, w_hh = (given.to(narrow) for given in (x, w_ih, w_hh))
        (B, N), D = x.shape[:2], w_hh.shape[-1]
        with torch.autocast("cpu", enabled=False):
            gates = _to_steps(F.linear(x, w_ih, bias.to(narrow)))  # 4 x N x S x 4D, float32
            hidden, cell = gates.new_empty(4, N, B * N, D), gates.new_empty(4, N, B * N, D)
            before = gates.new_zeros(4, B * N, D)
            for t in range(N):
                if t > 0:
                    _add_product(gates[:, t], hidden[:, t - 1], w_hh.transpose(1, 2))
                gates_forward(gates[:, t].numpy(), before.numpy(), cell[:, t].numpy(), hidden[:, t].numpy())
                before = cell[:, t]
        ctx.save_for_backward(x, w_ih, w_hh, gates, cell, hidden)
        return _to_tokens(hidden, B).to(narrow)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, ...]:
        x, w_ih, w_hh, gates, cell, hidden = ctx.saved_tensors
        (B, N), D = x.shape[:2], w_hh.shape[-1]
        with torch.autocast("cpu", enabled=False):
            grad_hidden = _to_steps(grad_out)  # 4 x N x S x D
            grad_cell = gates.new_zeros(4, B * N, D)
            zeros = gates.new_zeros(4, B * N, D)
            for t in reversed(range(N)):
                if t < N - 1:
                    _add_product(grad_hidden[:, t], gates[:, t + 1], w_hh)
                before = cell[:, t - 1] if t > 0 else zeros
                gates_backward(
                    gates[:, t].numpy(),
                    before.numpy(),
                    cell[:, t].numpy(),
                    grad_hidden[:, t].numpy(),
                    grad_cell.numpy(),
                )
            after, earlier = gates[:, 1:].flatten(1, 2), hidden[:, :-1].flatten(1, 2)
            grad_w_hh = torch.bmm(after.to(x.dtype).transpose(1, 2), earlier.to(x.dtype))
            grad_bias = gates.sum((1, 2)).flatten()
            flat = _to_tokens(gates, B).to(x.dtype).view(B * N * N, -1)
            grad_w_ih = flat.t() @ x.reshape(len(flat), -1)
            grad_x = (flat @ w_ih).view(x.shape)
        return grad_x.float(), grad_w_ih.float(), grad_w_hh.float(), grad_bias


def _add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """`into += a @ b`, the product in the type of b."""
    if b.dtype == into.dtype:
        into.baddbmm_(a, b)
    else:
        into.add_(torch.bmm(a.to(b.dtype), b))


def _to_steps(tokens: Tensor) -> Tensor:
    """`B x N x N x 4F` to `4 x N x S x F`, float32: each lane's steps in its own order."""
    down, up, along, back = tokens.chunk(4, dim=-1)
    by_row, by_column = (1, 0, 2, 3), (2, 0, 1, 3)
    lanes = [
        down.permute(by_row),
        up.flip(1).permute(by_row),
        along.permute(by_column),
        back.flip(2).permute(by_column),
    ]
    return torch.stack([lane.float() for lane in lanes]).flatten(2, 3)


def _to_tokens(steps: Tensor, B: int) -> Tensor:
    """The way back."""
    down, up, along, back = steps.reshape(*steps.shape[:2], B, -1, steps.shape[-1])  # N x B x N x F each
    by_row, by_column = (1, 0, 2, 3), (1, 2, 0, 3)
    lanes = [
        down.permute(by_row),
        up.flip(0).permute(by_row),
        along.permute(by_column),
        back.flip(0).permute(by_column),
    ]
    return torch.cat(lanes, dim=-1)
