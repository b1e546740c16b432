"""Trials of searches compared with each other and with trainings, on the validation split.

A trial predicts no test images: whoever chooses among trials by test figures has spent them. What is kept of a trial
is its accuracy on the validation split, and not which images it got right, so that nothing here is paired.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config.difference import Difference
from pipeline.errors import ConfigError
from pipeline.evaluation.metrics import wilson_interval
from pipeline.promotion.bootstrap import Interval
from pipeline.reports.named_runs import NamedRun, OnValidation, Side
from pipeline.reports.run_comparison import setting_differences


@dataclass(frozen=True)
class ValidationFigures:
    """One run: what it is, and how good it is on the validation images, at its best epoch."""

    name: str
    key: str
    model: str
    trained: str
    """How far, and as what."""
    epoch: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """Wilson's 95 % interval over images."""
    loss: float | None


@dataclass(frozen=True)
class AgainstFirst:
    """A run against the first one; the difference is this one's accuracy less the first's."""

    settings: tuple[Difference, ...] | None
    """None where the settings of one of the two are not known here."""
    accuracy: Interval


@dataclass(frozen=True)
class ValidationComparison:
    """Every run, and each but the first against the first."""

    class_names: tuple[str, ...]
    images: int
    sides: tuple[ValidationFigures, ...]
    against: tuple[AgainstFirst, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"split": "validation", **asdict(self)}


def has_trials(sides: Sequence[Side]) -> bool:
    """Whether a trial is among what is compared, so that only the validation split is left to compare on."""
    return any(run.is_trial for side in sides for run in side.runs)


def compare_on_validation(sides: Sequence[Side]) -> ValidationComparison:
    """Compare each run with the first one.

    Raises:
        ConfigError: they cannot be compared; the message says why.
    """
    for side in sides:
        if len(side.runs) > 1:
            raise ConfigError(f"{side.word}: a group cannot be compared with trials of a search; name one run of it")
    runs = [side.runs[0] for side in sides]
    figures = [_on_validation(run) for run in runs]
    for run, found in zip(runs, figures, strict=True):
        _require_same_split(runs[0], figures[0], run, found)
    prepared = next((run.prepared for run in runs if run.prepared is not None), None)
    if prepared is None:
        raise ConfigError(
            "their prepared data are gone, and with them the number of validation images; `seqpipe run prepare` "
            "with their settings makes them again"
        )
    images = prepared.images_in("validation")
    shown = [_figures(run, found, images) for run, found in zip(runs, figures, strict=True)]
    return ValidationComparison(
        class_names=prepared.class_names,
        images=images,
        sides=tuple(shown),
        against=tuple(
            AgainstFirst(setting_differences(sides[0], side), _difference(shown[0], found))
            for side, found in zip(sides[1:], shown[1:], strict=True)
        ),
    )


def _on_validation(run: NamedRun) -> OnValidation:
    if run.on_validation is None:
        raise ConfigError(
            f"{run.name} ({run.key}) was not trained here, so its validation figures are not known, "
            "and a trial of a search can be compared on no others"
        )
    return run.on_validation


def _require_same_split(first: NamedRun, its: OnValidation, other: NamedRun, found: OnValidation) -> None:
    if its.split == found.split:
        return
    known = [run.prepared for run in (first, other) if run.prepared is not None]
    if len(known) == 2 and len({(one.class_names, one.validation_hash) for one in known}) == 1:
        return
    raise ConfigError(
        f"{first.name} ({first.key}) and {other.name} ({other.key}): their validation images differ, or their classes"
    )


def _figures(run: NamedRun, found: OnValidation, images: int) -> ValidationFigures:
    low, high = wilson_interval(round(found.accuracy * images), images)
    return ValidationFigures(
        name=run.name,
        key=run.key,
        model=run.model,
        trained=found.trained,
        epoch=found.epoch,
        accuracy=found.accuracy,
        accuracy_low=low,
        accuracy_high=high,
        loss=found.loss,
    )


def _difference(first: ValidationFigures, second: ValidationFigures) -> Interval:
    """The difference of two shares, with Newcombe's hybrid score interval (Newcombe 1998, method 10).

    It takes the two for independent. On the same images most of what one gets right the other does too, which makes
    the interval too wide and not too narrow.
    """
    difference = second.accuracy - first.accuracy
    below = math.hypot(second.accuracy - second.accuracy_low, first.accuracy_high - first.accuracy)
    above = math.hypot(second.accuracy_high - second.accuracy, first.accuracy - first.accuracy_low)
    return Interval(difference, difference - below, difference + above)
