"""What is known of trainings that differ in their seed alone: how their figures spread, which one is the median."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.config.schema import RunConfig
from pipeline.errors import SeqpipeError
from pipeline.evaluation.published import ComparisonRow
from pipeline.evaluation.spread import Spread, spread
from pipeline.reports.named_runs import Side
from pipeline.reports.training_facts import TrainingFacts
from pipeline.training.forecaster import TrainingForecast

Forecast = Callable[[RunConfig], TrainingForecast]
"""Forecasts a training on this machine; raises a `SeqpipeError` where it cannot."""


@dataclass(frozen=True)
class GroupFacts:
    """Trainings with the same settings, by seed; often one."""

    letter: str
    """A is the one that did best on validation images."""
    trainings: tuple[TrainingFacts, ...]
    forecast: TrainingForecast | None = None
    """Of one of them, on this machine as it is now."""
    no_forecast: str = ""
    """Why there is none."""

    @property
    def first(self) -> TrainingFacts:
        """Any of them, for what they share."""
        return self.trainings[0]

    @property
    def title(self) -> str:
        """`A: vanilla, 4 classes, recipe best, seeds 0, 1, 2`."""
        first = self.first
        known = [first.run.model]
        if first.metrics is not None:
            known.append(f"{len(first.metrics.class_names)} classes")
        if first.config is not None:
            known.append(f"recipe {first.config.recipe}")
        return f"{self.letter}: {', '.join(known)}, {self.seeds_in_words}"

    @property
    def seeds_in_words(self) -> str:
        """`seeds 0, 1, 2`; the run's name where its seed is not known."""
        seeds = [str(one.seed) for one in self.trainings if one.seed is not None]
        if not seeds:
            return self.first.run.name
        return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"

    @property
    def side(self) -> Side:
        """As a side of a comparison: those whose predictions are here."""
        return Side(self.title, tuple(one.run for one in self.trainings if one.predictions is not None))

    @property
    def validation(self) -> Spread | None:
        """Of the accuracy on validation images."""
        return _spread([one.validation_accuracy for one in self.trainings])

    @property
    def test(self) -> Spread | None:
        """Of the accuracy on test images, over those that were evaluated."""
        return _spread([one.metrics.accuracy if one.metrics else None for one in self.trainings])

    @property
    def loss(self) -> float | None:
        """The mean cross entropy of the test images, in nats."""
        return _mean([one.metrics.loss if one.metrics else None for one in self.trainings])

    @property
    def ece(self) -> float | None:
        """The mean of the expected calibration errors, a fraction."""
        return _mean([one.metrics.ece if one.metrics else None for one in self.trainings])

    @property
    def median(self) -> TrainingFacts:
        """The one in the middle by test accuracy, the lower one of two; by validation if none was evaluated."""
        evaluated = [one for one in self.trainings if one.metrics is not None]

        def value(one: TrainingFacts) -> float:
            return one.metrics.accuracy if one.metrics is not None else one.validation_accuracy or 0.0

        among = sorted(evaluated or self.trainings, key=value)
        return among[(len(among) - 1) // 2]

    @property
    def forecast_s(self) -> float | None:
        """How long the median was forecast to take: by itself when it began, or else by this machine."""
        return self.median.forecast_s or (self.forecast.seconds if self.forecast else None)

    @property
    def published(self) -> ComparisonRow | None:
        """The published figures beside those of the median; None if none of them was evaluated."""
        return self.median.against_published

    @property
    def points_over_published(self) -> float | None:
        """Mean test accuracy less the published one, in percentage points; None where it cannot be compared."""
        row, test = self.published, self.test
        if row is None or row.published_accuracy is None or test is None:
            return None
        return 100 * (test.mean - row.published_accuracy)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "group": self.letter,
            "title": self.title,
            "model": self.first.run.model,
            "seed_group": self.first.run.seed_group,
            "validation_accuracy": asdict(self.validation) if self.validation else None,
            "test_accuracy": asdict(self.test) if self.test else None,
            "test_loss": self.loss,
            "ece": self.ece,
            "points_over_published": self.points_over_published,
            "median": self.median.run.key,
            "forecast": _plain(self.forecast) if self.forecast else None,
            "no_forecast": self.no_forecast,
            "trainings": [one.to_json() for one in self.trainings],
        }


def with_forecast(group: GroupFacts, forecast: Forecast) -> GroupFacts:
    """The group with what `forecast` says of its trainings, as they were computed."""
    config, trained = group.first.config, group.first.run.trained
    if config is None or trained is None:
        return replace(group, no_forecast="its settings are not here")
    try:
        return replace(group, forecast=forecast(_as_computed(config, trained.numerics)))
    except SeqpipeError as error:
        return replace(group, no_forecast=str(error))


def _as_computed(config: RunConfig, numerics: Any) -> RunConfig:
    """The config with what its training chose: threads, precision, and images at once."""
    chosen = {
        "device": numerics.get("device"),
        "precision": numerics.get("precision"),
        "threads": numerics.get("threads"),
        "micro_batch_size": numerics.get("micro_batch_size"),
        "recompute": config.compute.recompute or bool(numerics.get("activation_checkpointing")),
    }
    known = {name: value for name, value in chosen.items() if value is not None}
    return config.model_copy(update={"compute": config.compute.model_copy(update=known)})


def _plain(forecast: TrainingForecast) -> dict[str, Any]:
    """In plain values; of limits a report says nothing."""
    return {name: value for name, value in asdict(forecast).items() if name != "limit_mb"}


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return spread(known) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
