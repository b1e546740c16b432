"""Chooses the device, precision, threads and kernels that a config leaves open, by what this machine has."""

from typing import Literal

import psutil
import torch

from pipeline.config.schema import ComputeConfig
from pipeline.errors import MachineUnfitError
from pipeline.training import autotune
from pipeline.training.numerics import Device, Numerics, Precision
from sequencer_models.capabilities import this_machine
from tuning import machine


def resolve(compute: ComputeConfig, batch_size: int) -> Numerics:
    """The numerics of a training with this config on this machine.

    Raises:
        MachineUnfitError: the requested device or kernel is not available.
    """
    device = resolve_device(compute.device)
    threads = compute.threads or available_cores()
    precision = resolve_precision(compute.precision, device, threads)
    kernel = resolve_kernel(compute.kernel, device)
    library = this_machine().native_kernel[0] if kernel != "eager" else None
    return Numerics(
        device=device,
        precision=precision,
        threads=threads,
        kernel=kernel,
        linear=speeds(threads).linear(precision) if device == "cpu" else "matmul",
        micro_batch_size=min(compute.micro_batch_size or batch_size, batch_size),
        torch=torch.__version__,
        cpu=this_machine().processor,
        kernel_compiler=library.compiler if library else None,
        lstm_precision=lstm_precision(precision, kernel, device),
    )


def resolve_precision(requested: Literal["auto", "fp32", "bf16"], device: Device, threads: int) -> Precision:
    """`auto` is bf16 only if the hardware has its arithmetic and, on a CPU, was measured to be faster with it."""
    if requested != "auto":
        return requested
    if not has_native_bf16(device):
        return "fp32"
    return "bf16" if device != "cpu" or speeds(threads).bf16_is_faster else "fp32"


def lstm_precision(precision: Precision, kernel: str, device: Device) -> Precision:
    """fp32 for `nn.LSTM` on a processor that has none in bf16; the native kernel has both."""
    widens = device == "cpu" and precision == "bf16" and kernel == "eager" and not this_machine().has_bf16_lstm
    return "fp32" if widens else precision


def resolve_kernel(requested: Literal["auto", "native", "eager"], device: Device) -> str:
    """`native` and the digest of its library on a CPU for which it can be built; else `eager`."""
    if requested == "eager" or (requested == "auto" and device != "cpu"):
        return "eager"
    if device != "cpu":
        raise MachineUnfitError(f"compute.kernel=native is for the CPU, not for {device}; leave it at auto")
    library, why_not = this_machine().native_kernel
    if library is not None:
        return f"native {library.digest}"
    if requested == "native":
        raise MachineUnfitError(f"no native kernel here ({why_not}); leave compute.kernel at auto")
    return "eager"


def speeds(threads: int) -> autotune.Speeds:
    """How fast linear maps are on this CPU."""
    return autotune.speeds(this_machine().processor, threads, this_machine().has_bf16)


def has_native_bf16(device: Device) -> bool:
    """Whether the hardware has bf16 arithmetic that torch uses."""
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
    """The requested device; for `auto` the first of cuda, mps and cpu. Raises MachineUnfitError if it is missing."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested == "auto":
        return "cuda" if available["cuda"] else "mps" if available["mps"] else "cpu"
    if not available[requested]:
        here = ", ".join(name for name, is_there in available.items() if is_there)
        raise MachineUnfitError(f"no {requested} device here (there is: {here}); use --device auto")
    return requested
