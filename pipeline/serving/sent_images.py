"""Images as a request has them: files with names or without, decoded within the bounds.

N images; pixels are N x 32 x 32 x 3 of uint8.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ImageError, ImageTooLargeError
from pipeline.inference import images
from pipeline.serving.bounds import Bounds
from pipeline.serving.refusal import Refusal


@dataclass(frozen=True)
class SentImages:
    """The images of a request: what their sender calls them (None: nothing), and their pixels."""

    names: Sequence[str | None]
    pixels: NDArray[np.uint8]


def read_files(files: Sequence[tuple[str | None, bytes | bytearray]], bounds: Bounds) -> SentImages:
    """The images in files, which have names or not.

    Raises:
        Refusal: one of them is none, or is too large, or there are too many.
    """
    require_few(len(files), bounds)
    pixels = [
        _pixels(content, _label(name, number, len(files)), bounds) for number, (name, content) in enumerate(files, 1)
    ]
    return SentImages([name for name, _ in files], np.stack(pixels))


def require_few(count: int, bounds: Bounds) -> None:
    """Raise a `Refusal` for more images than one request may have."""
    if count > bounds.images:
        raise Refusal(413, f"{count} images in one request: at most {bounds.images}")


def _pixels(content: bytes | bytearray, label: Callable[[], str], bounds: Bounds) -> NDArray[np.uint8]:
    try:
        if not content:
            raise ImageError("empty (0 bytes)")
        return images.decode(io.BytesIO(content), bounds.image_bytes)
    except ImageTooLargeError as error:
        raise Refusal(413, f"{label()}{error}") from None
    except ImageError as error:
        raise Refusal(422, f"{label()}{error}") from None


def _label(name: str | None, number: int, count: int) -> Callable[[], str]:
    """What stands before a complaint: which image it is about."""

    def label() -> str:
        shown = "".join(letter if letter.isprintable() else "?" for letter in name or "")[:100]
        which = f"image {number} of {count}" if count > 1 else "the image"
        return f"{which} ({shown}): " if shown else f"{which}: "

    return label
