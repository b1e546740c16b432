"""One row on one node: its checkpoint comes, its capped child runs, and what that says is passed on to the search.

The objective stays pickled here: a worker that unpickled it would hold everything that it imports a second time.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from tuning.capped.run_capped import CapTooLowError, process_memory_mb, run_capped
from tuning.cluster.node_folder import NodeFolder
from tuning.ledger import Finish
from tuning.on_ray import messages
from tuning.on_ray.attempt import Attempt, NotWantedError
from tuning.on_ray.checkpoint_sender import CheckpointSender
from tuning.on_ray.leaving import Leaving
from tuning.on_ray.shown_trial import ShownTrial
from tuning.on_ray.trial_task import Task, TrialSettings
from tuning.trial import (
    Began,
    CheckpointReady,
    Described,
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
_NO_SPACE = os.strerror(errno.ENOSPC)


class RowRun:
    """The run of one row, for which there is room."""

    def __init__(
        self,
        task: Task,
        objective: PickledObjective,
        settings: TrialSettings,
        attempt: Attempt,
        room: TrialRoom,
        node: NodeFolder | None,
    ) -> None:
        self._task = task
        self._objective = objective
        self._settings = settings
        self._attempt = attempt
        self._node = node
        self._started_at = time.monotonic()
        self._leaving = Leaving(attempt, room, node)
        self._sender = CheckpointSender(attempt)
        self._shown = ShownTrial(node, settings.search, task.row, settings.max_epochs, settings.cap_mb)
        self._progress = Progress(settings.mode)
        self._held_mb = self._peak_mb = 0.0
        """Of the child alone, now and at most so far; the whole tree's is known at the end."""

    def run(self) -> None:
        """Run the row from its newest checkpoint, and report its end.

        Raises:
            LostTrialError: its process was lost.
        """
        with _scratch_folder() as scratch, self._sender, self._shown:
            try:
                with self._leaving:
                    finish = self._run_in(scratch)
            except NotWantedError:  # it has to leave before it has begun
                finish = None
            except LostTrialError:
                if self._leaving.left_for_another_node() is None:
                    self._finish_sending()
                    raise
                finish = None  # the kernel was faster
            self._report_end(finish)

    def _run_in(self, scratch: Path) -> Finish | None:
        """How the row is finished; None if it is not."""
        task, is_wanted = self._task, self._leaving.may_stay
        self._attempt.fetch_checkpoint(scratch, is_wanted)
        for report in read_reports(scratch):
            self._progress.add(report)
            if report.epoch > task.known_epochs:  # its driver was killed before it could record this
                self._attempt.report(messages.reported(report))
        shared = self._attempt.shared_folder(self._settings.shared_files, is_wanted)
        try:
            result = run_capped(
                run_objective,
                self._objective,
                dict(task.config),
                scratch,
                shared,
                task.memory_mb,
                task.halvings,
                cap_mb=self._settings.cap_mb,
                warm_up=partial(warm_up_objective, self._objective),
                on_message=self._on_message,
                should_stop=self._should_stop,
                grace_s=self._settings.grace_s,
                on_start=self._leaving.on_start,
            )
        except CapTooLowError as error:  # on a node whose imports take more memory than the driver's
            return Finish("memory_cap", peak_mb=error.floor_mb, cap_mb=self._settings.cap_mb)
        return finish_of(result, self._progress)

    def _report_end(self, finish: Finish | None) -> None:
        """Report the end. Its checkpoint comes first, since the row may go on from it; not that of a complete trial:

        if it is not the best one, the store refuses its checkpoint by now, and nothing is sent in vain.
        """
        text = self._leaving.left_for_another_node()
        if finish is not None and self._had_no_space(finish):
            finish, text = None, f"left {self._attempt.node}, whose disk is full"
        if finish is None:
            self._finish_sending()
            self._attempt.report(messages.PAUSED if text is None else messages.left_node(text))
            return
        finish = replace(finish, node=self._attempt.node, duration_s=round(time.monotonic() - self._started_at, 3))
        if finish.outcome != "completed":
            self._finish_sending()
        self._attempt.report(messages.finished(finish))
        self._finish_sending()

    def _had_no_space(self, finish: Finish) -> bool:
        """Whether a trial failed for its node's disk: the node takes no more work then, but another one may."""
        return self._node is not None and finish.outcome == "failed" and _NO_SPACE in finish.error + finish.details

    def _on_message(self, message: object) -> None:
        """Pass a message of the child on."""
        match message:
            case Began():
                self._leaving.pid = message.pid
            case Described(facts):
                self._attempt.report(messages.described(facts))
            case Fitted(forecast):
                self._attempt.report(messages.fitted(forecast))
            case Reported(report):
                self._progress.add(report)
                self._measure()
                self._shown.reached(report.epoch, report.value)
                self._attempt.report(messages.reported(replace(report, peak_mb=self._peak_mb)))
            case CheckpointReady(folder):
                self._sender.send(folder)

    def _should_stop(self) -> str | None:
        """Why the child is to leave; asked some twenty times a second."""
        self._measure()
        self._shown.holds(self._held_mb)
        self._report_problems()
        return self._leaving.should_stop()

    def _measure(self) -> None:
        if self._leaving.pid is not None:
            self._held_mb = process_memory_mb(self._leaving.pid)
            self._peak_mb = max(self._peak_mb, self._held_mb)

    def _finish_sending(self) -> None:
        self._sender.finish()
        self._report_problems()

    def _report_problems(self) -> None:
        for problem in self._sender.problems():
            self._attempt.report(messages.note(problem))


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
