"""Gets the LSTM kernel: from the cache, or built now, checked and put there.

The library is kept in the user's cache folder, under a name that depends on the source, the flags and the processor.
Before that, its results are compared with `nn.LSTM`, forward and backward, so that a broken compiler is found at once
and not in a training.
"""

import functools
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import torch
from torch import nn

from sequencer_models import compilers
from sequencer_models.cache_folder import cache_folder
from sequencer_models.lstm_kernel import Lane, LstmKernel

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Of the comparison: the largest difference from `nn.LSTM` in float64, relative to the largest value."""


class KernelUnavailableError(RuntimeError):
    """There is no kernel on this machine; the message says why."""


@functools.cache
def load() -> LstmKernel:
    """The kernel, built and cached if this is its first use here (about 3 seconds).

    Raises:
        KernelUnavailableError: there is no compiler, or what it built does not load or does not compute an LSTM.
    """
    flags = (*compilers.FLAGS, *compilers.flags_for_processor())
    asked_for = os.environ.get(compilers.VARIABLE)
    choice = [] if asked_for is None else [asked_for]
    parts = (compilers.SOURCE.read_text(encoding="utf-8"), *flags, *compilers.processor(), *choice)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    cached = cache_folder() / f"lstm-{key}{'.dylib' if sys.platform == 'darwin' else '.so'}"
    if cached.is_file() and _is_ours(cached) and _is_ours(cached.parent):
        try:
            return LstmKernel(cached)
        except (OSError, AttributeError):  # damaged, or from a machine that shares the folder and not the libraries
            pass
    return _build(cached)


def _is_ours(path: Path) -> bool:
    """Whether only this user (or root) can have written there: to load a library is to run it."""
    status = path.stat()
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & stat.S_IWOTH


def _build(cached: Path) -> LstmKernel:
    if sys.platform == "win32":
        raise KernelUnavailableError("the kernel is not built on Windows; WSL2 has it")
    reasons = []
    for compiler in compilers.installed():
        with _scratch(cached.parent) as folder:
            built = Path(folder) / cached.name
            try:
                compilers.compile_kernel(compiler, built)
                kernel = LstmKernel(built)
                _compare_with_nn_lstm(kernel)
            except (OSError, AttributeError, subprocess.SubprocessError, KernelUnavailableError) as error:
                reasons.append(f"{compiler.name}: {compilers.in_a_line(error)}")
                if isinstance(error, subprocess.TimeoutExpired):
                    break  # the others would take as long, and may be the same program
                continue
            _keep(built, cached)
            return kernel
    raise KernelUnavailableError("; ".join(reasons) or compilers.none_installed())


def _scratch(cache: Path) -> "tempfile.TemporaryDirectory[str]":
    """A folder to build in: in the cache, because a library in a /tmp mounted noexec cannot be loaded."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="building-", dir=cache if _is_ours(cache) else None)
    except OSError:
        return tempfile.TemporaryDirectory(prefix="building-")


def _keep(built: Path, cached: Path) -> None:
    """Move it into the cache in one step. If the cache cannot be written, the next process builds again."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        beside = cached.with_name(f"{cached.name}.{uuid.uuid4().hex}")  # its permissions follow the umask
        beside.write_bytes(built.read_bytes())
        beside.replace(cached)
    except OSError:
        pass


def _compare_with_nn_lstm(kernel: LstmKernel) -> None:
    """Raise KernelUnavailableError if the kernel and `nn.LSTM` differ over a few sequences."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    shares_threads = kernel.threads() == threads + 1
    torch.set_num_threads(threads)
    if not shares_threads:
        raise KernelUnavailableError("it does not share torch's OpenMP threads")
    B, T, C, D = 27, 3, 5, 18  # more sequences than a task holds, and units that fill no vector
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lstm = nn.LSTM(C, D, batch_first=True, bidirectional=True).double()
        x = torch.randn(B, T, C, dtype=torch.float64)
        grad_hidden = torch.randn(B, T, 2 * D, dtype=torch.float64)
    w_ih, w_hh, b_ih, b_hh = (torch.stack(kind) for kind in zip(*lstm.all_weights, strict=True))
    expected, _ = lstm(x)
    kinds = [direction[kind] for kind in (1, 3) for direction in lstm.all_weights]  # w_hh and b_hh, both directions
    grads = torch.autograd.grad(expected, kinds, grad_hidden)
    lanes = [Lane(0, T, 1, 0, 1, T, B), Lane(T - 1, T, 1, 0, -1, T, B)]
    recurrent, bias = w_hh.detach().float().contiguous(), (b_ih + b_hh).detach().float()
    for dtype, tolerance in TOLERANCE.items():
        gates = (x @ w_ih.detach().flatten(0, 1).t()).to(dtype).view(B * T, -1)
        hidden, cell = (torch.empty(B * T, 2 * D, dtype=dtype) for _ in range(2))
        kernel.forward(gates, recurrent, bias, hidden, cell, lanes)
        grad_w_hh, grad_bias = kernel.backward(
            gates, recurrent, hidden, cell, grad_hidden.to(dtype).view(B * T, -1), lanes
        )
        for ours, theirs in (
            (hidden, expected.detach().reshape(B * T, -1)),
            (grad_w_hh, torch.stack(grads[:2])),
            (grad_bias, torch.stack(grads[2:])),
        ):
            if not (ours - theirs).abs().max() <= tolerance * theirs.abs().max():
                raise KernelUnavailableError("what it computes is not an LSTM")
