"""How a search looks while it runs: a live table in a terminal, one plain line per finished trial in a pipe."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.cli.console import Watcher, percent
from pipeline.durations import readable
from pipeline.search.report import memory_in_words, settings_in_words
from tuning.ledger import EpochReport, Row
from tuning.observer import Observer, State

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live


class SearchView(Observer):
    """Shows a search on stderr."""

    def __init__(self, watcher: Watcher, epochs: int, default: Mapping[str, Any], max_time_s: float | None) -> None:
        self._watcher = watcher
        self._epochs = epochs
        self._default = default
        self._max_time_s = max_time_s
        self._live: Live | None = None
        self._has_worked = False
        self._failures: list[str] = []

    def started(self, row: Row) -> None:
        """Say that a trial goes on; of new ones the live table tells."""
        if row.starts > 1:
            self._watcher.note(f"trial {row.number:>3} goes on on {row.node} after epoch {row.last_epoch}")

    def reported(self, row: Row, report: EpochReport) -> None:
        """The live table tells it."""
        self._has_worked = True

    def finished(self, row: Row) -> None:
        """One line, kept on the screen."""
        finish = row.finish
        assert finish is not None
        if finish.outcome == "failed":
            self._failures.append(finish.error)
        else:
            self._has_worked = True
        self._watcher.note(finished_line(row, self._default))

    def noted(self, text: str) -> None:
        """Say it; the error of a search in which every trial fails is said once, at its end."""
        if self._failures and text.endswith(self._failures[0]) and not self._has_worked:
            return
        self._watcher.warn(text)

    def ticked(self, state: State) -> None:
        """Draw the live table anew."""
        if self._watcher.is_live:
            if self._live is None:
                from rich.live import Live

                self._live = Live(console=self._watcher.console(), auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(self._drawn(state), refresh=True)

    def close(self) -> None:
        """End what is drawn."""
        if self._live is not None:
            self._live.stop()
        self._live = None

    def _drawn(self, state: State) -> "Group":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        head = Text(self.headline(state), style="bold")
        if not state.running:
            return Group(head)
        drawn = Table(header_style="bold", expand=True)
        drawn.add_column("trial", no_wrap=True)
        drawn.add_column("epoch", no_wrap=True)
        drawn.add_column("validation", no_wrap=True)
        drawn.add_column("memory", no_wrap=True)
        drawn.add_column("settings (the default's aside)", no_wrap=True, overflow="ellipsis", ratio=1)
        for number in sorted(state.running):
            row = state.rows[number]
            last = row.reports[-1] if row.reports else None
            drawn.add_row(
                str(number),
                f"{row.last_epoch}/{self._epochs}",
                percent(last.value if last else None),
                f"{last.peak_mb:.0f} of {state.cap_mb} MB" if last else f"of {state.cap_mb} MB",
                Text(settings_in_words(row, self._default)),
            )
        return Group(head, drawn)

    def headline(self, state: State) -> str:
        """Best so far, how many of each kind, time left."""
        counts = Counter(row.finish.outcome for row in state.rows if row.finish)
        done = sum(counts.values())
        best = state.best.finish.value if state.best and state.best.finish else None
        parts = [
            f"{done} of {state.target} trials",
            f"best {percent(best)}" + (f" (trial {state.best.number})" if state.best else ""),
            f"{len(state.running)} running",
            f"{counts['completed']} completed",
            f"{counts['stopped']} stopped",
            f"{counts['memory_cap']} capped",
            f"{counts['failed'] + counts['diverged']} failed",
        ]
        left_s = time_left_s(state, self._max_time_s)
        parts.append("leaving" if state.leaving else f"{readable(left_s)} left" if left_s is not None else "")
        parts.append(f"{state.overhead_mb:.0f} MB beside the trials" if state.overhead_mb else "")
        return ", ".join(part for part in parts if part)


def time_left_s(state: State, max_time_s: float | None) -> float | None:
    """What the trials that are left should take, from those that are done; None before the first is."""
    took = [row.finish.duration_s for row in state.rows if row.finish and row.finish.duration_s > 0]
    left = [] if max_time_s is None else [max(max_time_s - state.elapsed_s, 0.0)]
    if took:
        open_trials = state.target - sum(row.finish is not None for row in state.rows)
        left.append(max(open_trials, 0) * sum(took) / len(took) / state.concurrency)
    return min(left, default=None)


def finished_line(row: Row, default: Mapping[str, Any]) -> str:
    """A finished trial in a line."""
    finish = row.finish
    assert finish is not None
    settings = settings_in_words(row, default)
    head = f"trial {row.number:>3}  {finish.outcome:<10}"
    memory = f"{finish.peak_mb:.0f} MB"
    match finish.outcome:
        case "memory_cap":
            told = memory_in_words(finish)
        case "diverged" | "failed":
            told = f"after {finish.epochs} epochs"
        case _:
            told = f"{percent(finish.value)}  {finish.epochs} epochs  {memory}"
    return f"{head}  {told}  {readable(finish.duration_s)}  {settings}"
