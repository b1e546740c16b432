"""A stand-in for a served model, and image files to send to it."""

import io

import numpy as np
from PIL import Image

from pipeline.inference.model_card import ModelCard
from pipeline.tracking.version_choice import StoredVersion

CLASSES = ("dark", "light")


class Brightness:
    """Says how light an image is; `batches` are the numbers of images that it was asked for at once."""

    def __init__(self, number: str = "1", classes: tuple[str, ...] = CLASSES) -> None:
        self.classes = classes
        self.card = ModelCard("small", {}, classes, (0.0,) * 3, (1.0,) * 3, accuracy=0.9, git_commit="c0ffee")
        self.version = StoredVersion("m", number, ("champion",), "r1", "file:///x")
        self.batches: list[int] = []

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        light = pixels.reshape(len(pixels), -1).mean(axis=1) / 255
        return np.stack([1 - light, light], axis=1).astype(np.float32)


def png(level: int = 255, size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
    """A grey image as a file."""
    file = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).save(file, kind)
    return file.getvalue()
