"""Control groups with less than the machine has, as in a container; only root can make them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")
MB = 1_000_000
_TAKER = """
import sys, time
from tuning.machine import this_machine
until_mb, step_mb = int(sys.argv[1]), 50
held = []
while this_machine().available_bytes / 1e6 > until_mb + step_mb:
    held.append(bytearray(b"x") * (step_mb * 1_000_000))
    time.sleep(0.05)
print("taken", flush=True)
sys.stdin.read()
"""


class Group:
    """A group with a limit, and one below it without, in which commands are run."""

    def __init__(self, name: str) -> None:
        self._has_one_tree = (ROOT / "cgroup.controllers").exists()
        trees = [ROOT] if self._has_one_tree else [ROOT / "memory", ROOT / "cpu"]
        if self._has_one_tree:
            (ROOT / "cgroup.subtree_control").write_text("+memory +cpu")
        self._outer = [tree / name for tree in trees]
        self._inner = [outer / "inner" for outer in self._outer]
        for inner in self._inner:
            inner.mkdir(parents=True)

    def limit(self, memory_mb: int, cores: float) -> None:
        memory, cpu = self._outer[0], self._outer[-1]
        if self._has_one_tree:
            (memory / "memory.max").write_text(str(memory_mb * MB))
            (cpu / "cpu.max").write_text(f"{cores * 100000:.0f} 100000")
        else:
            (memory / "memory.limit_in_bytes").write_text(str(memory_mb * MB))
            (cpu / "cpu.cfs_quota_us").write_text(f"{cores * 100000:.0f}")

    def enter(self) -> None:
        """In the child, before the command."""
        for inner in self._inner:
            (inner / "cgroup.procs").write_text(str(os.getpid()))

    @contextmanager
    def with_little_left(self, left_mb: int) -> Iterator[None]:
        """Within the context a program takes the group's memory, step by step, until about that much is left."""
        command = [sys.executable, "-c", _TAKER, str(left_mb)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=self.enter
        ) as taker:
            try:
                assert taker.stdout is not None
                assert taker.stdout.readline() == "taken\n"
                yield
            finally:
                taker.kill()

    def remove(self) -> None:
        for folder in [*self._inner, *self._outer]:
            until = time.monotonic() + 5
            while folder.exists() and time.monotonic() < until:  # busy until its last process is buried
                with suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.05)


@contextmanager
def control_group(memory_mb: int, cores: float) -> Iterator[Group]:
    """A group for the commands of one test, which is skipped where none can be made."""
    made = None
    try:
        made = Group(f"seqpipe-test-{os.getpid()}")
        made.limit(memory_mb, cores)
    except OSError as error:
        if made is not None:
            made.remove()
        pytest.skip(f"control groups cannot be made here: {error}")
    yield made
    made.remove()
