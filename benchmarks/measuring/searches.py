"""`seqpipe tune` as the benchmarks run it, and what its ledger tells."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring.workspaces import Place

SPACE = "train.learning_rate: {log_uniform: [5e-4, 4e-3]}\n"
"""Of trials that are equally long: nothing in it changes what an epoch costs."""


def words(trials: int, space: Path, sets: Sequence[str]) -> list[str]:
    """A search in which every trial runs to its end."""
    space.write_text(SPACE)
    given = ["tune", "--model", "small", "--trials", str(trials), "--space", str(space)]
    return [*given, "--scheduler", "none", *(word for one in sets for word in ("--set", one))]


def events(place: Place) -> list[dict[str, Any]]:
    """The ledger of the place's one search, as far as it is written; nothing before there is one."""
    found = list((place.root / ".seqpipe" / "searches").glob("*/ledger.jsonl"))
    if not found:
        return []
    return [json.loads(line) for line in found[0].read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def configs(place: Place) -> list[dict[str, Any]]:
    """What the search tried, in order."""
    return [event["config"] for event in events(place) if event["event"] == "proposed"]


def durations_s(place: Place) -> list[float]:
    """How long each trial took, its imports and the carrying of its checkpoints included."""
    finished = [event for event in events(place) if event["event"] == "finished"]
    assert all(event["outcome"] == "completed" for event in finished), finished
    return [event["duration_s"] for event in finished]


def seconds_until_first_report(place: Place, command: Sequence[str], limit_s: float = 120.0) -> float:
    """From the start of a search to its ledger's first epoch; it is asked to leave then."""
    started = time.monotonic()
    process = place.start(*command, stderr=None)
    try:
        while not any(event["event"] == "report" for event in events(place)):
            if process.poll() is not None or time.monotonic() - started > limit_s:
                raise RuntimeError("the search did not come to an epoch")
            time.sleep(0.02)
        return time.monotonic() - started
    finally:
        process.terminate()
        process.wait()
