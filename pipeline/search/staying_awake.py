"""Keeps the laptop of a search awake while the search has trials, on whatever laptop they run."""

from tuning.awake import Awake
from tuning.ledger import Row
from tuning.observer import Observer, Snapshot


class StaysAwake(Observer):
    """Follows a search."""

    def __init__(self, awake: Awake) -> None:
        self._awake = awake

    def started(self, row: Row) -> None:
        self._awake.keep(True)

    def ticked(self, snapshot: Snapshot) -> None:
        self._awake.keep(bool(snapshot.running))
