"""What each stage hands to the next: frozen, typed, kept in the stage's manifest and read back from it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import WorkspaceError
from pipeline.workspace import canonical_json

if TYPE_CHECKING:
    from numpy.typing import NDArray


class StageResult(BaseModel):
    """A result and the folder that holds its files."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    folder: Path = Field(exclude=True)
    """Where the stage's files lie; not in the manifest, since the folder may move."""


class PreparedData(StageResult):
    """The chosen images as uint8 arrays, N x 32 x 32 x 3, and their labels, one file per split."""

    dataset: str
    source: str
    class_names: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    """Images of each class, by split."""
    fraction: float
    sha256: Mapping[str, str]
    """Of the raw bytes of each array."""
    data_hash: str
    """One hash over all of them."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of the training split, per channel, on the 0..255 scale."""

    @property
    def test_hash(self) -> str:
        """Which images, with which labels, a model is judged on."""
        judged_on = {name: self.sha256[name] for name in ("test_images", "test_labels")}
        return hashlib.sha256(canonical_json(judged_on)).hexdigest()

    @property
    def contact_sheet(self) -> Path:
        """A picture of some training images of each class."""
        return self.folder / "contact_sheet.png"

    def array(self, name: str) -> "NDArray[Any]":
        """A read-only map of `<split>_images`, `<split>_labels` or `test_ids`, checked against its hash.

        Raises:
            WorkspaceError: it is not what was prepared.
        """
        import numpy as np

        path = self.file(name)
        try:
            mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            problem = "" if hashlib.sha256(mapped.data).hexdigest() == self.sha256[name] else "altered"
        except (OSError, ValueError, EOFError):
            problem = "damaged"
        if problem:
            raise self._spoilt(path, problem)
        return mapped

    def file(self, name: str) -> Path:
        """Where an array lies; raises `WorkspaceError` where it does not."""
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            raise self._spoilt(path, "missing")
        return path

    def _spoilt(self, path: Path, problem: str) -> WorkspaceError:
        return WorkspaceError(
            f"{path}: {problem} since it was prepared; remove the folder {self.folder}, "
            "and the same command makes it again (trained models stay)"
        )

    def images_in(self, split: str) -> int:
        """How many images a split holds."""
        return sum(self.counts[split].values())


class TrainedModel(StageResult):
    """The weights with the best validation accuracy, the last ones, and how the training went."""

    model: str
    run_key: str
    run_name: str
    parameters: int
    epochs: int
    best_epoch: int
    validation_accuracy: float
    validation_loss: float
    trained_s: float
    images_per_s: float
    peak_memory_mb: float
    numerics: Mapping[str, Any]
    git_commit: str | None

    @property
    def weights(self) -> Path:
        """The best weights."""
        return self.folder / "best.safetensors"

    @property
    def epochs_file(self) -> Path:
        """The figures of every epoch."""
        return self.folder / "epochs.json"


class Evaluation(StageResult):
    """What the model is worth on the test split."""

    images: int
    loss: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    ece: float


class Registration(StageResult):
    """A version in the model registry."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    run_key: str
    tracking_uri: str
    test_hash: str = ""
    """Of the images that it was judged on; empty in registrations of earlier versions of seqpipe."""
    not_compared: str = ""
    """Why it was not compared with the champion."""
