"""The fault tests' laptops of namespaces, for benchmarks: what they hold, when a trial makes its first step."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tuning.capped.memory_usage import process_memory_mb

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))  # before this script's folder
from cluster_of_laptops import Cluster, search, separate
from laptop import HOME, Laptop
from laptop_commands import Command
from product import SEQPIPE

__all__ = [
    "SEQPIPE", "Cluster", "Command", "beside_trials", "first_step_at", "search", "separate", "tells_first_step",
]  # fmt: skip
EVERY_S = 1.0
_TRIAL = ("tuning.capped.watchdog", "tuning.capped.child")
_TELL_FIRST_STEP = f"""
import sys, threading, time

def watch():
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = sys.modules.get("torch.optim.optimizer")
        if found is not None and hasattr(found, "register_optimizer_step_post_hook"):
            found.register_optimizer_step_post_hook(told)
            return
        time.sleep(0.01)

def told(*_):
    try:
        open("{HOME}/first-step", "x").write(str(time.time()))
    except FileExistsError:
        pass

if any("tuning.capped.child" in word for word in sys.orig_argv):
    threading.Thread(target=watch, daemon=True).start()
"""


@contextmanager
def beside_trials(*laptops: Laptop) -> Iterator[dict[str, float]]:
    """Filled at the end: the most MB that each laptop's processes held, those of trials aside."""
    most: dict[str, float] = {laptop.name: 0.0 for laptop in laptops}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_S):
            for laptop in laptops:
                held = sum(process_memory_mb(each.pid) for each in laptop.processes() if not _is_trial(each))
                most[laptop.name] = max(most[laptop.name], round(held))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def _is_trial(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any(part in " ".join(process.cmdline()) for part in _TRIAL)
    return True


def tells_first_step(laptop: Laptop) -> dict[str, str]:
    """The environment in which the first trial of a laptop writes down when it made its first step."""
    folder = laptop.path(f"{HOME}/first")
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_TELL_FIRST_STEP)
    return {"PYTHONPATH": f"{HOME}/first"}


def first_step_at(laptop: Laptop) -> float | None:
    """When that was, by the machine's clock; None before."""
    path = laptop.path(f"{HOME}/first-step")
    text = path.read_text() if path.exists() else ""
    return float(text) if text else None
