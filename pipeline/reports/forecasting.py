"""Forecasts for a report: memory, then time; a machine that is too busy to say is not asked again."""

import math
from typing import Protocol

from pipeline.config.schema import RunConfig
from pipeline.errors import MachineUnfitError
from pipeline.training.forecaster import TrainingForecast

PATIENCE_S = 90.0
"""How long to wait for an answer."""
_NO_MEMORY_MB = 0.0
"""A training that does not fit is forecast without timing a step of it."""


class Forecaster(Protocol):
    """`TrainingForecaster`, as far as it is asked here."""

    def forecast(self, config: RunConfig, limit_mb: float | None = None) -> TrainingForecast:
        """What a training needs, within a limit."""


class ReportForecasts:
    """Forecasts trainings within whatever memory they take."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self._gave_up: MachineUnfitError | None = None
        self._times_steps = True

    def __call__(self, config: RunConfig) -> TrainingForecast:
        """What a training needs; without its time if the machine is too busy to time a step.

        Raises:
            MachineUnfitError: there is no forecast.
        """
        if self._gave_up is not None:
            raise self._gave_up
        try:
            memory = self._forecaster.forecast(config, _NO_MEMORY_MB)
        except MachineUnfitError as error:
            self._gave_up = error
            raise
        if not self._times_steps:
            return memory
        try:
            return self._forecaster.forecast(config, math.inf)
        except MachineUnfitError:
            self._times_steps = False
            return memory
