"""Progress of a stage: the command line draws it, tests ignore or record it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TrainProgress:
    """Progress of a training. `loss` and `accuracy` are the running means of this epoch."""

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
    """Receives what a stage reports, in order."""

    def note(self, text: str) -> None:
        """A line of information."""

    def warn(self, text: str) -> None:
        """A line that needs the user's attention."""

    def bytes_done(self, description: str, done_bytes: int, total_bytes: int | None) -> None:
        """Progress of a download or a conversion; it has ended when done == total."""

    def training(self, progress: TrainProgress) -> None:
        """Progress of a training, several times a second at most."""

    def epoch(self, row: dict[str, float]) -> None:
        """The metrics of a finished epoch."""


class SilentReporter:
    """Ignores everything."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def bytes_done(self, description: str, done_bytes: int, total_bytes: int | None) -> None: ...

    def training(self, progress: TrainProgress) -> None: ...

    def epoch(self, row: dict[str, float]) -> None: ...
