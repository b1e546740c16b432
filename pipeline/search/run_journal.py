"""The journal of an MLflow run, filled from repeated snapshots: whatever it already has is not written again."""

import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.tracking import delivery_state
from pipeline.tracking.background import BackgroundDelivery
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.delivery_state import Status
from pipeline.tracking.journal import FILE_NAME, Journal, read


class RunJournal:
    """The journal of one run in a folder, and its delivery in the background."""

    def __init__(self, tracker: Tracker, identity: RunIdentity, folder: Path, journal_id: str) -> None:
        self.journal = Journal(folder)
        self.is_open = True
        """Whether the run goes on, as far as was recorded."""
        self._tracker = tracker
        self._identity = identity
        self._folder = folder
        self._journal_id = journal_id
        self._status: Status = "RUNNING"
        self._recorded: tuple[int, Status] | None = None
        self._closed_at: int | None = None
        self._delivery = BackgroundDelivery(tracker, identity, journal_id, folder)
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
    def recorded_status(self) -> Status | None:
        """The status of the run that was recorded last, possibly by an earlier command."""
        record = delivery_state.read_run(self._tracker.workspace, self._identity.key)
        return record.status if record else None

    def has(self, kind: str) -> bool:
        """Whether an event of a kind was there when the journal was opened."""
        return kind in self._kinds

    def tags(self, values: Mapping[str, str]) -> None:
        """Write the tags that are new or changed."""
        new = {key: value for key, value in values.items() if self._tags.get(key) != value}
        if new:
            self._tags |= new
            self.journal.tags(new)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write the metrics that this step does not have yet."""
        new = {key: value for key, value in values.items() if (key, step) not in self._steps}
        if new:
            self._steps |= {(key, step) for key in new}
            self.journal.metrics(new, step)

    def record(self, status: Status) -> None:
        """Record on disk that the journal so far, and this status, are to be delivered."""
        if status != "RUNNING":
            self._close_journal()
        self._status = status
        self.is_open = status == "RUNNING"
        if self._recorded != (self._upto, status):
            self._recorded = (self._upto, status)
            self._tracker.record(self._identity, self._journal_id, self._folder, upto=self._upto, status=status)

    def forget(self) -> None:
        """Free what is known of the journal's contents: nothing more is written to it by this object."""
        self._kinds.clear()
        self._tags.clear()
        self._steps.clear()

    def deliver(self) -> None:
        """Deliver what was recorded, in the background."""
        if self.is_open:
            self._delivery.notify(self._upto)
        else:
            self._delivery.close(upto=self._upto, status=self._status, timeout_s=0.0)

    def close(self, status: Status, until: float) -> None:
        """Deliver the rest and the status, waiting for that until a time of the monotonic clock at most."""
        self._close_journal()
        self._status = status
        self.is_open = False
        self._delivery.close(upto=self._upto, status=status, timeout_s=max(until - time.monotonic(), 0.0))

    def wait(self, until: float) -> None:
        """Wait for a delivery that has started, until a time of the monotonic clock at most."""
        if self._delivery.has_started:
            self.close(self._status, until)

    @property
    def _upto(self) -> int:
        return self.journal.offset if self._closed_at is None else self._closed_at

    def _close_journal(self) -> None:
        if self._closed_at is None:
            self._closed_at = self.journal.offset
            self.journal.close()
