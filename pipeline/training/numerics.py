"""What decides the last bits of a training beside its config."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from pipeline.config.schema import RunConfig
from pipeline.training.allocator import keep_freed_memory
from sequencer_models import kernels
from sequencer_models.capabilities import this_machine
from sequencer_models.kernels import Kernels, LinearChoice

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16"]
_ON_DISK = {"kernel": "recurrence"}
"""What a field is called in `numerics.json`, checkpoints and MLflow, where it is not called by its own name."""


@dataclass(frozen=True)
class Numerics:
    """Device, precision, threads, kernels and micro-batch: chosen once per training."""

    device: Device
    precision: Precision
    threads: int
    kernel: str
    """Of the LSTMs: "eager", or "native" and the digest of the kernel's library."""
    linear: LinearChoice
    micro_batch_size: int
    torch: str
    cpu: str
    kernel_compiler: str | None = None
    """What built the native kernel; None for eager, and if an older release wrote this."""
    lstm_precision: Precision | None = None
    """Of the LSTMs: fp32 in bf16 if the processor has no bf16 LSTM; None if an older release wrote this."""
    activation_checkpointing: bool | None = None
    """Whether it was chosen to stay within memory; a config that asks for it has it in any case."""
    halvings: int = 0
    """How often the images at once were halved since a trial had hit its cap."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, by their names on disk."""
        return {_ON_DISK.get(name, name): value for name, value in asdict(self).items()}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Numerics":
        """What `to_json` wrote; raises `TypeError` or `ValueError` for anything else."""
        own = {on_disk: name for name, on_disk in _ON_DISK.items()}
        return Numerics(**{own.get(name, name): value for name, value in dict(content).items()})

    def checkpoints_activations(self, config: RunConfig) -> bool:
        """Whether blocks are computed again in the backward pass."""
        return config.compute.recompute or bool(self.activation_checkpointing)

    def halved(self, times: int) -> "Numerics":
        """With the images at once halved until that was done so often."""
        images = -(-self.micro_batch_size // 2 ** max(0, times - self.halvings))
        return replace(self, micro_batch_size=images, halvings=max(times, self.halvings))

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of forward passes."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def apply(self) -> None:
        """Set up this process: threads, kernels and the allocator."""
        use(self.threads, self.kernel, self.linear)
        if self.device == "cpu":
            keep_freed_memory()
        if self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True


def use(threads: int, kernel: str, linear: LinearChoice) -> None:
    """Compute with these from now on; with the eager LSTM if the native kernel is no longer available."""
    torch.set_num_threads(threads)
    native = kernel != "eager" and this_machine().native_kernel[0] is not None
    kernels.select(Kernels("native" if native else "eager", linear))
