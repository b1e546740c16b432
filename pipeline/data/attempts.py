"""Attempts to get the data set and their outcomes, and the progress of a download."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Attempt:
    """A source that was tried, and its outcome: a line for each place that was looked at."""

    source: str
    outcome: str

    def lines(self) -> list[str]:
        """The lines of the outcome, each after the name of the source."""
        return [f"{self.source}: {line}" for line in self.outcome.splitlines()]


class SourceProblem(Exception):  # noqa: N818 - ends one attempt, not the command
    """A source that cannot be used; the message becomes the attempt's outcome."""


class ProgressReporter(Protocol):
    """Called with what is happening, and how many bytes of how many (None: unknown) are done."""

    def __call__(self, description: str, done_bytes: int, total_bytes: int | None, /) -> None: ...


def silent(description: str, done_bytes: int, total_bytes: int | None, /) -> None:
    """Report nothing."""
