"""Ray's ASHA over rows: it knows from the start what the ledger knows, for it forgets its rungs when Ray ends.

A trial is known by its row, not by Ray's own id, so that one that goes on after a crash counts once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from tuning.ledger import Row
from tuning.sampler import Mode


@dataclass(frozen=True)
class _RowTrial:
    """All that ASHA looks at in a trial."""

    trial_id: str


class LedgerAsha(AsyncHyperBandScheduler):  # type: ignore[misc]  # Ray is not typed
    """Stops a trial whose value at a rung is below the best `1 / reduction_factor` of those that reached it."""

    def __init__(
        self, rows: Sequence[Row], mode: Mode, max_epochs: int, grace_epochs: int, reduction_factor: float
    ) -> None:
        super().__init__(
            time_attr="epoch",
            metric="value",
            mode=mode,
            max_t=max_epochs,
            grace_period=grace_epochs,
            reduction_factor=reduction_factor,
            stop_last_trials=False,
        )
        self._max_epochs = max_epochs
        for row in rows:
            trial = _trial(row.number)
            super().on_trial_add(None, trial)
            for report in row.reports:
                self._decide(trial, report.epoch, report.value)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A row is about to run."""
        super().on_trial_add(tune_controller, _trial(trial.config["row"]))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Go on, or stop?"""
        return self._decide(_trial(trial.config["row"]), result["epoch"], result["value"])

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """A row has ended; what it reached was recorded when it was reported."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """A row was given up; its figures stay."""

    def _decide(self, trial: _RowTrial, epoch: int, value: float) -> str:
        if not math.isfinite(value) or epoch < 1:
            return str(TrialScheduler.CONTINUE)  # said it has started, or how it ended: no epoch
        decision = super().on_trial_result(None, trial, {"epoch": epoch, "value": value})
        # a trial that has done its last epoch is complete, however it compares
        return str(TrialScheduler.CONTINUE if epoch >= self._max_epochs else decision)


def _trial(row: int) -> _RowTrial:
    return _RowTrial(f"row-{row}")
