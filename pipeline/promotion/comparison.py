"""Two models compared on the same test images.

Legend: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.metrics import SMALLEST_PROBABILITY
from pipeline.evaluation.predictions import Predictions
from pipeline.promotion.bootstrap import Interval, mean_intervals
from pipeline.promotion.paired_tests import PairCounts, holm, unequal


class NotComparableError(ValueError):
    """Two models that did not predict the same images of the same classes; the message says in what they differ."""


@dataclass(frozen=True)
class ClassDifference:
    """One class: the share of its images that each model gets right, and the exact McNemar test on them."""

    name: str
    counts: PairCounts
    first_recall: float
    second_recall: float
    p_value: float
    adjusted_p_value: float
    """Corrected for the number of classes (Holm)."""


@dataclass(frozen=True)
class Disagreement:
    """An image that the two models take for different classes; `row` is its row in the first one's predictions."""

    row: int
    image: int
    """Its number in the official test file."""
    label: int
    first: int
    first_confidence: float
    second: int
    second_confidence: float


@dataclass(frozen=True)
class Comparison:
    """The second model against the first; every difference is the second's figure less the first's.

    The intervals are of 95 %, by the paired bootstrap over images; `p_value` is of the exact McNemar test, two-sided.
    Both hold for these two trained models, whatever another seed would give.
    """

    counts: PairCounts
    first_accuracy: float
    second_accuracy: float
    accuracy: Interval
    """Of the difference in accuracy."""
    log_loss: Interval
    """Of the difference in the mean of -ln p(label), in nats."""
    p_value: float
    classes: tuple[ClassDifference, ...]
    disagreements: tuple[Disagreement, ...]
    """All of them: first those that one model gets right, the most confident wrong answers first."""


def compare(first: Predictions, second: Predictions, *, seed: int = 0) -> Comparison:
    """Compare two models on the images that both have predicted; the order of the images may differ.

    Raises:
        NotComparableError: they predicted other images, or other classes.
    """
    second = same_images(first, [second])[0]
    counts = pair_counts(first, second)
    losses = log_losses(second) - log_losses(first)
    gains = is_right(second).astype(np.float64) - is_right(first)
    accuracy, log_loss = mean_intervals(np.stack([gains, losses]), seed=seed)
    return Comparison(
        counts=counts,
        first_accuracy=float(is_right(first).mean()),
        second_accuracy=float(is_right(second).mean()),
        accuracy=accuracy,
        log_loss=log_loss,
        p_value=unequal(counts),
        classes=_class_differences(first, second),
        disagreements=_disagreements(first, second),
    )


def same_images(first: Predictions, others: Sequence[Predictions]) -> list[Predictions]:
    """The other predictions, each in the order of the first one's images.

    Raises:
        NotComparableError: one of them is of other images, or of other classes.
    """
    return [_in_order_of(first, other) for other in others]


def pair_counts(first: Predictions, second: Predictions) -> PairCounts:
    """On how many images only one of the two is right; both have the same images in the same order."""
    return _counts(is_right(first), is_right(second))


def class_counts(first: Predictions, second: Predictions) -> dict[str, PairCounts]:
    """The same for the images of each class, by its name; a class without images is left out."""
    found = {}
    for index, name in enumerate(first.class_names):
        members = first.labels == index
        if members.any():
            found[name] = _counts(is_right(first)[members], is_right(second)[members])
    return found


def is_right(predictions: Predictions) -> npt.NDArray[np.bool_]:
    """Whether each image (N) is classified correctly."""
    return np.asarray(predictions.predicted == predictions.labels)


def log_losses(predictions: Predictions) -> npt.NDArray[np.float64]:
    """-ln p(label) of each image (N), as the loss of a report has it."""
    chances = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels].astype(np.float64)
    return np.asarray(-np.log(np.maximum(chances, SMALLEST_PROBABILITY)))


def _in_order_of(first: Predictions, other: Predictions) -> Predictions:
    if other.class_names != first.class_names:
        raise NotComparableError(
            f"they tell apart other classes: {', '.join(first.class_names)}; and {', '.join(other.class_names)}"
        )
    shared = np.intersect1d(first.ids, other.ids).size
    if not shared == len(first.ids) == len(other.ids):
        raise NotComparableError(
            f"they predicted other test images: {len(first.ids)} and {len(other.ids)}, of which both have {shared}"
        )
    rows = np.argsort(other.ids)[np.argsort(np.argsort(first.ids))]
    if (other.labels[rows] != first.labels).any():
        raise NotComparableError("they have other labels for the same test images, so their data sets differ")
    return Predictions(other.ids[rows], other.labels[rows], other.probabilities[rows], other.class_names)


def _counts(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> PairCounts:
    return PairCounts(len(first), int((first & ~second).sum()), int((second & ~first).sum()))


def _class_differences(first: Predictions, second: Predictions) -> tuple[ClassDifference, ...]:
    found = class_counts(first, second)
    p_values = [unequal(counts) for counts in found.values()]
    rows = []
    for (name, counts), p_value, adjusted in zip(found.items(), p_values, holm(p_values), strict=True):
        members = first.labels == first.class_names.index(name)
        recalls = [float(is_right(one)[members].mean()) for one in (first, second)]
        rows.append(ClassDifference(name, counts, recalls[0], recalls[1], p_value, adjusted))
    return tuple(rows)


def _disagreements(first: Predictions, second: Predictions) -> tuple[Disagreement, ...]:
    rows = np.flatnonzero(first.predicted != second.predicted)
    one_is_right = (is_right(first) | is_right(second))[rows]
    wrong = np.maximum(
        np.where(is_right(first), 0.0, first.confidence), np.where(is_right(second), 0.0, second.confidence)
    )[rows]
    order = np.lexsort((first.ids[rows], -wrong, ~one_is_right))
    return tuple(
        Disagreement(
            row=int(row),
            image=int(first.ids[row]),
            label=int(first.labels[row]),
            first=int(first.predicted[row]),
            first_confidence=float(first.confidence[row]),
            second=int(second.predicted[row]),
            second_confidence=float(second.confidence[row]),
        )
        for row in rows[order]
    )
