"""A registered model, ready to classify images.

N images, K classes, 32 x 32 pixels, 3 channels (RGB).
"""

import os
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from pipeline.errors import ImageError
from pipeline.inference import images
from pipeline.inference.model_card import ModelCard
from pipeline.inference.prediction import Prediction
from pipeline.tracking.version_choice import StoredVersion
from sequencer_models.inference import probabilities

BATCH = 64
"""Images at once: more are no faster, and take more memory (250 take 200 MB more of small)."""

ImageSource = str | os.PathLike[str] | BinaryIO | Image.Image
"""An image: the name of its file, the open file, or a Pillow image."""


class Classifier:
    """A registered model with its weights, on the CPU in fp32.

    Attributes:
        version: which version of which registered model it is.
        card: how it was built, what it was trained on and how well it did.
        classes: the names of its K classes.
        network: what computes its logits.
    """

    def __init__(self, network: nn.Module, card: ModelCard, version: StoredVersion) -> None:
        self.version = version
        self.card = card
        self.classes = card.classes
        self.network = network

    def __repr__(self) -> str:
        return f"<{self.card.model} of {self.version}: {', '.join(self.classes)}>"

    def predict(self, sources: Iterable[ImageSource]) -> list[Prediction]:
        """Classify images of any size and mode, one prediction each; `inference.images` has the rule of resizing.

        Raises:
            ImageError: one of them cannot be read; the message begins with its name.
            TypeError: one name was given instead of a list.
        """
        if isinstance(sources, str):
            raise TypeError(f"predict takes a list of images: predict([{sources!r}])")
        pixels = [_read(source) for source in sources]
        return self.predictions(np.stack(pixels) if pixels else np.empty((0, images.SIDE, images.SIDE, 3), np.uint8))

    def predictions(self, pixels: NDArray[np.uint8]) -> list[Prediction]:
        """Classify pixels (N x 32 x 32 x 3, uint8), one prediction each."""
        rows = self.probabilities(pixels).astype(np.float64).tolist()
        return [Prediction(self.classes, tuple(row)) for row in rows]

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probability of each class (N x K) of pixels (N x 32 x 32 x 3, uint8).

        Raises:
            ValueError: the pixels have another shape or type.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (images.SIDE, images.SIDE, 3):
            raise ValueError(f"pixels must be N x 32 x 32 x 3 of uint8, not {pixels.dtype} of shape {pixels.shape}")
        card = self.card
        found = probabilities(self.network, pixels, card.mean, card.std, mirrored=card.mirrored, batch_size=BATCH)
        return found.reshape(len(pixels), len(self.classes))  # for no images too


def _read(source: ImageSource) -> NDArray[np.uint8]:
    try:
        if isinstance(source, Image.Image):
            return images.fit(source)
        if isinstance(source, str | os.PathLike):
            return images.read_image(source)
        return images.decode(source)
    except (ImageError, OSError, ValueError) as error:  # the latter two of Pillow's images, which it reads late
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else type(source).__name__
        raise ImageError(f"{name}: {error}") from None
