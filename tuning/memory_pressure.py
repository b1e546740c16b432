"""How much memory this machine has free, and whether it is under pressure, as the operating system says.

Linux counts the time that processes wait for memory (`/proc/pressure/memory`, if the kernel was built with it) and
the pages that it swaps out (`/proc/vmstat`); macOS has a level of pressure: 1 is normal, 2 a warning, 4 critical.

https://docs.kernel.org/accounting/psi.html
"""

import contextlib
import ctypes
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuning import machine

WAITING = 0.1
"""Pressure: the share of the time since the last reading in which some process waited for memory."""
SWAPPED_OUT_MB_PER_S = 4.0
"""Pressure: how fast memory is swapped out. Less is the kernel putting aside what nobody uses."""
MAC_WARNING = 2


@dataclass(frozen=True)
class MemoryReading:
    """The machine's memory at one moment; within a control group with a limit, the group's."""

    total_mb: float
    available_mb: float
    pressure: bool = False
    """Processes wait for memory, or memory is being swapped out."""


class MemoryReader:
    """Reads the machine's memory again and again; pressure is judged by what has changed since the last reading."""

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._waited_s = self._swapped_mb = self._read_at = 0.0
        self._pressure()

    def __call__(self) -> MemoryReading:
        here = machine.this_machine(self._root)
        return MemoryReading(here.memory_bytes / 1e6, here.available_bytes / 1e6, self._pressure())

    def _pressure(self) -> bool:
        now, waited_s, swapped_mb = self._clock(), self._waited_total_s(), self._swapped_total_mb()
        seconds = max(now - self._read_at, 1e-3)
        waiting, swapping = (waited_s - self._waited_s) / seconds, (swapped_mb - self._swapped_mb) / seconds
        self._read_at, self._waited_s, self._swapped_mb = now, waited_s, swapped_mb
        return waiting >= WAITING or swapping >= SWAPPED_OUT_MB_PER_S or mac_pressure_level() >= MAC_WARNING

    def _waited_total_s(self) -> float:
        return self._number("proc/pressure/memory", r"^some .*total=(\d+)$") / 1e6

    def _swapped_total_mb(self) -> float:
        return self._number("proc/vmstat", r"^pswpout (\d+)$") * resource.getpagesize() / 1e6

    def _number(self, path: str, pattern: str) -> int:
        with contextlib.suppress(OSError):
            if found := re.search(pattern, (self._root / path).read_text(), re.MULTILINE):
                return int(found[1])
        return 0


def mac_pressure_level() -> int:
    """What macOS' `memory_pressure` reports; 0 elsewhere."""
    return _sysctl(b"kern.memorystatus_vm_pressure_level") if sys.platform == "darwin" else 0


def _sysctl(name: bytes) -> int:
    level = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(level))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(level), ctypes.byref(size), None, ctypes.c_size_t(0))
    return level.value
