"""`seqpipe tune` as the benchmarks run it, and the trials in its ledger."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring.workspaces import Place
from tuning import ledger
from tuning.ledger import Row

SPACE = "train.learning_rate: {log_uniform: [5e-4, 4e-3]}\n"
"""Of trials that are equally long: nothing in it changes what an epoch costs."""


def words(trials: int, space: Path, sets: Sequence[str]) -> list[str]:
    """A search in which every trial runs to its end."""
    space.write_text(SPACE)
    given = ["tune", "--model", "small", "--trials", str(trials), "--space", str(space)]
    return [*given, "--scheduler", "none", *(word for one in sets for word in ("--set", one))]


def rows(place: Place) -> list[Row]:
    """The trials of the place's one search, as far as its ledger is written; nothing before there is one."""
    folders = list((place.root / ".seqpipe" / "searches").glob("*"))
    contents = ledger.read(folders[0]) if folders else None
    return contents.rows if contents else []


def configs(place: Place) -> list[dict[str, Any]]:
    """What the search tried, in order."""
    return [dict(row.config) for row in rows(place)]


def durations_s(place: Place) -> list[float]:
    """How long each trial took, its imports and the transfer of its checkpoints included."""
    ends = [row.finish for row in rows(place) if row.finish]
    assert all(end.outcome == "completed" for end in ends), ends
    return [end.duration_s for end in ends]


def seconds_until_first_report(place: Place, command: Sequence[str], limit_s: float = 120.0) -> float:
    """From the start of a search to its ledger's first epoch; it is asked to leave then."""
    started = time.monotonic()
    process = place.start(*command, stderr=None)
    try:
        while not any(row.reports for row in rows(place)):
            if process.poll() is not None or time.monotonic() - started > limit_s:
                raise RuntimeError("the search did not come to an epoch")
            time.sleep(0.02)
        return time.monotonic() - started
    finally:
        process.terminate()
        process.wait()
