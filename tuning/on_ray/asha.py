"""Ray's ASHA scheduler over the rows of a ledger.

Ray forgets ASHA's rungs at the end of a run, so they are filled from the ledger at the start. A trial is identified
by its row, not by Ray's own id, so that one that goes on after a crash counts once.
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
    """The part of a trial that ASHA uses."""

    trial_id: str


class LedgerAsha(AsyncHyperBandScheduler):  # type: ignore[misc]  # Ray is not typed
    """Stops a trial whose value at a rung is not among the best `1 / reduction_factor` of those that reached it."""

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
        super().on_trial_add(tune_controller, _trial(trial.config["row"]))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        return self._decide(_trial(trial.config["row"]), result["epoch"], result["value"])

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """Nothing to do: what the row reached was recorded when it was reported."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing to do: the figures of a row that was given up stay."""

    def _decide(self, trial: _RowTrial, epoch: int, value: float) -> str:
        if not math.isfinite(value) or epoch < 1:
            return str(TrialScheduler.CONTINUE)  # the message is not about an epoch
        decision = super().on_trial_result(None, trial, {"epoch": epoch, "value": value})
        # a trial is complete after its last epoch, however it compares
        return str(TrialScheduler.CONTINUE if epoch >= self._max_epochs else decision)


def _trial(row: int) -> _RowTrial:
    return _RowTrial(f"row-{row}")
