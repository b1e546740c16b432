"""What a search proposed and what came of it: append-only, one durable JSON line per event.

    {"event": "search",   "version": 1, "identity": {"space": {...}, ...}}
    {"event": "target",   "trials": 30}
    {"event": "cap",      "mb": 1590}
    {"event": "proposed", "row": 0, "config": {...}, "origin": "default"}
    {"event": "started",  "row": 0, "node": "laptop"}
    {"event": "report",   "row": 0, "epoch": 1, "value": 0.61, "metrics": {...}, "peak_mb": 812.0}
    {"event": "finished", "row": 0, "outcome": "completed", "value": 0.84, ...}
    {"event": "reopened", "row": 0}
    {"event": "exhausted"}

Everything that a search needs to go on is replayed from here; Ray's own state is thrown away. One process writes it:
the caller holds a lock on the folder.
"""

import contextlib
import json
import math
import os
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
    """What a trial said after an epoch; a value that is not finite is NaN."""

    epoch: int
    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    """The most that the trial's own process was seen to hold so far."""


@dataclass(frozen=True)
class Finish:
    """How a trial ended. `value` is its best reported one, None where it has none that counts."""

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
    """The process was lost, again and again: this says nothing about the configuration."""


@dataclass(frozen=True)
class Row:
    """One configuration of the search; without a `finish` it is to be run, or to be gone on with."""

    number: int
    config: Config
    origin: Origin
    starts: int = 0
    node: str = ""
    reports: tuple[EpochReport, ...] = ()
    finish: Finish | None = None
    ends: int = 0
    """How often it ended; more than once if it was reopened."""

    @property
    def key(self) -> str:
        """What no other row of the search has."""
        return canonical(dict(self.config))

    @property
    def last_epoch(self) -> int:
        """The last epoch reported; 0 before the first."""
        return self.reports[-1].epoch if self.reports else 0


class Ledger:
    """The open record of one search; opening it replays it, and cuts off a line that a crash tore."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.path = folder / FILE_NAME
        self.rows: list[Row] = []
        self.target = 0
        self.cap_mb: int | None = None
        """What a trial may hold, as it was decided last."""
        self.is_exhausted = False
        """Whether there was nothing left to propose."""
        self._identity: Mapping[str, Any] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise LedgerError(f"cannot write {self.path}: {error.strerror}") from error
        try:
            kept = self._replay()
            if kept is None:
                self._append({"event": "search", "version": VERSION, "identity": dict(identity)})
            else:
                self._compare(kept, identity)
        except BaseException:
            self._file.close()
            raise

    def raise_target(self, trials: int) -> None:
        """Aim for that many trials; a lower number than before changes nothing."""
        if trials > self.target:
            self._append({"event": "target", "trials": trials})

    def decide_cap(self, cap_mb: int) -> None:
        """Record what a trial may hold from now on."""
        if cap_mb != self.cap_mb:
            self._append({"event": "cap", "mb": cap_mb})

    def exhaust(self) -> None:
        """Record that every configuration of the space was proposed."""
        if not self.is_exhausted:
            self._append({"event": "exhausted"})

    def propose(self, config: Config, origin: Origin) -> Row:
        """Record a new row; durable before anything is run."""
        self._append({"event": "proposed", "row": len(self.rows), "config": dict(config), "origin": origin})
        return self.rows[-1]

    def start(self, row: int, node: str) -> Row:
        """Record that a row runs there from now on."""
        self._append({"event": "started", "row": row, "node": node})
        return self.rows[row]

    def report(self, row: int, report: EpochReport) -> Row:
        """Record an epoch; one that was recorded before is replaced."""
        values = {"epoch": report.epoch, "value": report.value, "metrics": dict(report.metrics)}
        self._append({"event": "report", "row": row, **values, "peak_mb": round(report.peak_mb, 1)})
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
        """Let go of the file."""
        with contextlib.suppress(OSError):  # of a write that failed, which `_append` has told; it is tried again here
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
        self._apply(json.loads(line))  # the rows are what a replay would make of the file, never anything else

    def _replay(self) -> Mapping[str, Any] | None:
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
                self._apply(event)
            except (KeyError, TypeError, ValueError, IndexError, AssertionError) as error:
                raise self._damaged(number) from error
            whole += len(line)
        self._file.seek(0, os.SEEK_END)
        return self._identity

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

    def _apply(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "search":
            if event["version"] != VERSION:
                raise LedgerMismatchError(
                    f"{self.path} was written by another version of this program (format {event['version']}, "
                    f"not {VERSION}); use that version, or start afresh",
                    ("version",),
                )
            self._identity = event["identity"]
            return
        assert self._identity is not None, "the first line says which search this is"
        if kind == "target":
            self.target = event["trials"]
        elif kind == "cap":
            self.cap_mb = event["mb"]
        elif kind == "exhausted":
            self.is_exhausted = True
        elif kind == "proposed":
            assert event["row"] == len(self.rows), "rows are numbered in order"
            self.rows.append(Row(event["row"], event["config"], event["origin"]))
        else:
            assert event["row"] >= 0
            self.rows[event["row"]] = _changed(self.rows[event["row"]], event)


def _changed(row: Row, event: Mapping[str, Any]) -> Row:
    match event["event"]:
        case "started":
            return replace(row, starts=row.starts + 1, node=event["node"])
        case "report":
            value = math.nan if event["value"] is None else event["value"]
            report = EpochReport(event["epoch"], value, event["metrics"], event["peak_mb"])
            others = [other for other in row.reports if other.epoch != report.epoch]
            return replace(row, reports=tuple(sorted([*others, report], key=lambda each: each.epoch)))
        case "finished":
            finish = Finish(**{name: event[name] for name in Finish.__dataclass_fields__})
            assert finish.outcome in get_args(Outcome)
            return replace(row, finish=finish, ends=row.ends + 1)
        case "reopened":
            return replace(row, finish=None, starts=0)
        case other:
            raise ValueError(f"unknown event {other}")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    return value


def _short(value: object) -> str:
    text = canonical(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
