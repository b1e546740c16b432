"""What a process tree holds in memory.

What counts is memory that only the tree holds. On Linux that is RssAnon + RssShmem + VmSwap of every process in the
tree; elsewhere psutil's unique set size where the system gives it (the physical footprint's nearest relative on
macOS), else the resident size. So a mapped data file that trials share is not charged to each of them.
"""

from pathlib import Path

import psutil

_CHARGED = ("RssAnon:", "RssShmem:", "VmSwap:")


def process_memory_mb(pid: int, proc: Path = Path("/proc")) -> float:
    """Memory that one process alone holds, in MB (10^6 bytes); 0 when it is gone."""
    try:
        status = (proc / str(pid) / "status").read_text()
    except FileNotFoundError:
        if proc.is_dir():
            return 0.0
        return _portable_memory_mb(pid)
    except (ProcessLookupError, PermissionError):
        return 0.0
    charged_kib = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(_CHARGED))
    return charged_kib * 1024 / 1e6


def tree_memory_mb(pid: int, proc: Path = Path("/proc")) -> float:
    """Memory that a process and all of its descendants hold, in MB."""
    try:
        parent = psutil.Process(pid)
        members = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(process_memory_mb(member.pid, proc) for member in members)


def _portable_memory_mb(pid: int) -> float:
    try:
        process = psutil.Process(pid)
        try:
            return float(process.memory_full_info().uss) / 1e6
        except (psutil.AccessDenied, AttributeError):
            return float(process.memory_info().rss) / 1e6
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
