"""The formats that a model is exported in."""

from enum import StrEnum


class ExportFormat(StrEnum):
    """What becomes of a model: each is one file, and a loader of ten lines."""

    onnx = "onnx"
    pt2 = "pt2"
    safetensors = "safetensors"

    @property
    def file(self) -> str:
        """The name of the model's file."""
        return f"model.{self.value}"


INT8_FILE = "model-int8.onnx"
"""The quantised copy of `model.onnx`."""
CARD_FILE = "model.json"
README_FILE = "README.md"
