"""A model's predictions: checked on creation, stored without pickle.

Legend: N images, K classes.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import WorkspaceError
from pipeline.workspace.durable_files import write_atomically

_SUM_TOLERANCE = 1e-4  # float32 softmax over a few classes is within 1e-6; half precision is not and is refused


@dataclass(frozen=True, eq=False)
class Predictions:
    """Class probabilities of N images, with their true labels.

    `ids` (N, int64) index into the official test file, `labels` (N, int64) into `class_names`, `probabilities`
    (N x K, float32) has one row per image that sums to 1.

    Raises:
        ValueError: the arrays or class names are anything else.
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, array, kind, dimensions in (
            ("ids", self.ids, np.int64, 1),
            ("labels", self.labels, np.int64, 1),
            ("probabilities", self.probabilities, np.float32, 2),
        ):
            if array.dtype != kind or array.ndim != dimensions:
                raise ValueError(
                    f"{name} must be a {dimensions}-dimensional {kind.__name__} array, "
                    f"not {array.ndim}-dimensional {array.dtype}"
                )
        images, classes = self.probabilities.shape
        if images == 0:
            raise ValueError("there are no predictions")
        if not len(self.ids) == len(self.labels) == images:
            raise ValueError(f"{len(self.ids)} ids, {len(self.labels)} labels, but probabilities of {images} images")
        if len(set(self.class_names)) != len(self.class_names) or len(self.class_names) != classes:
            raise ValueError(f"{classes} columns of probabilities need {classes} different class names")
        if self.ids.min() < 0 or len(np.unique(self.ids)) != images:
            raise ValueError("ids must be non-negative, each image once")
        if self.labels.min() < 0 or self.labels.max() >= classes:
            raise ValueError(f"labels must lie in 0..{classes - 1}")
        if not np.isfinite(self.probabilities).all():
            raise ValueError("probabilities must be finite")
        if self.probabilities.min() < 0 or self.probabilities.max() > 1:
            raise ValueError("probabilities must lie in 0..1: were logits passed?")
        sums = self.probabilities.sum(axis=1, dtype=np.float64)
        worst = int(np.abs(sums - 1).argmax())
        if abs(sums[worst] - 1) > _SUM_TOLERANCE:
            raise ValueError(f"probabilities of each image must sum to 1; row {worst} sums to {sums[worst]:.6f}")

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The most probable class of each image (N); the first one where several are equal."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of the predicted class (N)."""
        return self.probabilities[np.arange(len(self.ids)), self.predicted]


class Mistake(NamedTuple):
    """A misclassified image: its row in the predictions, its true class, the predicted class and the confidence."""

    row: int
    label: int
    predicted: int
    confidence: float


def most_confident_mistakes(predictions: Predictions, count: int) -> list[Mistake]:
    """At most `count` mistakes, the most confident first; ties are in order of image ids."""
    predicted, confidence = predictions.predicted, predictions.confidence
    wrong = np.flatnonzero(predicted != predictions.labels)
    order = np.lexsort((predictions.ids[wrong], -confidence[wrong]))[:count]
    return [
        Mistake(int(row), int(predictions.labels[row]), int(predicted[row]), float(confidence[row]))
        for row in wrong[order]
    ]


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write an `.npz` of plain arrays, whole or not at all; the same predictions give the same bytes."""
    content = io.BytesIO()
    np.savez(
        content,
        ids=predictions.ids,
        labels=predictions.labels,
        probabilities=predictions.probabilities,
        class_names=np.array(predictions.class_names, dtype=np.str_),
    )
    write_atomically(path, content.getvalue())


def load_predictions(path: Path) -> Predictions:
    """Read what `save_predictions` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        WorkspaceError: it is damaged, of another kind, or holds pickles.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Predictions(
                ids=arrays["ids"],
                labels=arrays["labels"],
                probabilities=arrays["probabilities"],
                class_names=tuple(str(name) for name in arrays["class_names"]),
            )
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise WorkspaceError(
            f"{path}: no usable predictions ({error}); remove it and evaluate the model again"
        ) from error
