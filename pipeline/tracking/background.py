"""Delivery beside a training: a thread, so that no store can slow the loop."""

import threading
from pathlib import Path

from pipeline.errors import SeqpipeError
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.delivery_state import Status


class Courier:
    """Delivers a run's journal from a thread of its own while the training goes on."""

    def __init__(self, tracker: Tracker, run: RunIdentity, journal_id: str, folder: Path) -> None:
        self._tracker = tracker
        self._run = run
        self._journal_id = journal_id
        self._folder = folder
        self._changed = threading.Condition()
        self._upto: int | None = None
        self._closing = False
        self._delivered = False
        self._thread: threading.Thread | None = None

    @property
    def has_begun(self) -> bool:
        """Whether anything was handed over."""
        return self._thread is not None

    def notify(self, upto: int) -> None:
        """What is before `upto` is durable now and may be delivered; returns at once."""
        with self._changed:
            self._upto = upto
            self._changed.notify()
            self._start()

    def close(self, *, upto: int, status: Status, timeout_s: float) -> bool:
        """Deliver the rest and the run's status; whether the store knows all within `timeout_s`.

        What it does not know then is kept in the workspace and delivered by a later command.

        Raises:
            WorkspaceError: the workspace cannot be written.
        """
        with self._changed:
            self._tracker.record(self._run, self._journal_id, self._folder, upto=upto, status=status)
            self._closing = True
            self._changed.notify()
            self._start()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return self._delivered

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow-courier", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._upto is not None)
                closing, upto, self._upto = self._closing, self._upto, None
                if not closing:  # else the end is noted already, and this is older
                    try:
                        self._tracker.record(self._run, self._journal_id, self._folder, upto=upto)
                    except SeqpipeError:  # the training meets the same disk, and says so
                        continue
            delivered = self._tracker.deliver_recorded(self._run.key, force=closing)
            if closing:
                self._delivered = delivered
                return
