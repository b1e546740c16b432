"""A model's ONNX file in ONNX Runtime."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline.exporting.onnx_file import INPUT

NAME = f"ONNX Runtime {version('onnxruntime')}"
_ERRORS_ONLY = 3


class OnnxClassifier:
    """The graph, loaded; `threads` compute it."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities (N x K) of pixels (N x 32 x 32 x 3), as one batch."""
        found: NDArray[np.float32] = self._session.run(None, {INPUT: pixels})[0]
        return found
