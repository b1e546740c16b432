"""LSTMs over tokens: `nn.LSTM`, or the native kernel for several directions at once, which moves no token.

Shapes: B batch, H, W token rows and columns, T steps, M tokens in all, C channels of a token, D hidden size of one
direction, P lanes (a lane is one direction of one pass; see `lstm_kernel.Lane`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sequencer_models import kernel_build, kernels
from sequencer_models.capabilities import this_machine
from sequencer_models.linear import linear, linear_backward
from sequencer_models.lstm_kernel import Lane

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of one direction, as `nn.LSTM` has them: 4D x C, 4D x D, 4D, 4D."""


def uses_native(x: Tensor) -> bool:
    """Whether tokens like `x` go to the native kernel: it is selected, and has their device and type."""
    return (
        kernels.selected().lstm == "native"
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and _compute_type(x) is not None
    )


def native(x: Tensor, directions: Sequence[Weights], lanes: Sequence[Lane]) -> Tensor:
    """Run one LSTM direction per lane over tokens `... x C`: `... x P*D`, the lanes' features side by side.

    Computes what `nn.LSTM` does from initial states of 0. Under bfloat16 autocast, the projections, the kept gates
    and states and, if the processor multiplies it, the factors of recurrent products are bfloat16; sums, states and
    gate arithmetic are float32.
    """
    w_ih, w_hh, b_ih, b_hh = (torch.cat(kind) for kind in zip(*directions, strict=True))  # P*4D x (C, D, -, -)
    D = w_hh.shape[-1]
    flat = x.reshape(-1, x.shape[-1])  # M x C
    hidden: Tensor = _NativeLstm.apply(  # type: ignore[no-untyped-call]
        flat, w_ih, w_hh.view(-1, 4 * D, D), (b_ih + b_hh).view(-1, 4 * D), tuple(lanes)
    )
    return hidden.view(*x.shape[:-1], -1)


def eager(rnn: nn.LSTM, x: Tensor) -> Tensor:
    """`nn.LSTM` over sequences `B x T x C`: its outputs, `B x T x D` of each direction side by side.

    Under bfloat16 autocast it is computed in float32 if this processor has no bfloat16 LSTM, and then converted.
    """
    if not _needs_float32(x):
        outputs: Tensor = rnn(x)[0]
        return outputs
    with torch.autocast("cpu", enabled=False):
        outputs = rnn(x.float())[0]
    return outputs.to(torch.bfloat16)


def _needs_float32(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not this_machine().has_bf16_lstm
    )


def weights_of(rnn: nn.LSTM) -> list[Weights]:
    """The weights of every direction, layer by layer."""
    return [tuple(direction) for direction in rnn.all_weights]  # type: ignore[misc]


def column_lanes(B: int, H: int, W: int) -> list[Lane]:
    """Tokens `B x H x W`: down the columns, and up."""
    columns = {"outer": H * W, "inner_count": W, "inner": 1, "steps": H, "sequences": B * W}
    return [Lane(first=0, step=W, **columns), Lane(first=(H - 1) * W, step=-W, **columns)]


def row_lanes(B: int, H: int, W: int) -> list[Lane]:
    """Tokens `B x H x W`: along the rows, and back."""
    return sequence_lanes(B * H, W)


def sequence_lanes(B: int, T: int) -> list[Lane]:
    """Tokens `B x T`: forwards and backwards."""
    along = {"outer": T, "inner_count": 1, "inner": 0, "steps": T, "sequences": B}
    return [Lane(first=0, step=1, **along), Lane(first=T - 1, step=-1, **along)]


class _NativeLstm(torch.autograd.Function):
    """Projection of the inputs by one product for all lanes, then the kernel.

    The gates overwrite the projected inputs, and their gradients overwrite the gates: one buffer of 4 * P * D values
    per token for all three. So the backward pass can run only once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor, lanes: tuple[Lane, ...]) -> Tensor:
        ctx.input_types = [given.dtype for given in (x, w_ih, w_hh, bias)]
        dtype = _compute_type(x)
        x, w_ih = x.to(dtype).contiguous(), w_ih.to(dtype)
        w_hh, bias = w_hh.float().contiguous(), bias.float().contiguous()
        with torch.autocast("cpu", enabled=False):
            gates = linear(x, w_ih).contiguous()  # M x P*4D
        hidden = gates.new_empty(len(x), gates.shape[1] // 4)  # M x P*D
        cell = torch.empty_like(hidden) if any(ctx.needs_input_grad) else None
        kernel_build.load().forward(gates, w_hh, bias, hidden, cell, lanes)
        if cell is not None:
            ctx.save_for_backward(x, w_ih, w_hh, gates, cell, hidden)
            ctx.lanes = lanes
            ctx.ran_backward = False
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.ran_backward:
            raise RuntimeError("the native LSTM goes backwards once; run the forward pass again")
        ctx.ran_backward = True
        x, w_ih, w_hh, gates, cell, hidden = ctx.saved_tensors
        grad_hidden = grad_hidden.to(gates.dtype).contiguous()
        grad_w_hh, grad_bias = kernel_build.load().backward(gates, w_hh, hidden, cell, grad_hidden, ctx.lanes)
        with torch.autocast("cpu", enabled=False):
            grad_x, grad_w_ih = linear_backward(gates, x, w_ih, needs_grad_x=ctx.needs_input_grad[0])
        grads = (grad_x, grad_w_ih, grad_w_hh, grad_bias)
        given = zip(grads, ctx.input_types, strict=True)
        return *(None if grad is None else grad.to(dtype) for grad, dtype in given), None


def _compute_type(x: Tensor) -> torch.dtype | None:
    """The type of the projections: autocast's, else that of x; None if the kernel does not have it."""
    if not torch.is_autocast_enabled("cpu"):
        return x.dtype
    dtype = torch.get_autocast_dtype("cpu")
    return dtype if dtype in (torch.float32, torch.bfloat16) else None
