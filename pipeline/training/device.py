"""Device, precision, threads, kernels and micro-batch: resolved once per run, recorded, and used again on resume."""

import contextlib
import ctypes
import gc
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psutil
import torch

from pipeline.config.schema import ComputeConfig
from pipeline.errors import MachineUnfitError
from pipeline.training import autotune
from sequencer_models import backends
from sequencer_models.backends import Backends
from sequencer_models.capabilities import this_machine
from tuning import machine

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Numerics:
    """What decides the last bits of a training beside its config."""

    device: Device
    precision: Precision
    threads: int
    recurrence: str
    """"eager", or "native" and the digest of the kernel's library."""
    linear: backends.Linear
    micro_batch_size: int
    torch: str
    cpu: str
    kernel_compiler: str | None = None
    """What built the native kernel; None for eager, and where an older release wrote this."""
    lstm_precision: Precision | None = None
    """That of the LSTMs, which is fp32 in bf16 where the processor has no LSTM of that type; None as above."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context that forward passes run under."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def apply(self) -> None:
        """Set the process up for this: threads, kernels, and memory that is used again."""
        use(self.threads, self.recurrence, self.linear)
        if self.device == "cpu":
            keep_freed_memory()
        if self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True


def use(threads: int, recurrence: str, linear: backends.Linear) -> None:
    """Compute with these from now on; the plain recurrence in place of a kernel that is no longer to be had."""
    torch.set_num_threads(threads)
    native = recurrence != "eager" and this_machine().native_kernel[0] is not None
    backends.select(Backends("native" if native else "eager", linear))


def resolve(compute: ComputeConfig, batch_size: int) -> Numerics:
    """Decide what the config leaves open.

    Raises:
        MachineUnfitError: the device, or the kernel, that was asked for is not there.
    """
    device = resolve_device(compute.device)
    threads = compute.threads or available_cores()
    precision = resolve_precision(compute.precision, device, threads)
    recurrence = resolve_recurrence(compute.kernel, device)
    kernel = this_machine().native_kernel[0] if recurrence != "eager" else None
    return Numerics(
        device=device,
        precision=precision,
        threads=threads,
        recurrence=recurrence,
        linear=speeds(threads).linear(precision) if device == "cpu" else "matmul",
        micro_batch_size=min(compute.micro_batch_size or batch_size, batch_size),
        torch=torch.__version__,
        cpu=this_machine().processor,
        kernel_compiler=kernel.compiler if kernel else None,
        lstm_precision=lstm_precision(precision, recurrence, device),
    )


def resolve_precision(requested: Literal["auto", "fp32", "bf16"], device: Device, threads: int) -> Precision:
    """bf16 for `auto` only where the hardware has its arithmetic and, on a CPU, was measured to be faster with it."""
    if requested != "auto":
        return requested
    if not has_native_bf16(device):
        return "fp32"
    return "bf16" if device != "cpu" or speeds(threads).bf16_is_faster else "fp32"


def lstm_precision(precision: Precision, recurrence: str, device: Device) -> Precision:
    """fp32 for the `nn.LSTM` of a processor that has none in bf16; the native kernel takes both."""
    widens = device == "cpu" and precision == "bf16" and recurrence == "eager" and not this_machine().has_bf16_lstm
    return "fp32" if widens else precision


def resolve_recurrence(requested: Literal["auto", "native", "eager"], device: Device) -> str:
    """The native kernel on a CPU for which it can be built, under its digest; else eager."""
    if requested == "eager" or (requested == "auto" and device != "cpu"):
        return "eager"
    if device != "cpu":
        raise MachineUnfitError(f"compute.kernel=native is for the CPU, not for {device}; leave it at auto")
    kernel, why_not = this_machine().native_kernel
    if kernel is not None:
        return f"native {kernel.digest}"
    if requested == "native":
        raise MachineUnfitError(f"no native kernel here ({why_not}); leave compute.kernel at auto")
    return "eager"


def speeds(threads: int) -> autotune.Speeds:
    """How fast linear maps are on this CPU."""
    return autotune.speeds(this_machine().processor, threads, this_machine().has_bf16)


def has_native_bf16(device: Device) -> bool:
    """Whether bf16 arithmetic is done by the hardware and used by torch."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    return this_machine().has_bf16


def available_cores() -> int:
    """Physical cores that this process may use, at least 1."""
    physical = psutil.cpu_count(logical=False) or 1
    return min(physical, machine.this_machine().threads)


def resolve_device(requested: Literal["auto", "cpu", "cuda", "mps"]) -> Device:
    """The device that `auto` stands for: cuda, mps, cpu in turn. MachineUnfitError for one that is not there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested == "auto":
        return "cuda" if present["cuda"] else "mps" if present["mps"] else "cpu"
    if not present[requested]:
        here = ", ".join(name for name, is_there in present.items() if is_there)
        raise MachineUnfitError(f"no {requested} device here (there is: {here}); use --device auto")
    return requested


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step in place of giving it back and fetching zeroed pages again.

    A step allocates and frees the same sizes over and over. By default every large one of them costs its pages anew:
    60 thousand page faults a step of small, 8 % of its time.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    mallopt(trim_threshold, 2**30)
    if not mallopt(mmap_threshold, 2**30):
        mallopt(mmap_threshold, 32 * 2**20)  # the most that older releases take


def give_back_freed_memory() -> None:
    """Have glibc give back what was freed and kept: for the next stage of a command under a memory cap."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        gc.collect()
        trim(0)
