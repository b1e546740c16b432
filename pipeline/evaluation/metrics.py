"""Metrics of a trained model, computed from its stored predictions.

Legend: N images, K classes, M confidence bins.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from pipeline.evaluation.predictions import Predictions

# The smallest normal float32: only a probability that underflowed is clipped, and no image adds more than 87.34 nats.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest; a score whose denominator is 0 (class never predicted, or absent) is 0."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence lies in (low, high]; mean confidence and accuracy are None in an empty bin."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class ClassificationReport:
    """The metrics of one model on one set of images; shares are fractions (0..1).

    `confusion[i][j]` counts the images of class i that were predicted as class j.
    `loss` is the mean of -ln p(label) in nats. `accuracy_low` and `accuracy_high` bound the 95 % Wilson interval.
    """

    class_names: tuple[str, ...]
    images: int
    loss: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    ece: float
    max_calibration_error: float
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...]

    def to_json(self) -> dict[str, Any]:
        """The report in plain types, for `json.dumps`."""
        plain: dict[str, Any] = TypeAdapter(ClassificationReport).dump_python(self, mode="json")
        return plain

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "ClassificationReport":
        """The report that `to_json` wrote; raises `ValueError` for anything else."""
        return TypeAdapter(ClassificationReport).validate_python(plain)


def compute(predictions: Predictions, *, calibration_bins: int = 15) -> ClassificationReport:
    """Compute all metrics of one model on one set of images.

    The loss is the mean negative log likelihood of the labels, in float64, with probabilities clipped to
    `SMALLEST_PROBABILITY`. Macro-F1 is the plain mean of the classes' F1, absent classes included.

    Calibration (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eqs. 3 and 5): images fall by
    confidence into M bins of equal width, B_m = ((m-1)/M, m/M];
    ECE = sum_m |B_m|/N * |acc(B_m) - conf(B_m)|, and the maximum calibration error is the largest such gap.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    images, classes = predictions.probabilities.shape
    labels, predicted = predictions.labels, predictions.predicted
    correct = predicted == labels
    low, high = wilson_interval(int(correct.sum()), images)

    label_probabilities = predictions.probabilities[np.arange(images), labels].astype(np.float64)
    loss = float(-np.log(np.maximum(label_probabilities, SMALLEST_PROBABILITY)).mean())

    every_class = np.arange(classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=every_class, zero_division=0
    )
    confusion = confusion_matrix(labels, predicted, labels=every_class)

    reliability = _reliability(predictions.confidence, correct, calibration_bins)
    gaps = [
        (bin_.count / images, abs(bin_.accuracy - bin_.confidence))
        for bin_ in reliability
        if bin_.accuracy is not None and bin_.confidence is not None
    ]
    return ClassificationReport(
        class_names=predictions.class_names,
        images=images,
        loss=loss,
        accuracy=float(correct.mean()),
        accuracy_low=low,
        accuracy_high=high,
        macro_f1=float(np.mean(f1)),
        ece=math.fsum(share * gap for share, gap in gaps),
        max_calibration_error=max(gap for _, gap in gaps),
        classes=tuple(
            ClassScores(name, float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]))
            for k, name in enumerate(predictions.class_names)
        ),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        reliability=reliability,
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (Wilson 1927; no continuity correction), both ends in 0..1."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    from scipy.stats import binomtest  # the import takes a third of a second

    low, high = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    # At the extremes the ends are exactly 0 and 1, which rounding would miss by an ulp.
    return (float(low) if successes > 0 else 0.0), (float(high) if successes < trials else 1.0)


def _reliability(
    confidence: npt.NDArray[np.float32], correct: npt.NDArray[np.bool_], bins: int
) -> tuple[ReliabilityBin, ...]:
    edges = np.linspace(0, 1, bins + 1)
    # Edges in float32 too: otherwise the float32 nearest to 0.8 would lie above the edge 0.8.
    members = np.digitize(confidence, edges[1:-1].astype(np.float32), right=True)
    count = np.bincount(members, minlength=bins)
    confidence_sum = np.bincount(members, weights=confidence, minlength=bins)
    correct_sum = np.bincount(members, weights=correct, minlength=bins)
    return tuple(
        ReliabilityBin(
            low=float(edges[m]),
            high=float(edges[m + 1]),
            count=int(count[m]),
            confidence=float(confidence_sum[m] / count[m]) if count[m] else None,
            accuracy=float(correct_sum[m] / count[m]) if count[m] else None,
        )
        for m in range(bins)
    )
