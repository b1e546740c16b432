"""Runs compared on the same test images: settings, figures, and what the differences are worth.

Legend: S seeds, N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.config.difference import Difference, differences
from pipeline.errors import ConfigError
from pipeline.evaluation.metrics import compute
from pipeline.evaluation.predictions import Predictions
from pipeline.promotion.comparison import Comparison, NotComparableError, compare, is_right, log_losses, same_images
from pipeline.promotion.seeds import Estimate, group_difference, group_mean
from pipeline.reports.named_runs import NamedRun, Side

SHOWN_DISAGREEMENTS = 24


@dataclass(frozen=True)
class Figures:
    """One side: what it is, and how good it is on the test images."""

    name: str
    keys: tuple[str, ...]
    model: str
    parameters: int | None
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """The 95 % interval: Wilson's over images for one run, that of `seeds.group_mean` for a group."""
    interval_of: str
    """`images`, or `seeds and images`."""
    loss: float
    ece: float


@dataclass(frozen=True)
class Against:
    """A side against the first one: settings that differ, and the differences of figures, this less the first."""

    settings: tuple[Difference, ...] | None
    """None where the settings of one of the two are not known here."""
    paired: Comparison | None
    """Of two single runs."""
    accuracy: Estimate | None
    """Of groups, or of a run and a group."""
    log_loss: Estimate | None


@dataclass(frozen=True)
class RunComparison:
    """Every side, and each but the first against the first."""

    class_names: tuple[str, ...]
    images: int
    sides: tuple[Figures, ...]
    against: tuple[Against, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; of the images that a pair disagrees on the first few, and their number."""
        content = {"split": "test", **asdict(self)}
        for pair in content["against"]:
            if (paired := pair["paired"]) is not None:
                paired["disagreements_in_all"] = len(paired["disagreements"])
                paired["disagreements"] = paired["disagreements"][:SHOWN_DISAGREEMENTS]
        return content


def compare_sides(sides: Sequence[Side]) -> RunComparison:
    """Compare each side with the first one.

    Raises:
        ConfigError: they cannot be compared; the message says why.
        WorkspaceError: predictions are damaged.
    """
    first = sides[0].runs[0].load_predictions()
    aligned = [[_aligned(sides[0].runs[0], first, run) for run in side.runs] for side in sides]
    return RunComparison(
        class_names=first.class_names,
        images=len(first.ids),
        sides=tuple(_figures(side, found) for side, found in zip(sides, aligned, strict=True)),
        against=tuple(
            _against(sides[0], aligned[0], side, found) for side, found in zip(sides[1:], aligned[1:], strict=True)
        ),
    )


def _aligned(first_run: NamedRun, first: Predictions, run: NamedRun) -> Predictions:
    """A run's predictions in the order of the first one's images."""
    try:
        (found,) = same_images(first, [run.load_predictions()])
        if first_run.prepared and run.prepared and first_run.prepared.test_hash != run.prepared.test_hash:
            names = f"{first_run.prepared.dataset} and {run.prepared.dataset}"
            raise NotComparableError(f"their test images differ, though they have the same numbers: {names}")
    except NotComparableError as error:
        raise ConfigError(f"{first_run.name} ({first_run.key}) and {run.name} ({run.key}): {error}") from None
    return found


def _figures(side: Side, found: Sequence[Predictions]) -> Figures:
    reports = [compute(one) for one in found]
    accuracy, low, high, unit = reports[0].accuracy, reports[0].accuracy_low, reports[0].accuracy_high, "images"
    if len(found) > 1:
        mean = group_mean(_right(found))
        accuracy, low, high, unit = mean.estimate, mean.low, mean.high, mean.unit
    return Figures(
        name=side.name,
        keys=tuple(run.key for run in side.runs),
        model=", ".join(dict.fromkeys(run.model for run in side.runs)),
        parameters=side.runs[0].parameters if len({run.parameters for run in side.runs}) == 1 else None,
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        interval_of=unit,
        loss=float(np.mean([report.loss for report in reports])),
        ece=float(np.mean([report.ece for report in reports])),
    )


def _against(
    first: Side, first_found: Sequence[Predictions], second: Side, second_found: Sequence[Predictions]
) -> Against:
    paired, accuracy, log_loss = None, None, None
    if len(first_found) == len(second_found) == 1:
        paired = compare(first_found[0], second_found[0])
    else:
        accuracy = group_difference(_right(first_found), _right(second_found))
        log_loss = group_difference(_losses(first_found), _losses(second_found))
    return Against(setting_differences(first, second), paired, accuracy, log_loss)


def setting_differences(first: Side, second: Side) -> tuple[Difference, ...] | None:
    """The settings in which two sides differ; within a group only the seed is expected to."""
    known = [_settings(side) for side in (first, second)]
    return tuple(differences(known[0], known[1])) if known[0] is not None and known[1] is not None else None


def _settings(side: Side) -> Mapping[str, Any] | None:
    """The settings that a side's runs share; those that differ among them as all values in turn."""
    given = [run.settings for run in side.runs]
    if any(one is None for one in given):
        return None
    return _merged([one for one in given if one is not None])


def _merged(given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in given for key in one):
        values = [one.get(key) for one in given]
        if all(isinstance(value, Mapping) for value in values):
            merged[key] = _merged([value for value in values if isinstance(value, Mapping)])
        else:
            merged[key] = values[0] if all(value == values[0] for value in values) else tuple(values)
    return merged


def _right(found: Sequence[Predictions]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.stack([is_right(one) for one in found]).astype(np.float64)  # S x N


def _losses(found: Sequence[Predictions]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.stack([log_losses(one) for one in found])  # S x N
