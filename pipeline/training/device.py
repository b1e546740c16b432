"""Device, precision, threads and micro-batch: resolved once per run, recorded, and used again on resume."""

import contextlib
import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psutil
import torch

from pipeline.config import ComputeConfig
from pipeline.errors import MachineUnfitError

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Numerics:
    """What decides the last bits of a training beside its config."""

    device: Device
    precision: Precision
    threads: int
    micro_batch_size: int
    torch: str
    cpu: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context that forward passes run under."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def apply(self) -> None:
        """Set the process up for this: threads, and repeatable kernels."""
        torch.set_num_threads(self.threads)
        if self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True


def resolve(compute: ComputeConfig, batch_size: int) -> Numerics:
    """Decide what the config leaves open.

    Raises:
        MachineUnfitError: the device that was asked for is not there.
    """
    device = resolve_device(compute.device)
    return Numerics(
        device=device,
        precision=resolve_precision(compute.precision, device),
        threads=compute.threads or available_cores(),
        micro_batch_size=min(compute.micro_batch_size or batch_size, batch_size),
        torch=torch.__version__,
        cpu=cpu_name(),
    )


def resolve_precision(requested: Literal["auto", "fp32", "bf16"], device: Device) -> Precision:
    """bf16 for `auto` only where the processor multiplies bf16 by itself."""
    if requested != "auto":
        return requested
    return "bf16" if has_native_bf16(device) else "fp32"


def has_native_bf16(device: Device) -> bool:
    """Whether bf16 arithmetic is done by the hardware and used by torch."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


def available_cores() -> int:
    """Physical cores that this process may use, at least 1."""
    physical = psutil.cpu_count(logical=False) or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def cpu_name() -> str:
    """The processor and the vector instructions that torch uses on it."""
    name = torch.cpu.get_capabilities().get("cpu_name", "unknown processor")
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def resolve_device(requested: Literal["auto", "cpu", "cuda", "mps"]) -> Device:
    """The device that `auto` stands for: cuda, mps, cpu in turn. MachineUnfitError for one that is not there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested == "auto":
        return "cuda" if present["cuda"] else "mps" if present["mps"] else "cpu"
    if not present[requested]:
        here = ", ".join(name for name, is_there in present.items() if is_there)
        raise MachineUnfitError(f"no {requested} device here (there is: {here}); use --device auto")
    return requested
