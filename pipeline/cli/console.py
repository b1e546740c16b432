"""Output: rich in a terminal, plain lines in a pipe, JSON on request.

Results go to stdout; progress, notes and errors to stderr. No bar without a terminal.
"""

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipeline.durations import readable
from pipeline.progress import TrainProgress

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID

PLAIN_EVERY_S = 15.0
NARROW = 100
"""Columns below which a line of progress shows only the most important figures."""
NARROW_CELL = 12
"""Columns for each cell below which a drawn table would break words apart."""


def can_draw(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can do more than show lines."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def emit_json(content: object) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(content, indent=2, default=str, allow_nan=False) + "\n")


def emit(text: str = "") -> None:
    """Write a line of the result to stdout."""
    sys.stdout.write(as_typed(text) + "\n")


def complain(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(as_typed(text) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Write a table to stdout: rich in a terminal, aligned text in a pipe."""
    rows = [[on_one_line(cell) for cell in row] for row in rows]
    if can_draw(sys.stdout) and (console := _console(stderr=False)).width >= NARROW_CELL * len(columns):
        from rich.table import Table
        from rich.text import Text

        # as Text, since words in brackets would be taken for a style
        drawn = Table(title=Text(title) if title else None, title_justify="left", header_style="bold")
        for column in columns:
            drawn.add_column(column, overflow="fold")
        for row in rows:
            drawn.add_row(*map(Text, row))
        console.print(drawn)
        return
    if title:
        emit(title)
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, *rows]:
        emit("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def on_one_line(cell: str) -> str:
    """A cell with its line ends and control characters escaped: the name of a file may hold some."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in cell
    )


def _console(*, stderr: bool) -> "RichConsole":
    """A rich console without markup: all that is printed are names and figures."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


class Watcher:
    """Shows what stages report, on stderr: live bars in a terminal, a line now and then in a pipe."""

    def __init__(self) -> None:
        self.is_live = can_draw(sys.stderr)
        self._rich: RichConsole | None = None
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._task_text = ""
        self._shown_at = 0.0

    def stage(self, model: str, stage: str, why: str) -> None:
        """Announce that a stage starts, unless it is up to date."""
        if why != "up to date":
            self.heading(f"{stage} ({model}): {why}")

    def heading(self, text: str) -> None:
        self._end_bar()
        self._print(text, style="bold")

    def note(self, text: str) -> None:
        self._print(f"  {text}")

    def warn(self, text: str) -> None:
        self._print(f"  warning: {text}", style="yellow")

    def bytes_done(self, description: str, done_bytes: int, total_bytes: int | None) -> None:
        if not self.is_live:
            if description != self._task_text:
                self._task_text = description
                self.note(description)
            return
        if description != self._task_text:
            self._start_bar(description, total_bytes)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done_bytes, total=total_bytes)
        if total_bytes is not None and done_bytes >= total_bytes:
            self._end_bar()

    def training(self, progress: TrainProgress) -> None:
        figures = (
            f"{progress.images_per_s:.0f} images/s, loss {progress.loss:.3f}, accuracy {progress.accuracy:.1%}, "
            f"{progress.memory_mb:.0f} MB, {readable(progress.remaining_s)} left"
        )
        if not self.is_live:
            now = time.monotonic()
            if now - self._shown_at >= PLAIN_EVERY_S:
                self._shown_at = now
                self.note(
                    f"epoch {progress.epoch}/{progress.epochs}, step {progress.step}/{progress.steps}: {figures}"
                )
            return
        if self.console().width < NARROW:
            figures = f"{progress.images_per_s:.0f}/s, {readable(progress.remaining_s)} left"
        if self._task_text != "training":
            self._start_bar("training", progress.steps)
        if self._bars is not None and self._task is not None:
            self._bars.update(
                self._task,
                completed=progress.step,
                total=progress.steps,
                description=f"epoch {progress.epoch}/{progress.epochs}",
                figures=figures,
            )

    def epoch(self, row: dict[str, float]) -> None:
        """Show a finished epoch, in a line that stays."""
        self._print(
            f"  epoch {row['epoch']:>3}: train loss {row['train/loss']:.4f}, accuracy {row['train/accuracy']:.2%}; "
            f"validation loss {row['validation/loss']:.4f}, accuracy {row['validation/accuracy']:.2%}; "
            f"{row['images_per_second']:.0f} images/s"
        )

    def close(self) -> None:
        self._end_bar()

    def _print(self, text: str, style: str = "") -> None:
        if not self.is_live:
            complain(text)
            return
        self.console().print(as_typed(text), style=style or None)

    def console(self) -> "RichConsole":
        """The terminal that it draws in."""
        if self._rich is None:
            self._rich = _console(stderr=True)
        return self._rich

    def _start_bar(self, description: str, total: int | None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._end_bar()
        self._task_text = description
        width = self.console().width
        bar = [] if width < 60 else [BarColumn(bar_width=12 if width < NARROW else None)]
        self._bars = Progress(
            TextColumn("  {task.description}", markup=False),
            *bar,
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self.console(),
            transient=True,
            redirect_stdout=can_draw(sys.stdout),  # results in a pipe stay on stdout
        )
        self._task = self._bars.add_task(description, total=total, figures="")
        self._bars.start()

    def _end_bar(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._task = None
        self._task_text = ""


@contextmanager
def watching() -> Iterator[Watcher]:
    """A watcher whose bars are removed at the end of the block, whatever ends it."""
    watcher = Watcher()
    try:
        yield watcher
    finally:
        watcher.close()


def program() -> str:
    """What a user types to call this program: its name, or its path where a shell would not find it."""
    path = Path(sys.argv[0])
    found = shutil.which("seqpipe")
    if found and (not path.exists() or Path(found).resolve() == path.resolve()):
        return "seqpipe"
    short = short_path(path)
    return short if "/" in short or not path.exists() else f"./{short}"


def short_path(path: Path) -> str:
    """A path as a person would type it: from the working folder, or in full where that is shorter."""
    try:
        full = str(path.absolute())
        return min(os.path.relpath(full), full, key=len)
    except OSError:  # the working folder is gone
        return str(path)


def as_typed(text: str) -> str:
    """A message with every command written as this user has to type it."""
    return text.replace("`seqpipe ", f"`{shlex.quote(program())} ") if "`seqpipe " in text else text
