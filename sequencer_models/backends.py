"""Which of several ways to compute the same thing the models take: the recurrences, and linear maps of tokens.

Process-wide, like torch's own `torch.backends`. All of them are exact; they differ in speed and in the last bits. The
plain ones are the default: importing or building a model never starts a compiler.
"""

from dataclasses import dataclass
from typing import Literal

Recurrence = Literal["eager", "native"]
"""eager: `nn.LSTM`. native: the C kernel of `lstm_kernel`, on CPU in float32 and under bfloat16 autocast."""
Linear = Literal["matmul", "convolution"]
"""matmul: `F.linear`, which a BLAS computes. convolution: a 1x1 convolution, on CPU, which oneDNN computes."""


@dataclass(frozen=True)
class Backends:
    """One choice of each."""

    recurrence: Recurrence = "eager"
    linear: Linear = "matmul"


_selected = Backends()


def select(backends: Backends) -> None:
    """Take these from the next forward pass on.

    Raises:
        KernelUnavailableError: `native` is asked for and the kernel cannot be had; nothing is changed.
    """
    global _selected
    if backends.recurrence == "native":
        from sequencer_models import lstm_kernel

        lstm_kernel.load()
    _selected = backends


def selected() -> Backends:
    """What the next forward pass takes."""
    return _selected
