from types import SimpleNamespace

import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError
from pipeline.search import space_forecast
from pipeline.search.space_forecast import forecast_space
from tuning.space import Space

SPACE = Space.parse(
    {
        "train.learning_rate": {"uniform": [0.001, 0.01]},
        "train.batch_size": {"choice": [128, 32, 512, 64]},
        "model.hidden": {"integer": [16, 64, 16]},
        "model.dropout": {"uniform": [0.0, 0.4]},
    }
)
BASE = resolve("vanilla", None, ["train.batch_size=128", "model.hidden=32", "model.dropout=0.3"], {})
DEFAULT = {"train.learning_rate": 0.001, "train.batch_size": 128, "model.hidden": 32, "model.dropout": 0.3}


class Forecaster:
    """A batch of large hidden states needs much, and dropout a little; each instance is kept."""

    made: list["Forecaster"]

    def __init__(self):
        self.asked, self.forecast, self.is_closed = [], [], False
        self.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_closed = True

    def memory(self, config, classes):
        self.asked.append(config)
        assert classes == len(config.data.class_names)
        peak_mb = config.train.batch_size * config.model.hidden + (config.model.dropout > 0)
        return SimpleNamespace(fit=lambda config, cap_mb: SimpleNamespace(peak_mb=min(peak_mb, cap_mb)))

    def forecast_trial(self, config, cap_mb):
        self.forecast.append((config, cap_mb))
        return f"forecast {len(self.forecast)}"


@pytest.fixture
def forecasters(monkeypatch):
    Forecaster.made = []
    monkeypatch.setattr(space_forecast, "TrainingForecaster", Forecaster)
    return Forecaster.made


def test_the_default_the_smallest_and_the_largest_are_forecast_under_the_cap(forecasters):
    default, smallest, largest = forecast_space(BASE, SPACE, 900)
    rate = BASE.train.learning_rate
    assert (default.name, smallest.name, largest.name) == ("default", "smallest", "largest")
    assert default.config == DEFAULT | {"train.learning_rate": rate}
    assert smallest.config == {
        "train.learning_rate": rate, "train.batch_size": 32, "model.hidden": 16, "model.dropout": 0.0
    }  # fmt: skip
    assert largest.config == {
        "train.learning_rate": rate, "train.batch_size": 512, "model.hidden": 64, "model.dropout": 0.4
    }  # fmt: skip
    [forecaster] = forecasters
    assert [cap_mb for _, cap_mb in forecaster.forecast] == [900] * 3
    assert [config.train.batch_size for config, _ in forecaster.forecast] == [128, 32, 512]
    assert [one.training for one in (default, smallest, largest)] == ["forecast 1", "forecast 2", "forecast 3"]
    assert forecaster.is_closed


def test_settings_that_hold_no_memory_are_not_asked_about(forecasters):
    forecast_space(BASE, SPACE, 900)
    [forecaster] = forecasters
    assert len(forecaster.asked) == 4 + 2 + 2
    assert {config.train.learning_rate for config in forecaster.asked} == {BASE.train.learning_rate}


def test_without_an_answer_the_process_is_ended(forecasters, monkeypatch):
    def fail(self, config, classes):
        raise MachineUnfitError("no answer")

    monkeypatch.setattr(Forecaster, "memory", fail)
    with pytest.raises(MachineUnfitError):
        forecast_space(BASE, SPACE, 900)
    assert forecasters[0].is_closed
