"""The most memory that a way to train holds, each in a process of its own."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from tuning.capped.run_capped import process_memory_mb

EVERY_S = 0.005


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """Filled at the end: `before_mb` and `peak_mb`, which this process alone holds, and `peak_resident_mb`."""
    found: dict[str, int] = {}
    process = psutil.Process()
    before, resident = process_memory_mb(process.pid), 0.0
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak, resident
        while not done.wait(EVERY_S):
            peak = max(peak, process_memory_mb(process.pid))
            resident = max(resident, process.memory_info().rss / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        found |= {"before_mb": round(before), "peak_mb": round(peak), "peak_resident_mb": round(resident)}


def of_child(arguments: Sequence[str]) -> Any:
    """What this script prints, as JSON, when it is run with these arguments."""
    command = [sys.executable, sys.argv[0], *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)
