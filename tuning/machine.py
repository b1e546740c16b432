"""Memory and cores that this process may use: the machine's, or less where Linux control groups limit it.

A container's limits are those of its control group and of every group above it; the smallest one counts. Both
versions of control groups are read (1 has a tree for each controller, 2 has one tree), also side by side, and also
where only a part of a tree is visible, as inside a container.

The files are described in https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/memory.html.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import psutil

Controller = Literal["memory", "cpu"]
_NO_LIMIT = 2**60
"""Version 1 writes "no limit" as a number close to 2^63."""


@dataclass(frozen=True)
class Machine:
    """What this process may use."""

    memory_bytes: int
    available_bytes: int
    cores: float
    """Logical processors; 0.5 if control groups grant half the time of one."""
    memory_limit_bytes: int | None = None
    """The control groups' limit, if it is less than the machine has."""
    core_limit: float | None = None

    @property
    def threads(self) -> int:
        """How many threads can be kept busy: a part of a core counts as one."""
        return max(1, math.ceil(self.cores))

    @property
    def limits(self) -> str | None:
        """A sentence about the control groups' limits; None if there are none."""
        parts = []
        if self.memory_limit_bytes is not None:
            parts.append(f"{self.memory_limit_bytes / 1e9:.3g} GB")
        if self.core_limit is not None:
            parts.append(f"{self.core_limit:.3g} {'core' if self.core_limit == 1 else 'cores'}")
        return f"limited to {' and '.join(parts)} by a control group" if parts else None


def this_machine(root: Path = Path("/")) -> Machine:
    """What this process may use now; `/proc` and the control groups are read below `root`."""
    memory, processors = psutil.virtual_memory(), _processors()
    budgets = [budget for group in _groups(root, "memory") for budget in group.memory()]
    limit = min((budget.limit for budget in budgets), default=_NO_LIMIT)
    left = min((max(0, budget.limit - budget.used) for budget in budgets), default=_NO_LIMIT)
    quota = min((group.cores() for group in _groups(root, "cpu")), default=math.inf)
    return Machine(
        memory_bytes=min(memory.total, limit),
        available_bytes=min(memory.available, left),
        cores=min(processors, quota),
        memory_limit_bytes=limit if limit < memory.total else None,
        core_limit=quota if quota < processors else None,
    )


def out_of_memory_kills(root: Path = Path("/")) -> int:
    """How many processes of this control group the kernel's out-of-memory killer has ended; 0 if unknown."""
    return sum(group.kills() for group in _groups(root, "memory"))


def _processors() -> int:
    """How many processors this process may run on; a group's `cpuset` narrows its affinity too."""
    affinity = getattr(os, "sched_getaffinity", None)
    return (len(affinity(0)) if affinity else os.cpu_count()) or 1


class _Budget(NamedTuple):
    """A limit on memory, and how much of it is used."""

    limit: int
    used: int


@dataclass(frozen=True)
class _Group:
    """A control group: one folder of a tree. A file that is missing or unreadable sets no limit."""

    folder: Path
    version: Literal[1, 2]

    def memory(self) -> Iterator[_Budget]:
        """Its memory limits. File pages that can be dropped at any time do not count as used, nor do half of those
        that were used twice: most of them are files that a program has read, the rest are its own code.
        """
        if self.version == 2:
            files = [("memory.max", "memory.current"), ("memory.high", "memory.current")]
            total = ""
        else:
            files = [(f"memory.{kind}limit_in_bytes", f"memory.{kind}usage_in_bytes") for kind in ("", "memsw.")]
            total = "total_"
            above = self._counter(
                "memory.stat", "hierarchical_memory_limit"
            )  # includes groups that are not visible here
            if 0 < above < _NO_LIMIT:
                yield _Budget(above, 0)
        inactive, active = (self._counter("memory.stat", f"{total}{kind}_file") for kind in ("inactive", "active"))
        droppable = inactive + active // 2
        for limit_file, used_file in files:
            limit = self._first_number(limit_file)
            if limit is not None and limit < _NO_LIMIT:
                yield _Budget(limit, max(0, (self._first_number(used_file) or 0) - droppable))

    def cores(self) -> float:
        """How many processors' time it may use."""
        if self.version == 2:
            words = self._read("cpu.max").split()  # "max 100000", or quota and period
        else:
            words = [*self._read("cpu.cfs_quota_us").split(), *self._read("cpu.cfs_period_us").split()]  # -1: none
        if len(words) != 2 or not all(word.isdecimal() for word in words) or "0" in words:
            return math.inf
        return int(words[0]) / int(words[1])

    def kills(self) -> int:
        """How many of its processes the out-of-memory killer has ended."""
        return self._counter("memory.events.local" if self.version == 2 else "memory.oom_control", "oom_kill")

    def _read(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / name).read_text()
        return ""

    def _first_number(self, name: str) -> int | None:
        text = self._read(name).strip()
        return int(text) if text.isdecimal() else None

    def _counter(self, name: str, key: str) -> int:
        found = re.search(rf"^{key} (\d+)$", self._read(name), re.MULTILINE)
        return int(found[1]) if found else 0


def _groups(root: Path, controller: Controller) -> Iterator[_Group]:
    """The visible groups that limit this process: its own and those above."""
    for mount in _mounts(root, controller):
        inside = mount.inside(_own_path(root, mount.version, controller))
        levels = [inside, *inside.parents] if inside is not None else [PurePosixPath()]
        for level in levels:
            yield _Group(mount.folder / level, mount.version)


class _Mount(NamedTuple):
    """Where a tree of groups is mounted, or the part of it below `top`."""

    folder: Path
    top: str
    version: Literal[1, 2]

    def inside(self, path: str | None) -> PurePosixPath | None:
        """A group's path below the folder; None if it is not visible there.

        Inside a container a group is often named by its path outside, while its own folder is what is mounted.
        """
        if path is None or ".." in PurePosixPath(path).parts:
            return None
        with contextlib.suppress(ValueError):
            below = PurePosixPath(path).relative_to(self.top)
            if (self.folder / below).is_dir():
                return below
        return None


def _mounts(root: Path, controller: Controller) -> list[_Mount]:
    found = []
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, (kind, *more) = left.split(), right.split() or [""]
        if len(fields) < 5:
            continue
        folder, top = root / _unescaped(fields[4]).lstrip("/"), _unescaped(fields[3])
        if kind == "cgroup2":
            found.append(_Mount(folder, top, 2))
        elif kind == "cgroup" and more and controller in more[-1].split(","):
            found.append(_Mount(folder, top, 1))
    return found


def _own_path(root: Path, version: int, controller: Controller) -> str | None:
    """This process' group in a tree; lines are `0::/path` (version 2) or `4:cpu,cpuacct:/path` (version 1)."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" and not controllers) if version == 2 else controller in controllers.split(","):
            return path
    return None


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(errors="surrogateescape").splitlines()
    return []


def _unescaped(word: str) -> str:
    """Undo the kernel's escapes in a path, such as `\\040` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)
