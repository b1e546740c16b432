"""What trials of a space need of this machine: the default one, the smallest and the largest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.schema import RunConfig
from pipeline.search.space import configuration, default_of
from pipeline.training.forecaster import TrainingForecast, TrainingForecaster
from tuning.space import Choice, Integer, LogUniform, Parameter, Space, Uniform

ALL_MB = 1e9
"""More than any trial needs."""


@dataclass(frozen=True)
class TrialForecast:
    """Of one configuration of a space."""

    name: str
    """`default`, `smallest` or `largest`: in memory, with the whole batch at once."""
    config: Mapping[str, Any]
    training: TrainingForecast


def forecast_space(base: RunConfig, space: Space, cap_mb: float) -> list[TrialForecast]:
    """Forecast each trial under the cap.

    The smallest and the largest have that value of each parameter which needs the least and the most by itself.

    Raises:
        MachineUnfitError: the device or the kernel that the config asks for is not here, or there is no answer.
    """
    default = default_of(space, base)
    with TrainingForecaster() as forecaster:

        def peak_mb(values: Mapping[str, Any]) -> float:
            config = configuration(base, values)
            return forecaster.memory(config, len(config.data.class_names)).fit(config, ALL_MB).peak_mb

        smallest, largest = dict(default), dict(default)
        for name, parameter in space.items():
            if not _counts(name):
                continue
            peaks = [(peak_mb({**default, name: value}), value) for value in _ends(parameter)]
            smallest[name] = min(peaks, key=lambda each: each[0])[1]
            largest[name] = max(peaks, key=lambda each: each[0])[1]
        named = {"default": default, "smallest": smallest, "largest": largest}
        return [
            TrialForecast(name, values, forecaster.forecast_trial(configuration(base, values), cap_mb))
            for name, values in named.items()
        ]


def _counts(name: str) -> bool:
    """Whether memory may depend on a setting."""
    return name.startswith("model.") or name in ("train.batch_size", "train.ema_decay", "train.optimizer")


def _ends(parameter: Parameter) -> Iterator[Any]:
    """Values among which the smallest and the largest need are."""
    match parameter:
        case Choice(options):
            yield from options
        case Integer():
            values = parameter.values()
            yield from (values[0], values[-1])
        case LogUniform(low, high) | Uniform(low, high):
            yield from (low, high)
