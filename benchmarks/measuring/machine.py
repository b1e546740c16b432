"""What a figure was measured on, as far as it can matter; no names of hosts or people."""

import os
import platform
from typing import Any

import psutil
import torch

from measuring.ours import precisions
from measuring.settings import Setting
from pipeline.training import resolve_numerics
from sequencer_models.capabilities import this_machine

FEATURES = ("avx2", "fma3", "avx512_f", "avx512_bf16", "amx_bf16")


def describe(setting: Setting) -> dict[str, Any]:
    """The machine, and how torch was set up on it. Load averages are added by who measures."""
    threads = setting.threads or resolve_numerics.available_cores()
    features = torch.cpu.get_capabilities()
    kernel, why_not = this_machine().native_kernel
    return {
        "processor": features.get("cpu_name", "unknown"),
        "has": [name for name in FEATURES if features.get(name)],
        "torch_uses": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": threads,
        "kernel": f"native {kernel.digest}, built by {kernel.compiler}" if kernel else f"eager ({why_not})",
        "linear": _linear(threads, setting),
        "allocator": "glibc keeps freed memory (allocator.keep_freed_memory), for every side of a comparison",
        "environment": {
            name: os.environ[name]
            for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
            if name in os.environ
        },
    }


def load_average() -> list[float]:
    """Runnable processes, averaged over the last 1, 5 and 15 minutes; includes the benchmark's own threads."""
    return [round(value, 2) for value in psutil.getloadavg()]


def _linear(threads: int, setting: Setting) -> dict[str, str]:
    speeds = resolve_numerics.speeds(threads)
    return {precision: speeds.linear(precision) for precision in precisions(setting)}
