"""The trial worker: runs one row in a capped child, and relays between that child and the search.

Contract: a trial *returns* how it ended. Only a lost process raises, and only then Ray starts the trial again.

The objective stays pickled here: a worker that unpickled it would hold everything that it imports a second time.
"""

import json
import os
import shutil
import socket
import tempfile
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
from tuning.on_ray.leaving import Leaving
from tuning.on_ray.room_wait import wait_for_room
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
from tuning.trial_end import LostTrialError, Progress, finish_of
from tuning.trial_room import TrialRoom

_SCRATCH = "trial-"
_LEAVE_S = "120"
"""How long Ray waits for a stopped trial to free its worker, before it starts the next one there."""


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
    def from_ray(cls, config: Mapping[str, Any]) -> Self | None:
        """The task, from Ray's configuration of the trial; None if its row was given back."""
        return cls(**json.loads(config["task"])) if config["task"] else None


@dataclass(frozen=True)
class TrialSettings:
    """Settings that all trials of a search share."""

    mode: Mode
    cap_mb: int
    grace_s: float
    shared_files: SharedFiles
    drivers_node: str
    """Ray's id of the node that has the shared files."""
    reserve_mb: int | None
    has_other_nodes: bool
    """Whether a row that waits for room on one node may go to another."""


def run_trial(task: Task, objective: PickledObjective, settings: TrialSettings, store: Any) -> None:
    """Run a row until it is finished or has to leave, and report everything to the driver.

    Raises:
        LostTrialError: the row's process was lost.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = _LEAVE_S
    node = socket.gethostname()
    attempt = Attempt(store, task.row)
    with TrialRoom(settings.cap_mb, settings.reserve_mb) as room:
        if wait_for_room(room, attempt, node, settings.has_other_nodes):
            attempt.report(messages.started(node))
            end = _run_row(task, objective, settings, attempt, node, room)
        else:
            end = messages.PAUSED
    attempt.report(end)


def _run_row(
    task: Task, objective: PickledObjective, settings: TrialSettings, attempt: Attempt, node: str, room: TrialRoom
) -> messages.Message:
    """Run the row from its newest checkpoint; what to report of its end."""
    started_at = time.monotonic()
    with _scratch_folder() as scratch:
        attempt.fetch_checkpoint(scratch)
        progress = Progress(settings.mode)
        for report in read_reports(scratch):
            progress.add(report)
            if report.epoch > task.known_epochs:  # its driver was killed before it could record this
                attempt.report(messages.reported(report))
        leaving = Leaving(attempt, room)
        try:
            finish = _run_objective(task, objective, settings, scratch, attempt, progress, leaving)
        except LostTrialError:
            if not leaving.is_for_room:
                raise
            finish = None  # the kernel was faster
    if finish is None:
        return messages.left_for_room(node, room.free_mb) if leaving.is_for_room else messages.PAUSED
    duration_s = round(time.monotonic() - started_at, 3)
    return messages.finished(replace(finish, node=node, duration_s=duration_s))


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
    leaving: Leaving,
) -> Finish | None:
    shared = attempt.shared_folder(settings.shared_files, settings.drivers_node)
    relay = _Relay(attempt, progress, leaving)
    try:
        with leaving:
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
                on_start=leaving.on_start,
            )
    except CapTooLowError as error:  # on a node whose imports take more memory than the driver's
        return Finish("memory_cap", peak_mb=error.floor_mb, cap_mb=settings.cap_mb)
    return finish_of(result, progress)


class _Relay:
    """Relays the child's messages to the search, and to the child that it has to leave."""

    def __init__(self, attempt: Attempt, progress: Progress, leaving: Leaving) -> None:
        self._attempt = attempt
        self._progress = progress
        self._leaving = leaving
        self._peak_mb = 0.0  # so far, of the child alone; the whole tree's is known at the end

    def on_message(self, message: object) -> None:
        """Handle a message of the child."""
        match message:
            case Began():
                self._leaving.pid = message.pid
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
        return self._leaving.should_stop()

    def _measure(self) -> None:
        if self._leaving.pid is not None:
            self._peak_mb = max(self._peak_mb, process_memory_mb(self._leaving.pid))

    def _send_checkpoint(self, folder: Path) -> None:
        try:
            self._attempt.send_checkpoint(folder)
        except ray.exceptions.RayTaskError as error:  # a full disk: the trial goes on without this checkpoint
            self._attempt.report(messages.note(f"a checkpoint was not kept: {error.cause}"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
