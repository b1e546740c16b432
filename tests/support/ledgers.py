"""The one builder of what searches leave: ends, rows and ledgers, as a driver would have recorded them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuning.ledger import EpochReport, Finish, Ledger, Outcome, Row
from tuning.observer import Observer

NODE = "laptop"
CAP_MB = 700.0
IDENTITY = {"model": "toy"}


def end(outcome: Outcome = "completed", value: float | None = None, **changes: Any) -> Finish:
    """How a trial ended: a capped one held more than its cap, a failed one has an error; `changes` are fields."""
    usual: dict[str, Any] = {
        "peak_mb": CAP_MB + 10 if outcome == "memory_cap" else 303.0,
        "cap_mb": CAP_MB,
        "node": NODE,
        "epochs": 2,
        "duration_s": 9.5,
        "error": "no data" if outcome == "failed" else "",
    }
    return Finish(outcome, value, **usual | changes)


def reports(curve: Sequence[float]) -> list[EpochReport]:
    """An epoch report for each value, with a loss and a peak of 301, 302, ... MB."""
    return [
        EpochReport(epoch, value, {"train/loss": 1.0 / epoch}, 300.0 + epoch)
        for epoch, value in enumerate(curve, start=1)
    ]


def row(
    number: int, config: Mapping[str, Any], finish: Finish | None = None, curve: Sequence[float] = (), **changes: Any
) -> Row:
    """A row that ran once, with these values for its epochs; unfinished without a `finish`."""
    usual: dict[str, Any] = {"origin": "optuna" if number else "default", "starts": 1, "node": NODE}
    return Row(number, config, reports=tuple(reports(curve)), finish=finish, **usual | changes)


def run_trial(
    ledger: Ledger,
    config: Mapping[str, Any],
    finish: Finish | None,
    curve: Sequence[float] = (),
    observers: Sequence[Observer] = (),
) -> Row:
    """Record a trial from its proposal to its end, and call the observers with each step, as a driver does."""
    number = ledger.propose(config, "random" if ledger.rows else "default").number
    started = ledger.start(number, NODE)
    for observer in observers:
        observer.started(started)
    for report in reports(curve):
        reported = ledger.report(number, report)
        for observer in observers:
            observer.reported(reported, report)
    if finish is not None:
        finished = ledger.finish(number, finish)
        for observer in observers:
            observer.finished(finished)
    return ledger.rows[number]


def write_ledger(
    folder: Path, finishes: Sequence[Finish | None], target: int, identity: Mapping[str, Any] = IDENTITY
) -> None:
    """The ledger of a search in which trial 0, 1, ... ended so; None: it runs."""
    with Ledger(folder, identity) as ledger:
        ledger.raise_target(target)
        for number, finish in enumerate(finishes):
            run_trial(ledger, {"x": number}, finish)
