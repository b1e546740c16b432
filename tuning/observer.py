"""What a search tells of itself while it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.ledger import EpochReport, Row
from tuning.sampler import Mode

Ended = Literal["finished", "exhausted", "budget", "asked"]
"""Why a run of a search ended: it has its trials; the space has no more; the time is up; it was asked to."""


@dataclass(frozen=True)
class State:
    """A search at one moment: all that a live table shows."""

    rows: Sequence[Row]
    running: frozenset[int]
    target: int
    concurrency: int
    cap_mb: int
    overhead_mb: float
    """The most that this run was seen to hold on this machine beside its trials: the driver and all below it."""
    elapsed_s: float
    best: Row | None
    leaving: bool
    """Trials have been asked to save and leave."""


class Observer:
    """Told of everything, in the driver's process and thread; override what is of interest, and be quick."""

    def started(self, row: Row) -> None:
        """A trial runs on `row.node`: for the first time, or again after a crash (`row.starts` counts)."""

    def reported(self, row: Row, report: EpochReport) -> None:
        """An epoch of a trial is done; after a crash one that was reported before may come again."""

    def finished(self, row: Row) -> None:
        """A trial has its `finish`."""

    def noted(self, text: str) -> None:
        """Something that a user should read once: the first failure, a lost node, a checkpoint not kept."""

    def ticked(self, state: State) -> None:
        """About once a second."""


def best_row(rows: Sequence[Row], mode: Mode) -> Row | None:
    """The completed row with the best value; the earliest among equals."""
    completed = [row for row in rows if row.finish and row.finish.outcome == "completed"]
    values = {row.number: row.finish.value for row in completed if row.finish and row.finish.value is not None}
    if not values:
        return None
    pick = max if mode == "max" else min
    return rows[pick(values, key=lambda number: values[number])]
