"""Locks that the operating system releases when their holder dies.

A file beside each lock names the holder.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.workspace.durable_files import write_json, writing

WAIT_S = 0.5


@contextmanager
def exclusive(
    path: Path, on_wait: Callable[[str], None], *, what: str, while_waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold a lock; wait while another process holds it.

    `on_wait` gets one line that names the holder if there is one; `while_waiting` may raise to give up.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder.json")
    lock = FileLock(path)
    with writing(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(f"waiting for {what}: {_holder_text(holder)}")
            while not lock.is_locked:
                while_waiting()
                with suppress(Timeout):
                    lock.acquire(timeout=WAIT_S)
    try:
        write_json(holder, {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_held(path: Path) -> bool:
    """Whether another process (or this one) holds the lock now."""
    if not path.exists():
        return False
    try:
        with if_free(path) as free:
            return not free
    except OSError:  # read-only, so no process works there
        return False


@contextmanager
def if_free(path: Path, within_s: float = 0.0) -> Iterator[bool]:
    """Hold a lock if it is free, or becomes free within so long; yields whether it was.

    Who only asks whether it is held (`is_held`) holds it for a moment.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=within_s, poll_interval=0.02)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _holder_text(holder: Path) -> str:
    try:
        content = json.loads(holder.read_bytes())
        return f"held by process {content['pid']} since {content['since']}"
    except (OSError, ValueError, KeyError):
        return "held by another process"
