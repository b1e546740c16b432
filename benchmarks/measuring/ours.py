"""The numerics that a user of this machine gets, and the process set up for a fair comparison with them."""

from typing import Literal

import torch

from measuring.settings import Setting
from pipeline.config.schema import ComputeConfig
from pipeline.training import allocator, resolve_numerics
from pipeline.training.numerics import Numerics
from sequencer_models.kernels import Kernels, LinearChoice, LstmChoice

Precision = Literal["fp32", "bf16"]


def precisions(setting: Setting) -> tuple[Precision, ...]:
    """Those that are worth measuring under a setting: without the processor's own arithmetic bf16 is no choice."""
    return ("fp32", "bf16") if setting.has_bf16 and resolve_numerics.has_native_bf16("cpu") else ("fp32",)


def set_up(setting: Setting) -> None:
    """Threads and allocator, for every side alike. The allocator's setting is ours; peers profit from it, too."""
    torch.set_num_threads(setting.threads or resolve_numerics.available_cores())
    allocator.keep_freed_memory()
    torch.manual_seed(0)


def numerics(precision: Literal["auto", "fp32", "bf16"], setting: Setting, batch_size: int = 128) -> Numerics:
    """What `seqpipe run` resolves here."""
    return resolve_numerics.resolve(
        ComputeConfig(device="cpu", precision=precision, threads=setting.threads), batch_size
    )


def kernels_of(numerics: Numerics) -> Kernels:
    """The kernels that numerics stand for."""
    lstm: LstmChoice = "eager" if numerics.kernel == "eager" else "native"
    linear: LinearChoice = numerics.linear
    return Kernels(lstm, linear)
