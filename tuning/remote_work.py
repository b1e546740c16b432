"""A remote call as its function sees it: a folder whose files come home from another node. No Ray here.

def function(work: RemoteWork) -> object:
    model = resume(work.folder) or build()
    while not model.is_done:
        model.train_one_epoch()
        model.save(work.folder)
        work.bring_home()
        work.send(model.figures)
        if work.stop_reason is not None:
            return "left"
    return model.figures

It runs in a capped process. Nothing that it sends or returns is unpickled before it is home.
"""

import os
import pickle
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.cluster.node_record import TrialOnNode
from tuning.trial import Began, PickledObjective

WORK = "work"
STOP = "stop"


@dataclass(frozen=True)
class Said:
    """A message on its way home; one that is `passing` may be left out once the next one is there."""

    body: bytes
    passing: bool = False


@dataclass(frozen=True)
class Fetched:
    """Of the files that the work reads so many bytes have come to its node."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class SnapshotReady:
    """Child to worker: this folder holds what is to be brought home, for the worker to send and delete."""

    folder: Path


class RemoteWork:
    """What a function that runs for another machine has there."""

    def __init__(
        self, scratch: Path, send: Callable[[object], None], shared_files: Path | None, cap_mb: float
    ) -> None:
        self.folder = scratch / WORK
        """Begins with the files from home. Files are replaced by others, or appended to, but not written over."""
        self.shared_files = shared_files
        """The folder on this node of the files that the work reads; None if there are none."""
        self.cap_mb = cap_mb
        """The memory that the work may hold."""
        self._scratch = scratch
        self._send = send
        self._asked = threading.Event()
        self._snapshots = 0

    def send(self, message: object, *, passing: bool = False) -> None:
        """Send home a message, any that can be pickled; a `passing` one says where the work stands."""
        self._send(Said(pickle.dumps(message), passing))

    def show(self, task: TrialOnNode) -> None:
        """Say where the work stands to whoever looks at the node, which stays awake meanwhile."""
        self._send(task)

    def bring_home(self) -> None:
        """Send home what the folder holds now: the files in it, but not those in folders below, nor hidden ones.

        There they take the place of those from before, the `.json` files last; what is gone here is deleted there.
        While it is under way the next call replaces the one that waits.
        """
        self._snapshots += 1
        snapshot = self._scratch / f"snapshot-{self._snapshots:06d}"
        snapshot.mkdir()
        for path in plain_files(self.folder):
            _link(path, snapshot / path.name)
        self._send(SnapshotReady(snapshot))

    @property
    def stop_reason(self) -> str | None:
        """Why the work is to leave, in the caller's word; it then brings home what it has, and returns."""
        return (self._scratch / STOP).read_text(encoding="utf-8") if self._asked.is_set() else None

    def ask_to_stop(self) -> None:
        """The watchdog asks, by a signal; why is written in a file."""
        self._asked.set()


def run_work(
    send: Callable[[object], None],
    packed: PickledObjective,
    scratch: Path,
    shared_files: Path | None,
    cap_mb: float,
) -> bytes:
    """Call the function; what it returns, pickled. Runs in the capped process."""
    work = RemoteWork(scratch, send, shared_files, cap_mb)
    signal.signal(signal.SIGTERM, lambda *_: work.ask_to_stop())
    send(Began(os.getpid()))
    value: Any = pickle.loads(packed.objective)(work)  # noqa: S301 - from the driver, by way of Ray
    return pickle.dumps(value)


def plain_files(folder: Path) -> list[Path]:
    """The files of a folder that are brought home, those that describe others last."""
    found = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: (path.suffix == ".json", path.name))


def _link(path: Path, to: Path) -> None:
    """A second name for a file, which stays when the first is given to another file; a copy where disks have none."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copy2(path, to)
