"""Which processes are below this one, whatever they do to get away.

On Linux none gets away: this process makes itself the one that orphans are given to ("subreaper"). Elsewhere a
process that loses its parent between two looks is lost.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

_PR_SET_CHILD_SUBREAPER = 36
_TRACKERS = (b"multiprocessing.resource_tracker", b"torch_shm_manager")


class Tree(Protocol):
    """The processes below this one."""

    def members(self) -> Iterable[int]:
        """Their ids, now."""


class LinuxTree:
    """The processes below this one, from /proc, at the price of one look at every process of the machine that is new.

    A process belongs by its parent when first seen, and for good: whoever loses its parent gets this process as its
    new one. (psutil's `children` reads the whole process table each time: 4 ms at 400 processes, 20 times a second.
    /proc/*/task/*/children would do, but not every kernel is built with it.)
    """

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._ours: set[int] = set()
        self._others: set[int] = {os.getpid()}

    def members(self) -> Iterable[int]:
        """Their ids, now; those that have ended and were not reaped by their parent are among them."""
        here = {int(name) for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208 - quick
        self._ours &= here
        self._others &= here
        parents = {pid: _parent(pid) for pid in here - self._ours - self._others}
        belonging = {os.getpid(), *self._ours}
        while found := {pid for pid, parent in parents.items() if parent in belonging}:
            belonging |= found
            parents = {pid: parent for pid, parent in parents.items() if pid not in found}
        self._ours = belonging - {os.getpid()}
        self._others |= parents.keys()
        return self._ours


class PortableTree:
    """The processes below this one, and those that once were: their parent may have ended without a word."""

    def __init__(self) -> None:
        import psutil

        self._me = psutil.Process()
        self._seen: set[psutil.Process] = set()

    def members(self) -> Iterable[int]:
        """Their ids, now."""
        self._seen.update(self._me.children(recursive=True))
        self._seen = {process for process in self._seen if process.is_running()}
        return [process.pid for process in self._seen]


def tree_below_this_process() -> Tree:
    """The tree, by the best means that the system has; from here on this process inherits orphans, where it can."""
    return LinuxTree() if Path("/proc/self/stat").exists() else PortableTree()


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[1])  # the name before it may hold anything


def is_tracker(pid: int) -> bool:
    """Whether a process keeps account of shared memory, and unlinks what is left of it when its users are gone."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(tracker in command for tracker in _TRACKERS)


def unlink_torch_memory(pids: set[int]) -> None:
    """Give back what dead processes held as tensors in shared memory.

    torch unlinks such a file at once after opening it, without a tracker: killed in between, it stays. Of a dozen
    processes that were killed while they did nothing else, one left one.
    """
    names = tuple(f"torch_{pid}_" for pid in pids)
    for path in Path("/dev/shm").glob("torch_*"):
        if path.name.startswith(names):
            path.unlink(missing_ok=True)
