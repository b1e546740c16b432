"""PT2: the model as a program of torch's operators (`torch.export`), which needs torch and no code of ours."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim

from pipeline.exporting.pixel_classifier import PixelClassifier, example, plain_operators

NAME = f"torch {torch.__version__}"


def write_pt2(model: PixelClassifier, path: Path, about: Mapping[str, str]) -> None:
    """Write the program, for batches of any size; `about` is kept in it."""
    content = io.BytesIO()  # torch would report a full disk as something else
    with plain_operators(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own use of its own functions
        program = torch.export.export(model, (example(),), dynamic_shapes={"pixels": {0: Dim("N", min=1)}})
        torch.export.save(program, content, extra_files=dict(about))
    path.write_bytes(content.getvalue())


class Pt2Classifier:
    """The program, loaded."""

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._module = torch.export.load(path).module()

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities (N x K) of pixels (N x 32 x 32 x 3), as one batch."""
        with torch.no_grad():
            found: NDArray[np.float32] = self._module(torch.from_numpy(pixels)).numpy()
        return found
