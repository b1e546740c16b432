"""Delivers runs to the MLflow store when it can be reached; never stops a training.

What should arrive is recorded on disk first (`delivery_state`). A failure is reported once, and what is missing is
delivered later. What only a delivery needs is imported by the first one: most commands have nothing to deliver.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SeqpipeError
from pipeline.tracking import delivery_state
from pipeline.tracking.delivery_state import JournalRecord, RunRecord, Status
from pipeline.tracking.journal import FILE_NAME
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.tracking.training_folders import is_finished
from pipeline.workspace.locks import exclusive, is_held
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from pipeline.tracking.connection import StoreConnection

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 30.0


@dataclass(frozen=True)
class RunIdentity:
    """A run: `key` is unique to the training (fingerprint and attempt), `name` is for people.

    `parent` is the key of the run that it is shown under; without one it stays where it is. `lock` is the name of the
    lock that the process working on it holds.
    """

    key: str
    name: str
    parent: str = ""
    lock: str = ""


class Tracker:
    """Delivers the runs of a workspace to its MLflow store.

    `on_problem` gets one line per outage: why something was not delivered.
    """

    def __init__(self, settings: ResolvedMlflow, workspace: Workspace, on_problem: Callable[[str], None]) -> None:
        self.settings = settings
        self.workspace = workspace
        self.problem: SeqpipeError | None = None
        """Why the last delivery failed; None if it did not."""
        self._on_problem = on_problem
        self._last_report: str | None = None
        self._retry_at = 0.0
        self._recording = threading.Lock()
        self._sending = threading.Lock()

    @cached_property
    def connection(self) -> "StoreConnection":
        """The connection to the store, which every delivery uses."""
        from pipeline.tracking.connection import StoreConnection

        return StoreConnection(self.settings, self.workspace, self._on_problem)

    def record(
        self,
        run: RunIdentity,
        journal_id: str,
        folder: Path,
        *,
        upto: int | None = None,
        status: Status | None = None,
    ) -> None:
        """Record on disk what stores should have of a run: a journal up to an offset (None: its end), and a status.

        Raises:
            WorkspaceError: the workspace cannot be written.
        """
        if upto is None:
            path = folder / FILE_NAME
            upto = path.stat().st_size if path.exists() else 0
        place = folder.relative_to(self.workspace.root) if folder.is_relative_to(self.workspace.root) else folder
        with self._recording:
            known = delivery_state.read_run(self.workspace, run.key)
            record = known or RunRecord(run.key, run.name)
            before = repr(known)
            record.name = run.name
            record.is_moved = record.is_moved or (known is not None and run.parent not in ("", known.parent))
            record.parent = run.parent or record.parent
            record.lock = run.lock or record.lock
            record.journals[journal_id] = JournalRecord(place.as_posix(), upto)
            record.status = status or record.status
            if repr(record) != before or not delivery_state.run_path(self.workspace, run.key).exists():
                delivery_state.write_run(self.workspace, record)

    def deliver(
        self,
        run: RunIdentity,
        journal_id: str,
        folder: Path,
        *,
        upto: int | None = None,
        status: Status | None = None,
        force: bool = False,
    ) -> bool:
        """Record, then deliver everything of a run that the store lacks; whether it has all now.

        `journal_id` names the journal in `folder`, such as `train/<fingerprint>`; a run may have several. Repeating a
        delivery changes nothing. Never raises: after a failure the store is left alone for `RETRY_AFTER_S`, unless
        `force`.
        """
        try:
            self.record(run, journal_id, folder, upto=upto, status=status)
        except SeqpipeError as error:
            self._report(str(error))
            return False
        return self.deliver_recorded(run.key, force=force)

    def deliver_recorded(self, key: str, *, force: bool = False) -> bool:
        """Deliver what was recorded of a run, as `deliver` does."""
        with self._sending:
            if not force and time.monotonic() < self._retry_at:
                return False
            try:
                from pipeline.tracking.sending import Sender, delivery_lock

                lock = delivery_lock(self.workspace, key)
                if not force and is_held(lock):  # another process delivers it, or is suspended while it does
                    return False
                with exclusive(lock, logger.info, what=f"the delivery of {key}"):
                    record = delivery_state.read_run(self.workspace, key)
                    if record is not None:
                        Sender(self.connection, self.workspace, self._report).send(record)
            except Exception as error:  # a store may fail in any way, and none may end a training
                self._failed(error)
                return False
            self._retry_at, self._last_report, self.problem = 0.0, None, None
            return True

    def deliver_pending(self) -> int:
        """Deliver every run that the store lacks something of; how many it has whole now."""
        return sum(self.deliver_recorded(record.key) for record in self.pending())

    def pending(self) -> list[RunRecord]:
        """The runs that the store lacks something of; all of them if it is gone."""
        if self.settings.is_gone:
            delivery_state.forget_store(self.workspace, self.settings.address)
        return delivery_state.pending(self.workspace, self.settings.address)

    def close_dead(self, resumed: Collection[str | None] = ()) -> list[str]:
        """Close the open runs that no process works on, except those that the caller resumes; their names."""

        def is_dead(record: RunRecord) -> bool:
            return record.key not in resumed and not delivery_state.is_worked_on(self.workspace, record)

        return self.close_open(is_dead)

    def close_open(self, is_over: Callable[[RunRecord], bool]) -> list[str]:
        """Close the open runs that are over, as KILLED unless they were finished; their names."""
        closed = []
        for record in delivery_state.open_runs(self.workspace):
            if is_over(record):
                with self._recording:
                    record.status = "FINISHED" if is_finished(self.workspace, record.key) else "KILLED"
                    delivery_state.write_run(self.workspace, record)
                self.deliver_recorded(record.key)
                closed.append(record.name)
        return closed

    def run_id(self, run: RunIdentity) -> str | None:
        """The store's id of a run, or None as long as the store does not have it."""
        store = delivery_state.read_store(self.workspace, run.key, self.settings.address)
        return store.run_id if store else None

    def location(self, run: RunIdentity) -> str:
        """Where a person finds the run, in words."""
        store = delivery_state.read_store(self.workspace, run.key, self.settings.address)
        if store is None:
            return f"{run.name}: not in MLflow yet ({self.settings.address}); it is delivered by the next command"
        page = f"#/experiments/{store.experiment_id}/runs/{store.run_id}?workflowType=machine_learning"
        if self.settings.is_http:
            return f"{self.settings.address}/{page}"
        return f"`seqpipe ui`, then http://127.0.0.1:5000/{page}"

    def _failed(self, error: Exception) -> None:
        logger.debug("delivery failed", exc_info=True)
        self.connection.reset()
        self._retry_at = time.monotonic() + RETRY_AFTER_S
        self.problem = self.connection.explain(error)
        if self.problem is not error:
            self.problem.__cause__ = error
        self._report(str(self.problem))

    def _report(self, problem: str) -> None:
        """Report a problem, unless it is the one that was reported last."""
        if problem != self._last_report:
            self._last_report = problem
            self._on_problem(problem)
