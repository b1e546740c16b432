"""Watching a search while it runs: the calls that an observer gets, and a snapshot of the search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tuning.ledger import EpochReport, Row
from tuning.sampler import Mode

Ended = Literal["finished", "exhausted", "asked"]
"""Why a run of a search ended: it has its trials; the space has no more; `should_stop` asked it to leave."""


@dataclass(frozen=True)
class Snapshot:
    """A search at one moment: all that a live table shows."""

    rows: Sequence[Row]
    running: frozenset[int]
    target: int
    concurrency: int
    cap_mb: int
    overhead_mb: float
    """Peak memory of this run on this machine apart from its trials: the driver and all processes below it."""
    elapsed_s: float
    best: Row | None
    leaving: bool
    """Trials have been asked to save and leave."""
    waiting: Mapping[int, str] = field(default_factory=dict)
    """Of running trials, those that wait for room on their node, and what for."""
    nodes: tuple[str, ...] = ()
    """Names of the nodes that the search can use now."""
    done_before: int = 0
    """Trials that had ended before this run of the search."""


class Observer:
    """Gets each event of a search, in the driver's process and thread; override what you need, and be quick."""

    def started(self, row: Row) -> None:
        """A trial runs on `row.node`: for the first time, or again after a crash (`row.starts` counts)."""

    def fitted(self, row: Row) -> None:
        """A trial has said how it is fitted to its cap: `row.fitted`, `row.forecast_mb`."""

    def described(self, row: Row) -> None:
        """A trial has said what it computes with: `row.facts`."""

    def reported(self, row: Row, report: EpochReport) -> None:
        """A trial has finished an epoch; after a crash, one that was reported before may come again."""

    def finished(self, row: Row) -> None:
        """A trial has ended, as `row.finish` says; without a start if it was infeasible."""

    def noted(self, text: str) -> None:
        """There is something that a user should read once: the first failure, a lost node, a lost checkpoint."""

    def ticked(self, snapshot: Snapshot) -> None:
        """About a second has passed."""


class Observers(Observer):
    """Several observers as one: each call goes to all of them, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def started(self, row: Row) -> None:
        for observer in self._observers:
            observer.started(row)

    def fitted(self, row: Row) -> None:
        for observer in self._observers:
            observer.fitted(row)

    def described(self, row: Row) -> None:
        for observer in self._observers:
            observer.described(row)

    def reported(self, row: Row, report: EpochReport) -> None:
        for observer in self._observers:
            observer.reported(row, report)

    def finished(self, row: Row) -> None:
        for observer in self._observers:
            observer.finished(row)

    def noted(self, text: str) -> None:
        for observer in self._observers:
            observer.noted(text)

    def ticked(self, snapshot: Snapshot) -> None:
        for observer in self._observers:
            observer.ticked(snapshot)


def best_row(rows: Sequence[Row], mode: Mode) -> Row | None:
    """The completed row with the best value; the earliest among equals."""
    scored = [(row.score, row) for row in rows if row.score is not None]
    if not scored:
        return None
    pick = max if mode == "max" else min
    return pick(scored, key=lambda each: each[0])[1]
