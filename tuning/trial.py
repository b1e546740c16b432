"""A trial as its objective sees it, in the trial's own process; no Ray here.

def objective(trial: Trial) -> None:
    model = resume(trial.folder) or build(trial.config)
    for epoch in range(model.epoch + 1, 13):
        accuracy = model.train_one_epoch()
        model.save(trial.folder)
        trial.report(epoch, accuracy)
        trial.checkpoint()
        trial.leave_if_asked()
"""

import json
import math
import os
import pickle
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from tuning.forecast import Forecast
from tuning.ledger import EpochReport
from tuning.space import Config

WORK = "work"
REPORTS = "reports.json"


class Diverged(Exception):  # noqa: N818 - an outcome, not an error
    """Raised by an objective whose figures are no longer finite."""


class Paused(BaseException):
    """Raised by `Trial.leave_if_asked`; not an `Exception`, so that an objective's own `except` does not catch it."""


class Objective(Protocol):
    """What a search optimises: a picklable, importable callable that trains a configuration and reports each epoch.

    It raises `Diverged` when its figures are no longer finite; any other exception makes the trial a failed one.
    """

    def __call__(self, trial: "Trial") -> None:
        """Train `trial.config`, resuming from the checkpoint in `trial.folder` if there is one."""


@dataclass(frozen=True)
class Began:
    """Child to trial worker: the objective is about to run in this process."""

    pid: int


@dataclass(frozen=True)
class Fitted:
    """Child to trial worker: how the trial is fitted to its cap."""

    forecast: Forecast


@dataclass(frozen=True)
class Described:
    """Child to trial worker: what the trial says of itself."""

    facts: Mapping[str, str]


@dataclass(frozen=True)
class Reported:
    """Child to trial worker: an epoch is done."""

    report: EpochReport


@dataclass(frozen=True)
class CheckpointReady:
    """Child to trial worker: this folder holds a complete checkpoint, for the worker to send and delete."""

    folder: Path


class Trial:
    """One configuration that is being trained."""

    def __init__(
        self,
        config: Config,
        scratch: Path,
        send: Callable[[Any], None],
        stop_asked: Callable[[], bool],
        shared_files: Path | None = None,
        memory_mb: float | None = None,
        halvings: int = 0,
    ) -> None:
        self.config: Mapping[str, Any] = config
        self.memory_mb = memory_mb
        """The memory to plan with: the cap, or less if this search's forecasts were too low; None without a cap."""
        self.halvings = halvings
        """How often the trial hit its cap: it is to hold half as much at once for each time."""
        self.shared_files = shared_files
        """The folder on this node of the files that every trial reads; None if the search has none."""
        self.folder = scratch / WORK
        self.folder.mkdir(exist_ok=True)
        self._scratch = scratch
        self._send = send
        self._stop_asked = stop_asked
        self._reports = {report.epoch: report for report in read_reports(scratch)}
        self._checkpoints = 0

    def fitted(self, forecast: Forecast) -> None:
        """Say how the trial is fitted to its cap; call it before the training, each time that it starts."""
        self._send(Fitted(forecast))

    def described(self, facts: Mapping[str, str]) -> None:
        """Say what the trial computes with on this node, in words, such as its precision; call it at each start."""
        self._send(Described(dict(facts)))

    def report(self, epoch: int, value: float, metrics: Mapping[str, float] | None = None) -> None:
        """Report an epoch (counted from 1); the trial's value is the best reported one.

        Call it before the checkpoint that covers the epoch. A value that is not finite raises `Diverged`.
        """
        if epoch < 1:
            raise ValueError(f"epochs are counted from 1, not {epoch}")
        report = EpochReport(epoch, float(value), {name: float(each) for name, each in (metrics or {}).items()})
        if not math.isfinite(report.value):
            raise Diverged(f"epoch {epoch} reached {value}")
        self._reports[epoch] = report
        self._send(Reported(report))

    def checkpoint(self) -> None:
        """Send `folder`, which holds all that is needed to resume, to where the search is kept.

        It is copied first, so the objective may change its files at once.
        """
        self._checkpoints += 1
        copy = self._scratch / f"checkpoint-{self._checkpoints:06d}"
        shutil.copytree(self.folder, copy / WORK)
        reports = [asdict(self._reports[epoch]) for epoch in sorted(self._reports)]
        (copy / REPORTS).write_text(json.dumps(reports), encoding="utf-8")
        self._send(CheckpointReady(copy))

    @property
    def stop_asked(self) -> bool:
        """Whether the search wants to leave: save, `checkpoint()`, then `leave_if_asked()`."""
        return self._stop_asked()

    def leave_if_asked(self) -> None:
        """Raise `Paused` when the search wants to leave; call it often, after a checkpoint."""
        if self._stop_asked():
            raise Paused


@dataclass(frozen=True)
class PickledObjective:
    """An objective and its warm-up, pickled for the trial's process."""

    objective: bytes
    warm_up: bytes
    path: tuple[str, ...]
    """The driver's `sys.path`, of which Ray gives its workers only a part."""

    @classmethod
    def of(
        cls, objective: "Objective | Callable[..., object]", warm_up: Callable[[], object] | None
    ) -> "PickledObjective":
        """Pickle them; raises `ValueError` where another process could not import them."""
        for thing in (objective, warm_up):
            if getattr(thing, "__module__", None) == "__main__":
                raise ValueError(f"{thing!r} is part of the started script; move it to a module that can be imported")
        try:
            return cls(pickle.dumps(objective), pickle.dumps(warm_up), tuple(entry for entry in sys.path if entry))
        except Exception as error:  # whatever the objective's own pickling raises
            raise ValueError(f"the objective cannot be sent to another process: {error}") from error


def warm_up_objective(packed: PickledObjective) -> None:
    """Import what the objective needs: runs in the trial's process, before its memory is limited."""
    sys.path.extend(entry for entry in packed.path if entry not in sys.path)
    pickle.loads(packed.objective)  # noqa: S301 - from the driver, by way of Ray
    warm_up = pickle.loads(packed.warm_up)  # noqa: S301
    if warm_up is not None:
        warm_up()


def run_objective(
    send: Callable[[object], None],
    packed: PickledObjective,
    config: Config,
    scratch: Path,
    shared_files: Path | None = None,
    memory_mb: float | None = None,
    halvings: int = 0,
) -> str:
    """Run the objective, and return how it ended: runs in the trial's process."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    trial = Trial(config, scratch, send, asked.is_set, shared_files, memory_mb, halvings)
    send(Began(os.getpid()))
    try:
        pickle.loads(packed.objective)(trial)  # noqa: S301
    except Diverged as error:
        return f"diverged: {error}"
    except Paused:
        return "paused"
    return "completed"


def read_reports(scratch: Path) -> list[EpochReport]:
    """The epochs reported up to the checkpoint in `scratch`; empty without one."""
    try:
        written = json.loads((scratch / REPORTS).read_bytes())
    except FileNotFoundError:
        return []
    return [EpochReport(**report) for report in written]
