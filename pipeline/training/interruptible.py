"""Leaving in the middle of a step: asks before every layer of a model, forwards and backwards, whether to go on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.errors import InterruptedRunError, SeqpipeError
from pipeline.stop import StopToken


class StepDropped(BaseException):
    """Raised where a training was asked to leave; not an `Exception`, so that no handler of errors stops it.

    `reason` is a separate error, because the traceback of this one keeps the activations of the step alive.
    """

    def __init__(self, reason: SeqpipeError | InterruptedRunError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def drop_if_asked(stop_token: StopToken) -> None:
    """Raise `StepDropped` if there is a reason to stop."""
    if (reason := stop_token.reason()) is not None:
        raise StepDropped(reason)


@contextmanager
def asking_between_layers(model: nn.Module, ask: Callable[[], None]) -> Iterator[None]:
    """Within this, `ask` is called before each layer, and again when the backward pass has gone through it.

    It may raise. A layer is a module without children: smaller than a block, since a block can take a second. What
    activation checkpointing computes again asks too. The optimiser's step never does.
    """

    def before(_layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        ask()
        if inputs[0].requires_grad:
            inputs[0].register_hook(after_backward)

    def after_backward(_gradient: object) -> None:
        ask()

    layers = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    try:
        yield
    except StepDropped:
        _empty_queue_of_autograd()
        raise
    finally:
        for hook in hooks:
            hook.remove()


def _empty_queue_of_autograd() -> None:
    """A backward pass that an exception ended leaves tasks, and with them activations, until the next one runs."""
    torch.autograd.backward(torch.zeros((), requires_grad=True) * 1)
