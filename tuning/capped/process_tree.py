"""The process tree below this process, orphans included.

On Linux no process escapes: this one makes itself the "subreaper", which becomes the parent of orphans. Elsewhere a
process that loses its parent between two calls of `members` is lost.
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
    """The processes below this one, from /proc; reads each new process of the machine once.

    Whether a process belongs is decided by its parent when first seen, for good: one that loses its parent gets this
    process as its new one. (psutil's `children` reads the whole process table each time: 4 ms at 400 processes, 20
    times a second. /proc/*/task/*/children would do, but not every kernel has it.)
    """

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._ours: set[int] = set()
        self._others: set[int] = {os.getpid()}

    def members(self) -> Iterable[int]:
        """Their ids, now, zombies included."""
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
    """The processes below this one, and those that once were: their parent may have ended."""

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
    """The tree, by the best means of this system; on Linux this process becomes the parent of orphans."""
    return LinuxTree() if Path("/proc/self/stat").exists() else PortableTree()


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[1])  # the name before it may contain anything


def is_tracker(pid: int) -> bool:
    """Whether a process tracks shared memory, and unlinks what is left of it after its users."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(tracker in command for tracker in _TRACKERS)


def unlink_torch_memory(pids: set[int]) -> None:
    """Free the shared memory that dead processes held as tensors.

    torch unlinks such a file right after opening it, without a tracker; if it is killed in between, the file stays.
    Of a dozen processes that were killed while they did nothing else, one left a file.
    """
    names = tuple(f"torch_{pid}_" for pid in pids)
    for path in Path("/dev/shm").glob("torch_*"):
        if path.name.startswith(names):
            path.unlink(missing_ok=True)
