"""The record of a search: what was proposed and how it ended; append-only, one durable JSON line per event.

    {"event": "search",   "version": 1, "identity": {"space": {...}, ...}}
    {"event": "target",   "trials": 30}
    {"event": "cap",      "mb": 1590, "trials": 2}
    {"event": "proposed", "row": 0, "config": {...}, "origin": "default"}
    {"event": "started",  "row": 0, "node": "laptop"}
    {"event": "fitted",   "row": 0, "forecast_mb": 790.0, "fitted": "32 images at once"}
    {"event": "described", "row": 0, "facts": {"precision": "bf16"}}
    {"event": "report",   "row": 0, "epoch": 1, "value": 0.61, "metrics": {...}, "peak_mb": 812.0}
    {"event": "hit_cap",  "row": 0, "peak_mb": 1601.0, "cap_mb": 1590}
    {"event": "finished", "row": 0, "outcome": "completed", "value": 0.84, ...}
    {"event": "reopened", "row": 0}
    {"event": "exhausted"}

A search continues from this record alone; Ray's own state is thrown away. One process writes it, and holds a lock on
the folder; `read` looks at it from any other process. No other module parses these lines.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tuning.errors import LedgerError, LedgerMismatchError
from tuning.space import Config, canonical

FILE_NAME = "ledger.jsonl"
VERSION = 1

Outcome = Literal["completed", "stopped", "memory_cap", "diverged", "failed"]
Origin = Literal["default", "optuna", "random", "enumerated"]


@dataclass(frozen=True)
class EpochReport:
    """What a trial reported after an epoch; a value that is not finite is NaN."""

    epoch: int
    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    """Peak memory so far of the trial's own process."""


@dataclass(frozen=True)
class Finish:
    """How a trial ended. `value` is its best reported one, None where none counts."""

    outcome: Outcome
    value: float | None = None
    peak_mb: float = 0.0
    cap_mb: float = 0.0
    node: str = ""
    epochs: int = 0
    duration_s: float = 0.0
    error: str = ""
    details: str = ""
    """The traceback, where there is one."""
    lost: bool = False
    """The process was lost too often, which says nothing about the configuration."""
    is_forecast: bool = False
    """`peak_mb` is a forecast: no node can hold the trial, so it was not started."""


@dataclass(frozen=True)
class Row:
    """A trial: one configuration of the search. Without a `finish` it has still to be run, or to be resumed."""

    number: int
    config: Config
    origin: Origin
    starts: int = 0
    node: str = ""
    reports: tuple[EpochReport, ...] = ()
    finish: Finish | None = None
    ends: int = 0
    """How often it ended; more than once if it was reopened."""
    forecast_mb: float | None = None
    """The peak memory that was forecast when it was fitted to its cap last; None if nothing was."""
    fitted: str = ""
    """How it was fitted, in words; empty where nothing had to change."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What it says of itself on the node that it runs on, such as its precision, in the objective's own words."""
    halvings: int = 0
    """How often it hit its cap and went on with half of what it held at once."""
    peak_to_forecast: float = 0.0
    """The largest measured peak as a multiple of what was forecast; 0 where nothing was forecast or measured."""

    @property
    def key(self) -> str:
        """Identifies the configuration; unique within the search."""
        return canonical(dict(self.config))

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None before its end."""
        return self.finish.outcome if self.finish else None

    @property
    def is_infeasible(self) -> bool:
        """Whether it ended before it was started, since no node can hold it."""
        return self.finish is not None and self.finish.is_forecast

    @property
    def score(self) -> float | None:
        """The value that trials are compared by: that of a completed trial, None for every other."""
        return self.finish.value if self.finish and self.finish.outcome == "completed" else None

    @property
    def last_epoch(self) -> int:
        """The last epoch reported; 0 before the first."""
        return self.reports[-1].epoch if self.reports else 0


class Contents:
    """What the events of a ledger amount to."""

    def __init__(self) -> None:
        self.identity: Mapping[str, Any] | None = None
        self.rows: list[Row] = []
        self.target = 0
        """How many trials the search is to have; 0 before the first target."""
        self.cap_mb: int | None = None
        """The memory cap of a trial that was decided last."""
        self.cap_trials: int | None = None
        """How many trials of that cap fitted at once when it was decided; None if unknown."""
        self.is_exhausted = False
        """Whether there was nothing left to propose."""

    @property
    def finished(self) -> int:
        """How many rows have ended."""
        return sum(row.finish is not None for row in self.rows)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take one event into account; raises one of `DAMAGE` where it does not fit."""
        match event["event"]:
            case "search":
                self.identity = event["identity"]
            case "target":
                self.target = event["trials"]
            case "cap":
                self.cap_mb, self.cap_trials = event["mb"], event.get("trials")
            case "exhausted":
                self.is_exhausted = True
            case "proposed":
                assert event["row"] == len(self.rows), "rows are numbered in order"
                self.rows.append(Row(event["row"], event["config"], event["origin"]))
            case _:
                assert event["row"] >= 0
                self.rows[event["row"]] = _changed(self.rows[event["row"]], event)


DAMAGE = (KeyError, TypeError, ValueError, IndexError, AssertionError)
"""What `Contents.apply` and parsing a line raise where a line is damaged."""


def read(folder: Path) -> Contents | None:
    """The contents of the ledger in a folder, which another process may be writing; None if there is no ledger.

    A torn or damaged line is skipped: `Ledger` reports it when the search continues.
    """
    contents = Contents()
    try:
        lines = (folder / FILE_NAME).read_bytes().splitlines()
    except OSError:
        return None
    for line in lines:
        with contextlib.suppress(*DAMAGE):
            contents.apply(json.loads(line))
    return contents


class Ledger(Contents):
    """The ledger of one search, open for writing. Opening it replays it, and cuts off a line that a crash tore."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise LedgerError(f"cannot write {self.path}: {error.strerror}") from error
        try:
            self._replay()
            if self.identity is None:
                self._append({"event": "search", "version": VERSION, "identity": dict(identity)})
            else:
                self._compare(self.identity, identity)
        except BaseException:
            self._file.close()
            raise

    def raise_target(self, trials: int) -> None:
        """Record how many trials the search is to have; a lower number than before changes nothing."""
        if trials > self.target:
            self._append({"event": "target", "trials": trials})

    def decide_cap(self, cap_mb: int, trials: int) -> None:
        """Record the memory cap of a trial from now on, and how many trials of it run at once now."""
        if cap_mb != self.cap_mb:
            self._append({"event": "cap", "mb": cap_mb, "trials": trials})

    def exhaust(self) -> None:
        """Record that every configuration of the space was proposed."""
        if not self.is_exhausted:
            self._append({"event": "exhausted"})

    def propose(self, config: Config, origin: Origin) -> Row:
        """Record a new row; it is durable before anything is run."""
        self._append({"event": "proposed", "row": len(self.rows), "config": dict(config), "origin": origin})
        return self.rows[-1]

    def start(self, row: int, node: str) -> Row:
        """Record that a row runs on that node from now on."""
        self._append({"event": "started", "row": row, "node": node})
        return self.rows[row]

    def report(self, row: int, report: EpochReport) -> Row:
        """Record an epoch; one that was recorded before is replaced."""
        values = {"epoch": report.epoch, "value": report.value, "metrics": dict(report.metrics)}
        self._append({"event": "report", "row": row, **values, "peak_mb": round(report.peak_mb, 1)})
        return self.rows[row]

    def fit(self, row: int, forecast_mb: float, fitted: str) -> Row:
        """Record how a row is fitted to its cap from now on, and the peak memory that is forecast for it."""
        self._append({"event": "fitted", "row": row, "forecast_mb": round(forecast_mb, 1), "fitted": fitted})
        return self.rows[row]

    def describe(self, row: int, facts: Mapping[str, str]) -> Row:
        """Record what a row says of itself from now on."""
        self._append({"event": "described", "row": row, "facts": dict(facts)})
        return self.rows[row]

    def hit_cap(self, row: int, peak_mb: float, cap_mb: float) -> Row:
        """Record that a row has hit its cap, and goes on with half of what it held at once."""
        self._append({"event": "hit_cap", "row": row, "peak_mb": round(peak_mb, 1), "cap_mb": cap_mb})
        return self.rows[row]

    def finish(self, row: int, finish: Finish) -> Row:
        """Record how a row ended."""
        self._append({"event": "finished", "row": row, **vars(finish)})
        return self.rows[row]

    def reopen(self, row: int) -> Row:
        """Take a row's end back, so that it is run again."""
        self._append({"event": "reopened", "row": row})
        return self.rows[row]

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # closing retries a failed write, which `_append` has reported already
            self._file.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _append(self, event: dict[str, Any]) -> None:
        line = json.dumps(_without_nan(event) | {"time_ms": time.time_ns() // 1_000_000}, separators=(",", ":"))
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise LedgerError(f"cannot write {self.path}: {error.strerror}; the search can go on later") from error
        self.apply(json.loads(line))  # from the line as written, so the rows are exactly what a replay would give

    def _replay(self) -> None:
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        whole = 0
        for number, line in enumerate(lines, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("torn")
                event = json.loads(line)
            except ValueError:
                if number < len(lines):
                    raise self._damaged(number) from None
                self._file.truncate(whole)  # a crash in the middle of a write
                break
            try:
                self._check_version(event)
                self.apply(event)
                assert self.identity is not None, "the first line says which search this is"
            except DAMAGE as error:
                raise self._damaged(number) from error
            whole += len(line)
        self._file.seek(0, os.SEEK_END)

    def _damaged(self, number: int) -> LedgerError:
        return LedgerError(f"line {number} of {self.path} is damaged; put a copy back, or start the search afresh")

    def _compare(self, kept: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        names = sorted(
            name for name in {*kept, *identity} if canonical(kept.get(name)) != canonical(identity.get(name))
        )
        if not names:
            return
        held, asked = (", ".join(f"{name} {_short(side.get(name))}" for name in names) for side in (kept, identity))
        raise LedgerMismatchError(
            f"{self.path.parent} holds another search ({held}; asked for: {asked}); start afresh or elsewhere",
            tuple(names),
        )

    def _check_version(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "search" and event["version"] != VERSION:
            raise LedgerMismatchError(
                f"{self.path} was written by another version of this program (format {event['version']}, "
                f"not {VERSION}); use that version, or start afresh",
                ("version",),
            )


def _changed(row: Row, event: Mapping[str, Any]) -> Row:
    match event["event"]:
        case "started":
            return replace(row, starts=row.starts + 1, node=event["node"])
        case "report":
            value = math.nan if event["value"] is None else event["value"]
            metrics = {sys.intern(name): each for name, each in event["metrics"].items()}  # one string for all rows
            report = EpochReport(event["epoch"], value, metrics, event["peak_mb"])
            if report.epoch > row.last_epoch:
                return replace(row, reports=(*row.reports, report))
            others = [other for other in row.reports if other.epoch != report.epoch]
            row = replace(row, reports=tuple(sorted([*others, report], key=lambda each: each.epoch)))
            return _measured(row, report.peak_mb)
        case "fitted":
            return replace(row, forecast_mb=event["forecast_mb"], fitted=event["fitted"])
        case "described":
            return replace(row, facts={str(name): str(words) for name, words in event["facts"].items()})
        case "hit_cap":
            row = _measured(row, max(event["peak_mb"], event["cap_mb"]))
            return replace(row, halvings=row.halvings + 1)
        case "finished":
            finish = Finish(**{name: event[name] for name in Finish.__dataclass_fields__ if name in event})
            assert finish.outcome in get_args(Outcome)
            row = replace(row, finish=finish, ends=row.ends + 1)
            if finish.is_forecast:
                return row
            return _measured(row, max(finish.peak_mb, finish.cap_mb if finish.outcome == "memory_cap" else 0.0))
        case "reopened":
            return replace(row, finish=None, starts=0)
        case other:
            raise ValueError(f"unknown event {other}")


def _measured(row: Row, peak_mb: float) -> Row:
    """The row, with a measured peak compared with the forecast."""
    if row.forecast_mb is None:
        return row
    return replace(row, peak_to_forecast=max(row.peak_to_forecast, peak_mb / row.forecast_mb))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    return value


def _short(value: object) -> str:
    text = canonical(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
