"""Progress of a stage: the command line draws it, tests ignore or record it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is. `loss` and `accuracy` are the running means of this epoch."""

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
    """What a stage reports, in the order in which it happens."""

    def note(self, text: str) -> None:
        """A line of information."""

    def warn(self, text: str) -> None:
        """A line that the user should know of."""

    def bytes_done(self, description: str, done_bytes: int, total_bytes: int | None) -> None:
        """How far a download or a conversion is; it has ended when done == total."""

    def training(self, progress: TrainProgress) -> None:
        """How far a training is, several times a second at most."""

    def epoch(self, row: dict[str, float]) -> None:
        """The figures of a finished epoch."""


class SilentReporter:
    """Ignores everything."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def bytes_done(self, description: str, done_bytes: int, total_bytes: int | None) -> None: ...

    def training(self, progress: TrainProgress) -> None: ...

    def epoch(self, row: dict[str, float]) -> None: ...
