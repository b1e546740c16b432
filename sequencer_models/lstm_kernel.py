"""The C kernel of LSTM recurrences (`lstm_kernel.c`): compiled at first use, checked, cached, and called.

It is built for the processor at hand, within the vector instructions that torch itself uses (so that
`ATEN_CPU_CAPABILITY` limits both), and shares torch's OpenMP threads. The library lies in the user's cache folder
under a name that depends on the source, the flags and the processor. Before it is put there it has to agree with
`nn.LSTM`, forward and backward, so a broken compiler is found out at once and not in a training.

Most laptops have no C compiler: the `ziglang` package is one in a wheel, and is tried last.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

SOURCE = Path(__file__).with_name("lstm_kernel.c")
COMPILERS = ("gcc", "cc", "clang", "zig")
COMPILERS_VARIABLE = "SEQPIPE_COMPILERS"
"""Names the compilers to try in place of these, and of `CC`'s; none at all where it is empty."""
COMPILE_TIMEOUT_S = 120
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Of the check: the largest difference from `nn.LSTM` in float64, relative to the largest value."""


class KernelUnavailableError(RuntimeError):
    """There is no kernel on this machine; the message says why."""


@dataclass(frozen=True)
class Compiler:
    """One that may be able to build the kernel."""

    name: str
    command: tuple[str, ...]
    is_zig: bool = False


@dataclass(frozen=True)
class Lane:
    """One direction of one pass: sequence `s` reads at step `t` the token
    `first + (s // inner_count) * outer + (s % inner_count) * inner + t * step`."""

    first: int
    outer: int
    inner_count: int
    inner: int
    step: int
    steps: int
    sequences: int


Lanes = ctypes.Array[ctypes.c_int64]


class LstmKernel:
    """The loaded library. M tokens, P lanes, D hidden size; see the C source for what is computed."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        self._forward = library.seqpipe_lstm_forward
        self._forward.argtypes = [pointer] * 6 + [integer] * 3
        self._backward = library.seqpipe_lstm_backward
        self._backward.argtypes = [pointer] * 8 + [integer] * 3
        self.threads = library.seqpipe_lstm_threads
        library.seqpipe_lstm_compiler.restype = ctypes.c_char_p
        self.compiler: str = library.seqpipe_lstm_compiler().decode(errors="replace")
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]

    def forward(
        self, gates: Tensor, w_hh: Tensor, bias: Tensor, hidden: Tensor, cell: Tensor | None, lanes: Sequence[Lane]
    ) -> None:
        """Fill `hidden` (M x P*D) from `gates` (M x P*4D: projected inputs without bias).

        With `cell` (M x P*D), which a backward pass needs, it is filled too, and `gates` hold the gates afterwards.
        `gates`, `hidden` and `cell` are contiguous and of one type, float32 or bfloat16; `w_hh` (P x 4D x D) and
        `bias` (P x 4D) are contiguous float32.
        """
        status = self._forward(
            gates.data_ptr(),
            w_hh.data_ptr(),
            bias.data_ptr(),
            hidden.data_ptr(),
            None if cell is None else cell.data_ptr(),
            _table(lanes),
            len(lanes),
            w_hh.shape[-1],
            gates.dtype == torch.bfloat16,
        )
        _check(status)

    def backward(
        self, gates: Tensor, w_hh: Tensor, hidden: Tensor, cell: Tensor, grad_hidden: Tensor, lanes: Sequence[Lane]
    ) -> tuple[Tensor, Tensor]:
        """Gradients of `w_hh` (P x 4D x D) and `bias` (P x 4D), float32.

        `gates` as `forward` left them become the gradient of the projected inputs. `grad_hidden` is of their type.
        """
        grad_w_hh = torch.empty_like(w_hh)
        grad_bias = w_hh.new_empty(w_hh.shape[:2])
        status = self._backward(
            gates.data_ptr(),
            w_hh.data_ptr(),
            hidden.data_ptr(),
            cell.data_ptr(),
            grad_hidden.data_ptr(),
            grad_w_hh.data_ptr(),
            grad_bias.data_ptr(),
            _table(lanes),
            len(lanes),
            w_hh.shape[-1],
            gates.dtype == torch.bfloat16,
        )
        _check(status)
        return grad_w_hh, grad_bias


@functools.cache
def load() -> LstmKernel:
    """The kernel, built and cached if this is its first use here (about 3 seconds).

    Raises:
        KernelUnavailableError: there is no compiler, or what it built does not load or does not compute an LSTM.
    """
    flags = (*FLAGS, *_flags_for_processor())
    asked_for = os.environ.get(COMPILERS_VARIABLE)
    parts = (SOURCE.read_text(), *flags, *_processor(), *([] if asked_for is None else [asked_for]))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    cached = cache_folder() / f"lstm-{key}{'.dylib' if sys.platform == 'darwin' else '.so'}"
    if cached.is_file():
        try:
            return LstmKernel(cached)
        except (OSError, AttributeError):  # damaged, or from a machine that shares the folder and not the libraries
            pass
    return _build(cached)


def cache_folder() -> Path:
    """Where built kernels are kept: `seqpipe` in the user's cache folder."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "seqpipe"
    try:
        return Path.home() / ".cache" / "seqpipe"
    except RuntimeError:  # a user without a home: a place that cannot be written, so nothing is kept
        return Path(os.devnull) / "seqpipe"


def _build(cached: Path) -> LstmKernel:
    if sys.platform == "win32":
        raise KernelUnavailableError("the kernel is not built on Windows; WSL2 has it")
    reasons = []
    for compiler in _compilers():
        with tempfile.TemporaryDirectory(prefix="seqpipe-kernel-") as folder:
            built = Path(folder) / cached.name
            try:
                _compile(compiler, built)
                kernel = LstmKernel(built)
                _compare_with_nn_lstm(kernel)
            except (OSError, AttributeError, subprocess.SubprocessError, KernelUnavailableError) as error:
                reasons.append(f"{compiler.name}: {_in_a_line(error)}")
                continue
            _keep(built, cached)
            return kernel
    raise KernelUnavailableError("; ".join(reasons) or _no_compiler())


def _no_compiler() -> str:
    if (asked_for := os.environ.get(COMPILERS_VARIABLE)) is not None:
        return f"no C compiler here of those that {COMPILERS_VARIABLE} names ({asked_for or 'none'})"
    return f"no C compiler here, of {', '.join(COMPILERS)}; `pip install ziglang` brings one"


def _compilers() -> list[Compiler]:
    """Those that are here, in the order in which they are tried."""
    asked_for = os.environ.get(COMPILERS_VARIABLE)
    names = [os.environ.get("CC", ""), *COMPILERS] if asked_for is None else asked_for.split()
    found = []
    for name in dict.fromkeys(filter(None, names)):
        if name == "zig":
            found += [Compiler("zig", (zig, "cc"), is_zig=True)] if (zig := _zig()) else []
        elif (command := shlex.split(name)) and shutil.which(command[0]):
            found.append(Compiler(name, tuple(command)))
    return found


def _zig() -> str | None:
    """The program of the `ziglang` package, else one that is installed otherwise."""
    spec = importlib.util.find_spec("ziglang")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).with_name("zig")
        if os.access(program, os.X_OK):
            return str(program)
    return shutil.which("zig")


def _compile(compiler: Compiler, built: Path) -> None:
    """Compile, then link without the compiler's own OpenMP library, so that torch's, which is loaded, is the one."""
    made = built.with_suffix(".o")
    flags = [*FLAGS, *(_flags_for_zig() if compiler.is_zig else _flags_for_processor())]
    shared = ["-shared"]
    if sys.platform == "darwin":
        flags += ["-fopenmp"] if compiler.is_zig else ["-Xclang", "-fopenmp"]
        shared = ["-dynamiclib", "-undefined", "dynamic_lookup"]
    elif compiler.is_zig:
        shared += ["-nostdlib"]  # the process has a C library; zig would first build its own start-up code, for 20 s
    # zig keeps what it builds, and wants a place for it: beside the rest, so that it goes with it
    caches = {name: str(built.parent) for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
    for arguments in ([*flags, "-c", str(SOURCE), "-o", str(made)], [*shared, str(made), "-o", str(built)]):
        subprocess.run(
            [*compiler.command, *arguments],
            env={**os.environ, **caches},
            check=True,
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
        )


def _keep(built: Path, cached: Path) -> None:
    """Move it into the cache in one step; without a cache that can be written, the next process builds again."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=cached.parent, prefix=f"{cached.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(built.read_bytes())
        Path(name).replace(cached)
    except OSError:
        pass


def _flags_for_processor() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    if platform.machine() in ("x86_64", "AMD64"):
        limits = {"AVX2": ["-march=native", "-mno-avx512f"], "DEFAULT": [], "NO AVX": []}
        return limits.get(capability, ["-march=native"])
    return [] if sys.platform == "darwin" else ["-mcpu=native"]


def _flags_for_zig() -> list[str]:
    """The same for zig, which takes no `-mno-` beside `native`, and is native where nothing is said."""
    flags = ["-DSEQPIPE_ZIG", "-fno-sanitize=undefined"]
    if platform.machine() in ("x86_64", "AMD64"):
        limits = {"AVX2": "x86_64_v3", "DEFAULT": "x86_64", "NO AVX": "x86_64"}
        return [*flags, f"-march={limits.get(torch.backends.cpu.get_cpu_capability(), 'native')}"]
    return [*flags, "-mcpu=native"]


def _processor() -> list[str]:
    return [platform.machine(), *(f"{name}={value}" for name, value in sorted(torch.cpu.get_capabilities().items()))]


def _compare_with_nn_lstm(kernel: LstmKernel) -> None:
    """Run both over a few sequences; KernelUnavailableError where they differ."""
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


def _table(lanes: Sequence[Lane]) -> Lanes:
    values = [
        value
        for lane in lanes
        for value in (lane.first, lane.outer, lane.inner_count, lane.inner, lane.step, lane.steps, lane.sequences)
    ]
    return (ctypes.c_int64 * len(values))(*values)


def _check(status: int) -> None:
    if status:
        raise MemoryError("not enough memory for the states of an LSTM")


def _in_a_line(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return next((line for line in lines if "error" in line), lines[-1] if lines else str(error))
    return str(error)
