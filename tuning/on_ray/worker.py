"""The trial worker: runs one row in a capped child, and relays between that child and the search.

Contract: a trial *returns* how it ended. Only a lost process raises, and only then Ray starts the trial again.

The objective stays pickled here: a worker that unpickled it would hold everything that it imports a second time.
"""

import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import psutil
import ray

from tuning.capped.run_capped import CapTooLowError, process_memory_mb, run_capped
from tuning.ledger import Finish, Row
from tuning.on_ray import messages
from tuning.on_ray.attempt import Attempt
from tuning.on_ray.shared_files import SharedFiles
from tuning.sampler import Mode
from tuning.trial import (
    Began,
    CheckpointReady,
    Fitted,
    PickledObjective,
    Reported,
    read_reports,
    run_objective,
    warm_up_objective,
)
from tuning.trial_end import Progress, finish_of

_SCRATCH = "trial-"
_LEAVE_S = "120"
"""How long Ray waits for a stopped trial to free its worker, before it starts the next one there."""
ASK_S = 1.0
"""How often a trial asks whether to leave."""


@dataclass(frozen=True)
class Task:
    """The row that a trial worker is to run."""

    row: int
    config: Mapping[str, Any]
    known_epochs: int
    """The last epoch that the ledger has a report of."""
    memory_mb: float | None = None
    """The memory to plan with."""
    halvings: int = 0
    """How often the row hit its cap."""

    @classmethod
    def of(cls, row: Row, memory_mb: float) -> Self:
        """What is left to do of a row."""
        return cls(row.number, row.config, row.last_epoch, memory_mb, row.halvings)

    def to_ray(self) -> dict[str, Any]:
        """Ray's configuration of the trial; the row is in it by itself for the scheduler and the callbacks."""
        return {"row": self.row, "task": json.dumps(asdict(self))}

    @classmethod
    def from_ray(cls, config: Mapping[str, Any]) -> Self:
        """The task, from Ray's configuration of the trial."""
        return cls(**json.loads(config["task"]))


@dataclass(frozen=True)
class TrialSettings:
    """Settings that all trials of a search share."""

    mode: Mode
    cap_mb: int
    grace_s: float
    shared_files: SharedFiles
    drivers_node: str
    """Ray's id of the node that has the shared files."""


def run_trial(task: Task, objective: PickledObjective, settings: TrialSettings, store: Any) -> None:
    """Run a row until it is finished or has to leave, and report everything to the driver.

    Raises:
        LostTrialError: the row's process was lost.
    """
    started_at = time.monotonic()
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = _LEAVE_S
    node = socket.gethostname()
    attempt = Attempt(store, task.row)
    attempt.report(messages.started(node))
    if attempt.stop_asked():
        attempt.report(messages.PAUSED)
        return
    with _scratch_folder() as scratch:
        attempt.fetch_checkpoint(scratch)
        progress = Progress(settings.mode)
        for report in read_reports(scratch):
            progress.add(report)
            if report.epoch > task.known_epochs:  # its driver was killed before it could record this
                attempt.report(messages.reported(report))
        finish = _run_objective(task, objective, settings, scratch, attempt, progress)
    if finish is None:
        attempt.report(messages.PAUSED)
    else:
        duration_s = round(time.monotonic() - started_at, 3)
        attempt.report(messages.finished(replace(finish, node=node, duration_s=duration_s)))


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder for the trial's files in the one that Ray gives it; those of killed workers are deleted."""
    for leftover in Path.cwd().parent.glob(f"*/{_SCRATCH}*"):
        if not psutil.pid_exists(int(leftover.name.split("-")[1])):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", dir=Path.cwd()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_objective(
    task: Task,
    objective: PickledObjective,
    settings: TrialSettings,
    scratch: Path,
    attempt: Attempt,
    progress: Progress,
) -> Finish | None:
    shared = attempt.shared_folder(settings.shared_files, settings.drivers_node)
    try:
        with _Relay(attempt, progress) as relay:
            result = run_capped(
                run_objective,
                objective,
                dict(task.config),
                scratch,
                shared,
                task.memory_mb,
                task.halvings,
                cap_mb=settings.cap_mb,
                warm_up=partial(warm_up_objective, objective),
                on_message=relay.on_message,
                should_stop=relay.should_stop,
                grace_s=settings.grace_s,
            )
    except CapTooLowError as error:  # on a node whose imports take more memory than the driver's
        return Finish("memory_cap", peak_mb=error.floor_mb, cap_mb=settings.cap_mb)
    return finish_of(result, progress)


class _Relay:
    """Relays the child's messages to the search, and the search's request to leave to the child."""

    def __init__(self, attempt: Attempt, progress: Progress) -> None:
        self._attempt = attempt
        self._progress = progress
        self._pid: int | None = None
        self._peak_mb = 0.0  # so far, of the child alone; the whole tree's is known at the end
        self._stop = threading.Event()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._poll_for_stop, name="stop", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()  # the worker process goes on with another trial

    def on_message(self, message: object) -> None:
        """Handle a message of the child."""
        match message:
            case Began():
                self._pid = message.pid
            case Fitted(forecast):
                self._attempt.report(messages.fitted(forecast))
            case Reported(report):
                self._progress.add(report)
                self._measure()
                self._attempt.report(messages.reported(replace(report, peak_mb=self._peak_mb)))
            case CheckpointReady(folder):
                self._send_checkpoint(folder)

    def should_stop(self) -> str | None:
        """Why the child is to leave; asked some twenty times a second."""
        self._measure()
        return "the search leaves" if self._stop.is_set() else None

    def _measure(self) -> None:
        if self._pid is not None:
            self._peak_mb = max(self._peak_mb, process_memory_mb(self._pid))

    def _poll_for_stop(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # the search has ended, and this process is about to
            while not self._attempt.stop_asked():
                if self._over.wait(ASK_S):
                    return
            self._stop.set()

    def _send_checkpoint(self, folder: Path) -> None:
        try:
            self._attempt.send_checkpoint(folder)
        except ray.exceptions.RayTaskError as error:  # a full disk: the trial goes on without this checkpoint
            self._attempt.report(messages.note(f"a checkpoint was not kept: {error.cause}"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
