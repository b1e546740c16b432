"""A run that is told to MLflow from figures that come again and again: each thing is written once."""

import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.tracking import delivery_state
from pipeline.tracking.background import BackgroundDelivery
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.delivery_state import Status
from pipeline.tracking.journal import FILE_NAME, Journal, read


class ToldRun:
    """A run's journal in a folder, what it holds already, and its courier."""

    def __init__(self, tracker: Tracker, identity: RunIdentity, folder: Path, journal_id: str) -> None:
        self.journal = Journal(folder)
        self.is_open = True
        self._tracker = tracker
        self._identity = identity
        self._folder = folder
        self._journal_id = journal_id
        self._status: Status = "RUNNING"
        self._upto_noted: tuple[int, Status] | None = None
        self._closed_at: int | None = None
        self._courier = BackgroundDelivery(tracker, identity, journal_id, folder)
        self._kinds: set[str] = set()
        self._tags: dict[str, str] = {}
        self._steps: set[tuple[str, int]] = set()
        for event in read(folder / FILE_NAME):
            self._kinds.add(event.kind)
            if event.kind == "tags":
                self._tags |= event.content["values"]
            elif event.kind == "metrics":
                self._steps |= {(key, event.content["step"]) for key in event.content["values"]}

    @property
    def noted(self) -> Status | None:
        """The status that is kept of it."""
        record = delivery_state.read_run(self._tracker.workspace, self._identity.key)
        return record.status if record else None

    def holds(self, kind: str) -> bool:
        """Whether something of a kind was written before."""
        return kind in self._kinds

    def tags(self, values: Mapping[str, str]) -> None:
        """Write those that are new or changed."""
        news = {key: value for key, value in values.items() if self._tags.get(key) != value}
        if news:
            self._tags |= news
            self.journal.tags(news)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write those that the step does not have."""
        news = {key: value for key, value in values.items() if (key, step) not in self._steps}
        if news:
            self._steps |= {(key, step) for key in news}
            self.journal.metrics(news, step)

    def note(self, status: Status) -> None:
        """Keep what stores should be told of the run."""
        if status != "RUNNING":
            self._close_journal()
        self._status = status
        self.is_open = status == "RUNNING"
        if self._upto_noted != (self._upto, status):
            self._upto_noted = (self._upto, status)
            self._tracker.record(self._identity, self._journal_id, self._folder, upto=self._upto, status=status)

    def deliver(self) -> None:
        """Have it told by the courier."""
        if self.is_open:
            self._courier.notify(self._upto)
        else:
            self._courier.close(upto=self._upto, status=self._status, timeout_s=0.0)

    def close(self, status: Status, until: float) -> None:
        """Tell the rest and the status, as far as that goes until then."""
        self._close_journal()
        self._status = status
        self.is_open = False
        self._courier.close(upto=self._upto, status=status, timeout_s=max(until - time.monotonic(), 0.0))

    def wait(self, until: float) -> None:
        """Wait for what is being told, until then."""
        if self._courier.has_started:
            self.close(self._status, until)

    @property
    def _upto(self) -> int:
        return self.journal.offset if self._closed_at is None else self._closed_at

    def _close_journal(self) -> None:
        if self._closed_at is None:
            self._closed_at = self.journal.offset
            self.journal.close()
