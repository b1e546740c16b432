"""The kernels that the models compute with: one for LSTMs, one for linear maps of tokens.

A choice of the whole process, like torch's own `torch.backends`. All of them are exact; they differ in speed and in
the last bits. The default needs no compiler, so importing or building a model never starts one.
"""

from dataclasses import dataclass
from typing import Literal

from sequencer_models import kernel_build

LstmChoice = Literal["eager", "native"]
"""eager: `nn.LSTM`. native: the C kernel of `lstm_kernel`, on CPU in float32 and under bfloat16 autocast."""
LinearChoice = Literal["matmul", "convolution"]
"""matmul: `F.linear`, which a BLAS computes. convolution: a 1x1 convolution, on CPU, which oneDNN computes."""


@dataclass(frozen=True)
class Kernels:
    """One choice of each."""

    lstm: LstmChoice = "eager"
    linear: LinearChoice = "matmul"


_selected = Kernels()


def select(kernels: Kernels) -> None:
    """Use these from the next forward pass on.

    Raises:
        KernelUnavailableError: `native` is asked for and cannot be built or loaded; nothing is changed.
    """
    global _selected
    if kernels.lstm == "native":
        kernel_build.load()
    _selected = kernels


def selected() -> Kernels:
    """What the next forward pass uses."""
    return _selected
