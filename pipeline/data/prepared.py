"""The prepared data set: the images and labels of each split, as arrays that are mapped into memory."""

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
