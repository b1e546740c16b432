"""Epochs of a training as its journal tells them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring.workspaces import Place

ACCURACY = "validation/accuracy"


def journal_rows(path: Path) -> list[dict[str, Any]]:
    """Each epoch's figures, with `epoch` and `time_s` (of the system's clock); a torn last line is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            break
        if event["kind"] == "metrics" and ACCURACY in event["values"]:
            rows.append({"epoch": event["step"], "time_s": event["time_ms"] / 1000, **event["values"]})
    return rows


def trained(place: Place, words: Sequence[str]) -> list[dict[str, Any]]:
    """Run `seqpipe run train` to its end in a workspace where nothing was trained; its epochs."""
    place.run("run", "train", *words)
    (journal,) = (place.root / ".seqpipe" / "stages" / "train").glob("*/journal.jsonl")
    return journal_rows(journal)
