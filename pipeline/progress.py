"""What a stage tells whoever watches: the command line draws it, tests ignore or record it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TrainProgress:
    """Where a training stands. `loss` and `accuracy` are the running means of this epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_s: float
    memory_mb: float
    remaining_s: float


class Reporter(Protocol):
    """What is told, in the order in which it happens."""

    def note(self, text: str) -> None:
        """Say a line that is no problem."""

    def warn(self, text: str) -> None:
        """Say a line that the user should know of."""

    def bytes_done(self, description: str, done_bytes: int, total_bytes: int | None) -> None:
        """How far a download or a conversion is; done == total ends it."""

    def training(self, progress: TrainProgress) -> None:
        """How far a training is, several times a second at most."""

    def epoch(self, row: dict[str, float]) -> None:
        """Report the figures of a finished epoch."""


class Silent:
    """Watches nothing."""

    def note(self, text: str) -> None:
        """Ignore."""

    def warn(self, text: str) -> None:
        """Ignore."""

    def bytes_done(self, description: str, done_bytes: int, total_bytes: int | None) -> None:
        """Ignore."""

    def training(self, progress: TrainProgress) -> None:
        """Ignore."""

    def epoch(self, row: dict[str, float]) -> None:
        """Ignore."""
