"""Linear maps of the channels of every token, as a matrix product or as a 1x1 convolution.

Shapes: M tokens in all, K channels in, N channels out.

On CPU torch sends float32 matrix products to the BLAS that it was built with and convolutions to oneDNN. Where the
BLAS does not use the processor's widest vectors the convolution is up to twice as fast, forward and backward
(`benchmarks/training_step.py`). `kernels.selected().linear` says which one is used.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequencer_models import kernels

FEWEST_TOKENS = 64
"""With fewer, the convolution is up to three times slower, because it first reorders the weights."""


class TokenLinear(nn.Linear):
    """`nn.Linear` (same parameters, same names) for tokens `... x K`."""

    def forward(self, x: Tensor) -> Tensor:
        """`... x K` to `... x N`."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`... x K` tokens times `weight` (N x K), plus `bias` (N): `... x N`."""
    if not _as_convolution(x):
        return F.linear(x, weight, bias)
    out = F.conv2d(_as_images(x), weight[:, :, None, None], bias)  # 16 x N x M/16 x 1
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def linear_backward(grad: Tensor, x: Tensor, weight: Tensor, needs_grad_x: bool) -> tuple[Tensor | None, Tensor]:
    """Gradients of `linear` without a bias, from `grad` (M x N): of `x` (M x K), where needed, and of `weight`."""
    if not _as_convolution(x):
        return grad @ weight if needs_grad_x else None, grad.t() @ x
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        _as_images(grad),
        _as_images(x),
        weight[:, :, None, None],
        None,  # no bias
        [1, 1],  # stride
        [0, 0],  # padding
        [1, 1],  # dilation
        False,  # not transposed
        [0, 0],  # output padding
        1,  # groups
        [needs_grad_x, True, False],
    )
    return grad_x.permute(0, 2, 3, 1).reshape(x.shape) if needs_grad_x else None, grad_weight.flatten(1)


def _as_convolution(x: Tensor) -> bool:
    tokens = x.numel() // x.shape[-1]
    return kernels.selected().linear == "convolution" and x.device.type == "cpu" and tokens >= FEWEST_TOKENS


def _as_images(x: Tensor) -> Tensor:
    """`... x K` to `16 x K x M/16 x 1`, channels last, without a copy where x is contiguous.

    16, because with a single thread torch leaves 1x1 convolutions of fewer images to the BLAS; 1 if 16 does not
    divide M.
    """
    images = 16 if (x.numel() // x.shape[-1]) % 16 == 0 else 1
    return x.reshape(images, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
