"""Writes checkpoints in the background of a training."""

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.training.checkpoint import FORMAT, Progress, remove, save_weights
from pipeline.workspace.durable_files import write_json

KEPT = 2


class CheckpointWriter:
    """Writes snapshots in a thread, so that the loop waits for a copy in memory and not for the disk.

    `before` runs ahead of each write (the journal's sync), `durable` after it with the journal offset that is now
    covered. An error of a write reaches the next `submit` or `close`. `kept` checkpoints stay on disk. `keeps_best`:
    whether it is to be given the best weights.
    """

    def __init__(
        self,
        folder: Path,
        before: Callable[[], None],
        durable: Callable[[int], None],
        durable_offset: int = 0,
        *,
        kept: int = KEPT,
        keeps_best: bool = True,
    ) -> None:
        self.keeps_best = keeps_best
        self._kept = kept
        self._folder = folder
        self._before = before
        self._durable = durable
        self._jobs: queue.Queue[tuple[dict[str, Tensor], dict[str, Tensor] | None, dict[str, Any]] | None]
        self._jobs = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self.durable_offset = durable_offset
        """How much of the journal the newest checkpoint on disk covers."""
        self._thread = threading.Thread(target=self._work, name="checkpoint-writer", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return self._jobs.unfinished_tasks > 0

    def submit(
        self,
        tensors: dict[str, Tensor],
        progress: Progress,
        numerics: Mapping[str, Any],
        journal_offset: int,
        best: dict[str, Tensor] | None = None,
    ) -> None:
        """Hand over a snapshot."""
        self._raise()
        described = {
            "format": FORMAT,
            "progress": asdict(progress),
            "numerics": dict(numerics),
            "journal_offset": journal_offset,
        }
        self._jobs.put((tensors, best, described))

    def wait(self) -> None:
        """Wait until what was handed over is on disk."""
        self._jobs.join()
        self._raise()

    def close(self) -> None:
        """Wait until everything is on disk, and end."""
        self._jobs.put(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if job is None:
                    return
                if self._error is None:
                    self._write(*job)
            except BaseException as error:  # handed to the loop, which is the one that can stop the training
                self._error = error
            finally:
                job = None  # else the snapshot would stay in memory until the next one is there
                self._jobs.task_done()

    def _write(self, tensors: dict[str, Tensor], best: dict[str, Tensor] | None, described: dict[str, Any]) -> None:
        progress = described["progress"]
        if best is not None:
            digest = save_weights(self._folder / "best.safetensors", best)
            summary = {"epoch": progress["best_epoch"], "validation_accuracy": progress["best_accuracy"]}
            write_json(self._folder / "best.json", summary | {"sha256": digest})
        path = self._folder / f"step-{progress['step']:08d}.safetensors"
        digest = save_weights(path, tensors)
        self._before()
        write_json(path.with_suffix(".json"), described | {"sha256": digest})
        self.durable_offset = described["journal_offset"]
        for old in sorted(self._folder.glob("step-*.json"), reverse=True)[self._kept :]:
            remove(old)
        self._durable(self.durable_offset)
