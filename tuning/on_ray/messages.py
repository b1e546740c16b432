"""Messages from a trial worker to the driver, and what each of them means to the search.

They travel in the results of `ray.tune.report`: `epoch` and `value`, which Ray's schedulers look at, and `message`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tuning.decisions import Decisions
from tuning.forecast import Forecast
from tuning.ledger import EpochReport, Finish

Message = dict[str, Any]

PAUSED: Message = {"kind": "paused"}
"""The trial has left for now; its row stays open."""


def waiting(text: str) -> Message:
    """The trial waits for room on its node, as the text says."""
    return {"kind": "waiting", "text": text}


def left_node(text: str) -> Message:
    """The trial has saved and left its node, as the text says; its row is to go on where there is room."""
    return {"kind": "left_node", "text": text}


GIVES_ROW_BACK: Message = {"kind": "gives_row_back"}
"""The trial has waited long for room: its row may run on another node. It stays, without a row, where it waits."""


def started(node: str) -> Message:
    """An attempt at the row runs on a node."""
    return {"kind": "started", "node": node}


def fitted(forecast: Forecast) -> Message:
    """The trial is fitted to its cap."""
    return {"kind": "fitted", "forecast": asdict(forecast)}


def described(facts: Mapping[str, str]) -> Message:
    """What the trial computes with, in words."""
    return {"kind": "described", "facts": dict(facts)}


def reported(report: EpochReport) -> Message:
    """An epoch is done."""
    return {"kind": "report", "report": asdict(report)}


def finished(finish: Finish) -> Message:
    """The row is finished."""
    return {"kind": "finished", "finish": asdict(finish)}


def note(text: str) -> Message:
    """Something that a user should read."""
    return {"kind": "note", "text": text}


def as_result(message: Message, attempt: int) -> dict[str, Any]:
    """What to pass to `ray.tune.report`; the value is NaN if the message is not about an epoch."""
    epoch: Message = message.get("report", {"epoch": 0, "value": math.nan})
    return {"epoch": epoch["epoch"], "value": epoch["value"], "message": message | {"attempt": attempt}}


def deliver(message: Message, row: int, decisions: Decisions, *, stopped: bool) -> None:
    """Tell the search; `stopped`: the scheduler ends the trial for this report."""
    attempt = message["attempt"]
    match message["kind"]:
        case "waiting":
            decisions.waits(row, attempt, message["text"])
        case "left_node":
            decisions.left_node(row, attempt, message["text"])
        case "started":
            decisions.started(row, attempt, message["node"])
        case "fitted":
            decisions.fitted(row, attempt, Forecast(**message["forecast"]))
        case "described":
            decisions.described(row, attempt, message["facts"])
        case "report":
            decisions.reported(row, attempt, EpochReport(**message["report"]), stopped=stopped)
        case "finished":
            decisions.finished(row, attempt, Finish(**message["finish"]))
        case "note":
            decisions.noted(row, message["text"])
