"""The images that a registered version was evaluated on, where its workspace still has them.

Legend: N images of 32 x 32 pixels in 3 channels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.data.prepared import PreparedData
from pipeline.errors import DataError, WorkspaceError
from pipeline.inference.model_card import ModelCard
from pipeline.stages.prepare import NAME as PREPARE
from pipeline.workspace.manifests import read_manifest
from pipeline.workspace.paths import Workspace


@dataclass(frozen=True, eq=False)
class EvaluationImages:
    """The test split: `pixels` (N x 32 x 32 x 3, uint8), `labels` (N), and `ids` in the official test file (N)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]

    def spread(self, count: int) -> NDArray[np.uint8]:
        """At most `count` of the images, evenly spread over them, so that all classes are among them."""
        rows = np.unique(np.linspace(0, len(self.ids) - 1, min(count, len(self.ids))).round().astype(np.int64))
        return np.ascontiguousarray(self.pixels[rows])


def evaluation_images(card: ModelCard, workspace: Workspace) -> EvaluationImages:
    """The test images of the data that a version was trained on, as its model card names them.

    Raises:
        DataError: this workspace does not have them.
        WorkspaceError: they are damaged.
    """
    for folder in sorted(workspace.stage(PREPARE).glob("*")):
        prepared = _prepared(folder)
        if prepared is not None and prepared.data_hash == card.data_hash:
            arrays = [np.array(prepared.array(name)) for name in ("test_images", "test_labels", "test_ids")]
            return EvaluationImages(arrays[0], arrays[1].astype(np.int64), arrays[2].astype(np.int64))
    raise DataError(
        f"the images that this version was evaluated on are not in {workspace.root}, so an export cannot be checked\n"
        "`seqpipe run prepare` with the settings of its training brings them; in another workspace, export there."
    )


def _prepared(folder: Path) -> PreparedData | None:
    """The prepared data in a folder; None if it is something else, or not whole."""
    try:
        manifest = read_manifest(folder)
        return None if manifest is None else PreparedData.model_validate({**manifest.result, "folder": folder})
    except (WorkspaceError, ValidationError):  # reported when that folder itself is asked for
        return None
