"""For tests of capped calls: their cap, whether a result is a kill at the cap, whether processes have ended."""

import contextlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from tuning.capped.run_capped import Capped

CAP_MB = 300
OVERSHOOT_MB = 64
linux = pytest.mark.skipif(sys.platform != "linux", reason="by means of Linux")


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether a process has ended, or does so soon; a zombie that nobody reaps has ended too."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return True
    return False


def all_gone(pids: Iterable[int], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    return all(is_gone(pid, max(deadline - time.monotonic(), 0.01)) for pid in pids)


def members(pids: Path) -> list[int]:
    """The processes that `hogs.with_family` wrote down."""
    return [int(line) for line in pids.read_text().split()]


def was_killed_at_the_cap(result: Capped[object]) -> bool:
    return (
        result.outcome == "memory_cap"
        and result.error is None
        and result.cap_mb < result.peak_mb <= result.cap_mb + OVERSHOOT_MB
    )
