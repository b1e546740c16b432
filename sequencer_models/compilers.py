"""C compilers, and how `lstm_kernel.c` is compiled: for the processor at hand, within what torch itself uses of it.

`ATEN_CPU_CAPABILITY` therefore limits both. Most laptops have no C compiler: the `ziglang` package is one in a wheel,
and is tried last.
"""

import contextlib
import importlib.util
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("lstm_kernel.c")
NAMES = ("gcc", "cc", "clang", "zig")
VARIABLE = "SEQPIPE_COMPILERS"
"""Names the compilers to try instead of these and of `CC`'s; an empty value means none."""
TIMEOUT_S = 120.0
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")


@dataclass(frozen=True)
class Compiler:
    """A compiler that is installed here."""

    name: str
    command: tuple[str, ...]
    is_zig: bool = False


def installed() -> list[Compiler]:
    """The compilers that are here, in the order in which to try them."""
    asked_for = os.environ.get(VARIABLE)
    names = [os.environ.get("CC", ""), *NAMES] if asked_for is None else asked_for.split()
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


def compile_kernel(compiler: Compiler, built: Path) -> None:
    """Compile, then link without the compiler's own OpenMP library: the one that torch has loaded is used.

    Raises:
        OSError, subprocess.SubprocessError: the compiler fails; see `in_a_line`.
    """
    made = built.with_suffix(".o")
    flags = [*FLAGS, *(_flags_for_zig() if compiler.is_zig else flags_for_processor())]
    shared = ["-shared"]
    if sys.platform == "darwin":
        flags += ["-fopenmp"] if compiler.is_zig else ["-Xclang", "-fopenmp"]
        shared = ["-dynamiclib", "-undefined", "dynamic_lookup"]
    elif compiler.is_zig:
        shared += ["-nostdlib"]  # the process has a C library; zig would first build its own start-up code, for 20 s
    # zig caches what it builds: beside the rest, so that it is removed with it
    caches = {name: str(built.parent) for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
    for arguments in ([*flags, "-c", str(SOURCE), "-o", str(made)], [*shared, str(made), "-o", str(built)]):
        _run([*compiler.command, *arguments], {**os.environ, **caches})


def _run(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run a command to its end; on a timeout or an interruption, end it with every process that it started."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environ,
        start_new_session=True,
    ) as compiler:
        try:
            _, printed = compiler.communicate(timeout=TIMEOUT_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(compiler.pid, signal.SIGKILL)
            raise
    if compiler.returncode:
        raise subprocess.CalledProcessError(compiler.returncode, command, stderr=printed)


def none_installed() -> str:
    """The message for a machine without a compiler."""
    if (asked_for := os.environ.get(VARIABLE)) is not None:
        return f"no C compiler here of those that {VARIABLE} names ({asked_for or 'none'})"
    return f"no C compiler here, of {', '.join(NAMES)}; `pip install ziglang` brings one"


def flags_for_processor() -> list[str]:
    """What gcc and clang need to use the vector instructions that torch uses."""
    capability = torch.backends.cpu.get_cpu_capability()
    if platform.machine() in ("x86_64", "AMD64"):
        limits = {"AVX2": ["-march=native", "-mno-avx512f"], "DEFAULT": [], "NO AVX": []}
        return limits.get(capability, ["-march=native"])
    return [] if sys.platform == "darwin" else ["-mcpu=native"]


def _flags_for_zig() -> list[str]:
    """The same for zig, which takes no `-mno-` beside `native`, and is native by default."""
    flags = ["-DSEQPIPE_ZIG", "-fno-sanitize=undefined"]
    if platform.machine() in ("x86_64", "AMD64"):
        limits = {"AVX2": "x86_64_v3", "DEFAULT": "x86_64", "NO AVX": "x86_64"}
        return [*flags, f"-march={limits.get(torch.backends.cpu.get_cpu_capability(), 'native')}"]
    return [*flags, "-mcpu=native"]


def processor() -> list[str]:
    """The features by which this processor differs from others."""
    return [platform.machine(), *(f"{name}={value}" for name, value in sorted(torch.cpu.get_capabilities().items()))]


def in_a_line(error: Exception) -> str:
    """Why a build failed: the compiler's first error."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"did not end within {error.timeout:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        return next((line for line in lines if "error" in line), lines[-1] if lines else str(error))
    return str(error)
