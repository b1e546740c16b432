"""The arithmetic of a model, counted from the shapes of a forward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sequencer_models import kernels
from sequencer_models.kernels import Kernels


def multiply_adds(model: nn.Module, image: Tensor) -> int:
    """Multiply-adds of linear maps, convolutions and LSTMs in a forward pass over one image (1 x C x H x W).

    Each weight of a matrix counts once per place (token, step) that it is applied to. Gates, norms, GELUs, biases and
    the sums of a pooling are not counted, so that the result can be compared with the peak of matrix products. The
    model is left as it was, and no random number is drawn.
    """
    return sum(multiply_adds_by_layer(model, image).values())


def training_flops(model: nn.Module, image: Tensor) -> int:
    """Floating point operations of a training step per image: two per multiply-add, and three passes' worth of them.

    The backward pass has two products for each of the forward pass: the gradients of inputs and of weights. Weights
    that are not trained are those of a first layer, which need neither.
    """
    return 2 * sum(_products(model, image, lambda weight: 3 if weight.requires_grad else 1).values())


def multiply_adds_by_layer(model: nn.Module, image: Tensor) -> dict[nn.Module, int]:
    """The multiply-adds of each layer that has any."""
    return _products(model, image, lambda weight: 1)


@torch.no_grad()
def _products(model: nn.Module, image: Tensor, times: Callable[[Tensor], int]) -> dict[nn.Module, int]:
    """The multiply-adds of each layer in a forward pass, those of each weight so many times."""
    found: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if isinstance(module, nn.LSTM):
            places = x.numel() // x.shape[-1]
        else:
            assert isinstance(output, Tensor)
            places = output.numel() // (output.shape[-1] if isinstance(module, nn.Linear) else output.shape[1])
        products = sum(times(weight) * weight.numel() for weight in module.parameters() if weight.ndim >= 2)
        found[module] = found.get(module, 0) + places * products

    before, was_training = kernels.selected(), model.training
    kernels.select(Kernels())  # the native kernel does not call nn.LSTM, whose hook counts
    hooks = [
        module.register_forward_hook(count)
        for module in model.modules()
        if isinstance(module, nn.LSTM | nn.Linear | nn.Conv2d)
    ]
    try:
        model.eval()
        model(image)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
        kernels.select(before)
    return found
