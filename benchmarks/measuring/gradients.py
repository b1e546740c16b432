"""A forward and backward pass of a module, and how far its gradients are from another's."""

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from measuring.ours import Precision


def gradients(module: nn.Module, x: Tensor, grad_out: Tensor, precision: Precision = "fp32") -> dict[str, Tensor]:
    """Gradients of the input (`x`) and of every parameter, where `grad_out` reaches the output."""
    with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
        out = module(x)
    named = {"x": x, **dict(module.named_parameters())}
    found = torch.autograd.grad(out, list(named.values()), grad_out.to(out.dtype))
    return dict(zip(named, found, strict=True))


def reference_gradients(module: nn.Module, x: Tensor, grad_out: Tensor) -> dict[str, Tensor]:
    """The same in float64; leaves the module in float32."""
    wide = x.detach().double().requires_grad_()
    try:
        return gradients(module.double(), wide, grad_out)
    finally:
        module.float()


def largest_difference(found: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest over all tensors, each relative to the largest value of that tensor in `other`."""
    return max(
        ((found[name].double() - wanted.double()).abs().max() / wanted.double().abs().max()).item()
        for name, wanted in other.items()
    )
