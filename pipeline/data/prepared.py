"""The prepared data set: the images and labels of each split, as memory-mapped arrays."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import WorkspaceError
from pipeline.workspace.fingerprints import canonical_json
from pipeline.workspace.manifests import StageResult

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
        """A hash of the images and labels that a model is evaluated on."""
        return self._hash_of("test")

    @property
    def validation_hash(self) -> str:
        """A hash of the images and labels that choices are made on."""
        return self._hash_of("validation")

    def _hash_of(self, split: str) -> str:
        arrays = {name: self.sha256[name] for name in (f"{split}_images", f"{split}_labels")}
        return hashlib.sha256(canonical_json(arrays)).hexdigest()

    @property
    def contact_sheet(self) -> Path:
        """A picture of some training images of each class."""
        return self.folder / "contact_sheet.png"

    def array(self, name: str) -> "NDArray[Any]":
        """A read-only map of `<split>_images`, `<split>_labels` or `test_ids`, checked against its hash.

        Raises:
            WorkspaceError: it is missing, damaged or altered.
        """
        import numpy as np

        path = self.file(name)
        try:
            mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            problem = "" if hashlib.sha256(mapped.data).hexdigest() == self.sha256[name] else "altered"
        except (OSError, ValueError, EOFError):
            problem = "damaged"
        if problem:
            raise self._unusable(path, problem)
        return mapped

    def file(self, name: str) -> Path:
        """The file of an array; raises `WorkspaceError` if it is missing."""
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            raise self._unusable(path, "missing")
        return path

    def _unusable(self, path: Path, problem: str) -> WorkspaceError:
        return WorkspaceError(
            f"{path}: {problem} since it was prepared; remove the folder {self.folder}, "
            "and the same command makes it again (trained models stay)"
        )

    def images_in(self, split: str) -> int:
        """The number of images in a split."""
        return sum(self.counts[split].values())
