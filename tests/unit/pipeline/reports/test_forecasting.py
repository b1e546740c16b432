"""Forecasts for a report, of a machine that may be too busy to say."""

import math

import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError
from pipeline.reports.forecasting import ReportForecasts
from pipeline.training.forecaster import TrainingForecast

CONFIG = resolve("vanilla", sets=["data.source=synthetic"])


class Machine:
    """Forecasts; asked for what it is too busy for, it does not answer."""

    def __init__(self, *, too_busy_for: str = "") -> None:
        self.too_busy_for = too_busy_for
        self.asked: list[float | None] = []

    def forecast(self, config, limit_mb=None):
        self.asked.append(limit_mb)
        if self.too_busy_for == "memory" or (limit_mb == math.inf and self.too_busy_for == "time"):
            raise MachineUnfitError("no forecast within 90 s")
        seconds = None if limit_mb == 0 else 7.0
        return TrainingForecast(400.0, limit_mb, 32, False, None, seconds, 0.1, 1.0)


def test_memory_and_time_are_forecast():
    assert ReportForecasts(Machine())(CONFIG).seconds == 7.0


def test_where_no_step_can_be_timed_there_is_the_memory_and_no_other_training_is_waited_for():
    machine = Machine(too_busy_for="time")
    forecasts = ReportForecasts(machine)
    assert [(one.peak_mb, one.seconds) for one in (forecasts(CONFIG), forecasts(CONFIG))] == [(400.0, None)] * 2
    assert machine.asked == [0.0, math.inf, 0.0]


def test_where_nothing_is_answered_it_is_asked_once():
    machine = Machine(too_busy_for="memory")
    forecasts = ReportForecasts(machine)
    for _ in range(2):
        with pytest.raises(MachineUnfitError, match="within 90 s"):
            forecasts(CONFIG)
    assert machine.asked == [0.0]
