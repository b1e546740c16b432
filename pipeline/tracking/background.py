"""Delivery in a background thread, so that no store can slow a training."""

import threading
from pathlib import Path

from pipeline.errors import SeqpipeError
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.delivery_state import Status


class BackgroundDelivery:
    """Delivers a run's journal while the training goes on."""

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
    def has_started(self) -> bool:
        """Whether there was anything to deliver yet."""
        return self._thread is not None

    def notify(self, upto: int) -> None:
        """Everything before `upto` is durable and may be delivered; returns at once."""
        with self._changed:
            self._upto = upto
            self._changed.notify()
            self._start()

    def close(self, *, upto: int, status: Status, timeout_s: float) -> bool:
        """Deliver the rest and the run's status; whether the store has all of it within `timeout_s`.

        What it lacks then is recorded in the workspace, and a later command delivers it.

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
            self._thread = threading.Thread(target=self._work, name="mlflow-delivery", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._upto is not None)
                closing, upto, self._upto = self._closing, self._upto, None
                if not closing:  # `close` has recorded the end already, and this is older
                    try:
                        self._tracker.record(self._run, self._journal_id, self._folder, upto=upto)
                    except SeqpipeError:  # the training writes to the same disk, and reports it
                        continue
            delivered = self._tracker.deliver_recorded(self._run.key, force=closing)
            if closing:
                self._delivered = delivered
                return
