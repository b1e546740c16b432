"""Autotuning: which kernel of linear maps, and which precision, is the fastest here; measured once per machine.

Times two linear maps of the sizes in the small model, forward and backward, in each precision and by each kernel. The
result is kept in the user's cache folder under a name that depends on the processor, torch and the number of threads.
A training records what it chose, so a later measurement does not change it.
"""

import contextlib
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pipeline.errors import WorkspaceError
from pipeline.workspace.durable_files import write_json
from sequencer_models import kernels
from sequencer_models.cache_folder import cache_folder
from sequencer_models.kernels import Kernels
from sequencer_models.linear import linear

SHAPES = ((8192, 192, 768), (2048, 1152, 384))
"""Tokens, channels in and out: a mixer's projection at level 1 of small, and half of an MLP at level 2."""
ROUNDS = 5
WORTH_IT = 0.95
"""A kernel or precision other than the plain one must take less than this share of its time."""


@dataclass(frozen=True)
class Speeds:
    """Milliseconds of the linear maps, forward and backward: the shortest of several rounds."""

    fp32_matmul_ms: float
    fp32_convolution_ms: float
    bf16_matmul_ms: float | None
    bf16_convolution_ms: float | None
    """Not timed without bf16 hardware: emulation is always slower."""

    def linear(self, precision: Literal["fp32", "bf16"]) -> kernels.LinearChoice:
        """The faster kernel of linear maps in a precision."""
        matmul, convolution = (getattr(self, f"{precision}_{kernel}_ms") for kernel in ("matmul", "convolution"))
        is_worth_it = convolution is not None and convolution < WORTH_IT * matmul
        return "convolution" if is_worth_it else "matmul"

    @property
    def bf16_is_faster(self) -> bool:
        """Whether bf16 is enough faster to be worth its fewer digits."""
        if self.bf16_matmul_ms is None or self.bf16_convolution_ms is None:
            return False
        fp32 = min(self.fp32_matmul_ms, self.fp32_convolution_ms)
        return min(self.bf16_matmul_ms, self.bf16_convolution_ms) < WORTH_IT * fp32


def speeds(cpu: str, threads: int, has_bf16: bool) -> Speeds:
    """Of this machine; measured now (about a second) if they are not in the cache."""
    path = _path(cpu, threads, has_bf16)
    try:
        return Speeds(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        found = measure(threads, has_bf16)
        with contextlib.suppress(OSError, WorkspaceError):  # without a cache, the next command measures again
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, asdict(found))
        return found


def measure(threads: int, has_bf16: bool) -> Speeds:
    """Measure now; torch's threads and the selected kernels stay as they were."""
    threads_before, kernels_before = torch.get_num_threads(), kernels.selected()
    candidates: list[tuple[kernels.LinearChoice, torch.dtype]] = [
        ("matmul", torch.float32),
        ("convolution", torch.float32),
    ]
    if has_bf16:
        candidates += [("matmul", torch.bfloat16), ("convolution", torch.bfloat16)]
    times: list[list[float]] = [[] for _ in candidates]
    try:
        torch.set_num_threads(threads)
        with torch.inference_mode(False), torch.enable_grad():
            draws = torch.Generator().manual_seed(0)
            maps = [(torch.randn(M, K, generator=draws), torch.randn(N, K, generator=draws)) for M, K, N in SHAPES]
            for _ in range(ROUNDS):
                for taken, (kernel, dtype) in zip(times, candidates, strict=True):
                    kernels.select(Kernels(linear=kernel))
                    taken.append(1000 * sum(_seconds(x.to(dtype), weight.to(dtype)) for x, weight in maps))
    finally:
        torch.set_num_threads(threads_before)
        kernels.select(kernels_before)
    shortest = [min(taken) for taken in times]
    return Speeds(*shortest, *[None] * (4 - len(shortest)))


def _seconds(x: Tensor, weight: Tensor) -> float:
    given, by = x.requires_grad_(), weight.requires_grad_()
    started = time.perf_counter()
    out = linear(given, by)
    torch.autograd.grad(out, (given, by), out.detach())
    return time.perf_counter() - started


def _path(cpu: str, threads: int, has_bf16: bool) -> Path:
    key = hashlib.sha256(
        "\0".join(map(str, (cpu, torch.__version__, threads, has_bf16, SHAPES))).encode()
    ).hexdigest()[:16]
    return cache_folder() / f"speeds-{key}.json"
