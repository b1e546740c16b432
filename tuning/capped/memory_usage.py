"""Memory usage of a process and of a process tree.

What counts is memory that only the tree holds. On Linux that is RssAnon + RssShmem + VmSwap of every process in the
tree; on macOS the physical footprint; elsewhere the unique set size if the system provides it, else the resident
size. So a mapped data file that trials share is not charged to each of them. Shared memory is charged to every
process that has touched it: a tree of two that share 100 MB holds 200.
"""

import ctypes
import sys
from pathlib import Path
from typing import NamedTuple

_CHARGED = ("RssAnon:", "RssShmem:", "VmSwap:")
_DATA = "VmData:"
_HIGHEST = "VmHWM:"
_MB_PER_KIB = 1024 / 1e6
_FOOTPRINT_AT = 16 + 7 * 8  # bytes into macOS' rusage_info_v0: a uuid and seven 64-bit counters come first


class Usage(NamedTuple):
    """Memory usage of one process, in MB (10^6 bytes).

    `charged_mb` counts against a cap. `data_mb` is its private writable address space, touched or not, which
    RLIMIT_DATA limits; `highest_mb` is its peak resident size, mapped files included. Both are 0 without /proc.
    """

    charged_mb: float
    data_mb: float
    highest_mb: float


_NOTHING = Usage(0.0, 0.0, 0.0)


def process_usage(pid: int, proc: Path = Path("/proc")) -> Usage:
    """Memory usage of one process; zero if it is gone or may not be inspected."""
    try:
        status = (proc / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if proc.is_dir():
            return _NOTHING
        return Usage(_portable_memory_mb(pid), 0.0, 0.0)
    except (ProcessLookupError, PermissionError):
        return _NOTHING
    charged_kib = data_kib = highest_kib = 0
    for line in status.splitlines():
        if line.startswith(_CHARGED):
            charged_kib += int(line.split()[1])
        elif line.startswith(_DATA):
            data_kib = int(line.split()[1])
        elif line.startswith(_HIGHEST):
            highest_kib = int(line.split()[1])
    return Usage(charged_kib * _MB_PER_KIB, data_kib * _MB_PER_KIB, highest_kib * _MB_PER_KIB)


def process_memory_mb(pid: int, proc: Path = Path("/proc")) -> float:
    """Memory that one process alone holds, in MB (10^6 bytes); 0 if it is gone."""
    return process_usage(pid, proc).charged_mb


def tree_memory_mb(pid: int, proc: Path = Path("/proc")) -> float:
    """Memory that a process and all of its descendants hold, in MB."""
    import psutil  # not at the top: the watchdog measures without it, and starts in half the time

    try:
        parent = psutil.Process(pid)
        members = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(process_memory_mb(member.pid, proc) for member in members)


def _portable_memory_mb(pid: int) -> float:
    import psutil

    if sys.platform == "darwin" and (footprint := _mac_footprint_mb(pid)) is not None:
        return footprint
    try:
        process = psutil.Process(pid)
        try:
            return float(process.memory_full_info().uss) / 1e6
        except (psutil.AccessDenied, AttributeError):
            return float(process.memory_info().rss) / 1e6
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def _mac_footprint_mb(pid: int) -> float | None:
    """What macOS' Activity Monitor calls memory; unlike the unique set size it needs no rights over the process."""
    try:
        library = ctypes.CDLL("/usr/lib/libproc.dylib")
        info = ctypes.create_string_buffer(256)
        if library.proc_pid_rusage(pid, 0, info):  # 0: rusage_info_v0
            return None
    except (OSError, AttributeError):
        return None
    return int.from_bytes(info.raw[_FOOTPRINT_AT : _FOOTPRINT_AT + 8], sys.byteorder) / 1e6
