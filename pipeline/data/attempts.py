"""What was tried to get the data set, how it ended, and how far a download has come."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Attempt:
    """One source that was tried, and in one line how that ended."""

    source: str
    outcome: str

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """A line for each place that was looked at, the source before each."""
        return [f"{self.source}: {line}" for line in self.outcome.splitlines()]


class SourceProblem(Exception):  # noqa: N818 - ends one attempt, not the command
    """A source that cannot be used; the message becomes the attempt's outcome."""


class ProgressReporter(Protocol):
    """Told what is going on, and how many bytes of how many (None: not known) are done."""

    def __call__(self, description: str, done_bytes: int, total_bytes: int | None, /) -> None:
        """Take note."""


def silent(description: str, done_bytes: int, total_bytes: int | None, /) -> None:
    """The reporter for who does not care."""
