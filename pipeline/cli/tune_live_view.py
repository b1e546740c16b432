"""A running search on stderr: a live table in a terminal, one plain line for each finished trial in a pipe."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import Watcher
from pipeline.durations import readable
from pipeline.percent import percent
from pipeline.search.report import memory_in_words, settings_in_words
from tuning.ledger import EpochReport, Row
from tuning.observer import Observer, Snapshot

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live


class SearchView(Observer):
    """Shows a search on stderr; `default` is the configuration of trial 0."""

    def __init__(self, watcher: Watcher, epochs: int, default: Mapping[str, Any], max_time_s: float | None) -> None:
        self._watcher = watcher
        self._epochs = epochs
        self._default = default
        self._max_time_s = max_time_s
        self._live: Live | None = None
        self._has_worked = False
        self._failures: list[str] = []

    def started(self, row: Row) -> None:
        if row.starts > 1:
            self._watcher.note(f"trial {row.number:>3} goes on on {row.node} after epoch {row.last_epoch}")

    def fitted(self, row: Row) -> None:
        if row.fitted and row.starts == 1:
            self._watcher.note(f"trial {row.number:>3}  {row.fitted}, to stay within its memory")

    def reported(self, row: Row, report: EpochReport) -> None:
        self._has_worked = True

    def finished(self, row: Row) -> None:
        finish = row.finish
        assert finish is not None
        if finish.outcome == "failed":
            self._failures.append(finish.error)
        else:
            self._has_worked = True
        self._watcher.note(finished_line(row, self._default))

    def noted(self, text: str) -> None:
        # a search in which every trial fails ends with the first one's error, which need not be shown twice
        if self._failures and text.endswith(self._failures[0]) and not self._has_worked:
            return
        self._watcher.warn(text)

    def ticked(self, snapshot: Snapshot) -> None:
        if self._watcher.is_live:
            if self._live is None:
                from rich.live import Live

                self._live = Live(console=self._watcher.console(), auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(self._drawn(snapshot), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = None

    def _drawn(self, snapshot: Snapshot) -> "Group":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        head = Text(self.headline(snapshot), style="bold")
        if not snapshot.running:
            return Group(head)
        drawn = Table(header_style="bold", expand=True)
        drawn.add_column("trial", no_wrap=True)
        shows_node = len(snapshot.nodes) > 1
        if shows_node:
            drawn.add_column("node", no_wrap=True)
        drawn.add_column("epoch", no_wrap=True)
        drawn.add_column("validation", no_wrap=True)
        drawn.add_column("memory", no_wrap=True)
        drawn.add_column("settings (the default's aside)", no_wrap=True, overflow="ellipsis", ratio=1)
        for number in sorted(snapshot.running):
            row = snapshot.rows[number]
            last = row.reports[-1] if row.reports else None
            drawn.add_row(
                str(number),
                *([row.node if number not in snapshot.waiting else ""] if shows_node else []),
                f"{row.last_epoch}/{self._epochs}",
                percent(last.value if last else None),
                f"{last.peak_mb:.0f} of {snapshot.cap_mb} MB" if last else f"of {snapshot.cap_mb} MB",
                Text(snapshot.waiting.get(number) or settings_in_words(row, self._default)),
            )
        return Group(head, drawn)

    def headline(self, snapshot: Snapshot) -> str:
        """How many trials of each kind, the best value so far, and the time left."""
        counts = Counter(row.finish.outcome for row in snapshot.rows if row.finish)
        done = sum(counts.values())
        best = snapshot.best.finish.value if snapshot.best and snapshot.best.finish else None
        parts = [
            f"{done} of {snapshot.target} trials",
            f"best {percent(best)}" + (f" (trial {snapshot.best.number})" if snapshot.best else ""),
            f"{len(snapshot.running) - len(snapshot.waiting)} running",
            f"{len(snapshot.waiting)} waiting for room" if snapshot.waiting else "",
            f"on {len(snapshot.nodes)} nodes" if len(snapshot.nodes) > 1 else "",
            f"{counts['completed']} completed",
            f"{counts['stopped']} stopped",
            f"{counts['memory_cap']} capped",
            f"{counts['failed'] + counts['diverged']} failed",
        ]
        left_s = time_left_s(snapshot, self._max_time_s)
        parts.append("leaving" if snapshot.leaving else f"{readable(left_s)} left" if left_s is not None else "")
        parts.append(f"{snapshot.overhead_mb:.0f} MB beside the trials" if snapshot.overhead_mb else "")
        return ", ".join(part for part in parts if part)


def time_left_s(snapshot: Snapshot, max_time_s: float | None) -> float | None:
    """The time that the remaining trials should take, from that of finished ones; no more than is left of the limit.

    None before the first trial has finished, without a limit.
    """
    took = [row.finish.duration_s for row in snapshot.rows if row.finish and row.finish.duration_s > 0]
    left = [] if max_time_s is None else [max(max_time_s - snapshot.elapsed_s, 0.0)]
    if took:
        unfinished = snapshot.target - sum(row.finish is not None for row in snapshot.rows)
        if snapshot.concurrency:
            left.append(max(unfinished, 0) * sum(took) / len(took) / snapshot.concurrency)
    return min(left, default=None)


def finished_line(row: Row, default: Mapping[str, Any]) -> str:
    """A finished trial in a line: outcome, value, memory, time, and the settings that differ from the default."""
    finish = row.finish
    assert finish is not None
    settings = settings_in_words(row, default)
    head = f"trial {row.number:>3}  {finish.outcome:<10}"
    memory = f"{finish.peak_mb:.0f} MB"
    match finish.outcome:
        case "memory_cap":
            result = memory_in_words(finish)
        case "diverged" | "failed":
            result = f"after {finish.epochs} epochs"
        case _:
            result = f"{percent(finish.value)}  {finish.epochs} epochs  {memory}"
    time = "" if finish.is_forecast else f"  {readable(finish.duration_s)}"
    return f"{head}  {result}{time}  {settings}"
