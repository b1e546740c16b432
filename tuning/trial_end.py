"""How a trial ended: its outcome, from the result of its capped process and what it had reported."""

from tuning.capped.run_capped import Capped
from tuning.ledger import EpochReport, Finish, Outcome
from tuning.sampler import Mode


class LostTrialError(Exception):
    """The trial's process was killed from outside: the trial is to be started again."""


class Progress:
    """The best value that a trial has reported so far, and its last epoch."""

    def __init__(self, mode: Mode) -> None:
        self._better = max if mode == "max" else min
        self.best: float | None = None
        self.epochs = 0

    def add(self, report: EpochReport) -> None:
        """Take a report into account."""
        self.best = report.value if self.best is None else self._better(self.best, report.value)
        self.epochs = max(self.epochs, report.epoch)


def finish_of(result: Capped[str], progress: Progress) -> Finish | None:
    """How the row is finished; None if it is not: the trial was asked to leave, and goes on later.

    Raises:
        LostTrialError: nothing is known of how it ended.
    """

    def finish(outcome: Outcome, value: float | None = None, error: str = "", details: str = "") -> Finish:
        return Finish(
            outcome, value, result.peak_mb, result.cap_mb, epochs=progress.epochs, error=error, details=details
        )

    match result.outcome:
        case "completed" if result.value == "completed" and progress.best is None:
            return finish("failed", error="the objective reported nothing")
        case "completed" if result.value == "completed":
            return finish("completed", progress.best)
        case "completed" if result.value == "paused":
            return None
        case "completed":
            return finish("diverged", error=str(result.value))
        case "memory_cap":
            return finish("memory_cap", error=result.error or "")
        case "failed":
            return finish("failed", error=result.error or "", details=result.traceback or "")
        case _ if result.stop_reason is not None:
            return None  # it did not leave in time; it goes on from its last checkpoint
        case _:
            raise LostTrialError(result.error or "no word of why")
