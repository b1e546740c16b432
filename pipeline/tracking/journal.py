"""The journal: an append-only file of metrics and events, delivered to MLflow later.

One JSON line per event, each with its time, so that delivering it twice is the same as delivering it once (MLflow's
stores keep one row per run, key, step, time and value). What a durable checkpoint covers may be delivered. What came
after it is cut off when the training resumes, and is written again with the same steps.

    {"kind": "params",   "time_ms": ..., "values": {"train.epochs": 12}}
    {"kind": "tags",     "time_ms": ..., "values": {"seqpipe.device": "cpu"}}
    {"kind": "metrics",  "time_ms": ..., "step": 3, "values": {"validation/accuracy": 0.81}}
    {"kind": "dataset",  "time_ms": ..., "values": {"name": ..., "digest": ..., "context": ..., "profile": ...}}
    {"kind": "artifact", "time_ms": ..., "file": "plots/confusion.png", "folder": "plots"}
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.workspace.durable_files import writing

FILE_NAME = "journal.jsonl"
Kind = Literal["params", "tags", "metrics", "dataset", "artifact"]


@dataclass(frozen=True)
class Event:
    """One line of a journal; `end` is the byte offset after it."""

    kind: Kind
    time_ms: int
    content: Mapping[str, Any]
    end: int


class Journal:
    """The open journal of one stage folder.

    Opening it cuts off a torn last line; `truncate` cuts off what a checkpoint does not cover.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        with writing(self.path):
            self._file = self.path.open("ab")
        whole = 0
        for event in read(self.path):
            whole = event.end
        if whole != self.offset:
            self.truncate(whole)

    @property
    def offset(self) -> int:
        """Bytes written so far: what a checkpoint records."""
        return self._file.tell()

    def params(self, values: Mapping[str, object]) -> None:
        """Record parameters, each key once per run."""
        self._append({"kind": "params", "values": dict(values)})

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags; a later value replaces an earlier one."""
        self._append({"kind": "tags", "values": dict(values)})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record the metrics of one step."""
        self._append({"kind": "metrics", "step": step, "values": dict(values)})

    def dataset(self, values: Mapping[str, object]) -> None:
        """Record a data set that the run uses."""
        self._append({"kind": "dataset", "values": dict(values)})

    def artifact(self, file: Path, folder: str = "") -> None:
        """Record a file of the stage folder; it is shown under `folder` of the run's artifacts."""
        relative = file.relative_to(self.path.parent).as_posix()
        self._append({"kind": "artifact", "file": relative, "folder": folder})

    def sync(self) -> None:
        """Make what was written so far durable."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def truncate(self, offset: int) -> None:
        """Cut off everything after `offset`."""
        offset = min(offset, self.offset)  # truncating to more would fill the file up with zeros
        with writing(self.path):
            self._file.truncate(offset)
            self._file.seek(offset)
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Make everything durable, and close the file."""
        self.sync()
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _append(self, event: dict[str, Any]) -> None:
        line = json.dumps(event | {"time_ms": time.time_ns() // 1_000_000}, separators=(",", ":")) + "\n"
        with writing(self.path):
            self._file.write(line.encode())
            self._file.flush()


def read(path: Path, start: int = 0, end: int | None = None) -> Iterator[Event]:
    """The whole lines of a journal between two offsets, up to the first that is torn or damaged."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(start)
        position = start
        for line in file:
            position += len(line)
            if not line.endswith(b"\n") or (end is not None and position > end):
                return
            try:
                content = json.loads(line)
                event = Event(content.pop("kind"), content.pop("time_ms"), content, position)
            except (ValueError, KeyError, AttributeError):
                return
            yield event
