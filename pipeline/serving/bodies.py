"""Reads the images of a request, whichever way they were sent: image files, base64 in JSON, or MLflow's formats.

N images; pixels are N x 32 x 32 x 3 of uint8.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from python_multipart.multipart import parse_options_header

from pipeline.errors import ImageError, ImageTooLargeError
from pipeline.inference import images
from pipeline.serving.bounds import Bounds
from pipeline.serving.multipart import files_of
from pipeline.serving.refusal import Refusal

TYPES_IN_WORDS = (
    "multipart/form-data with image files, application/json, text/csv, or an image type such as image/png"
)


@dataclass(frozen=True)
class SentImages:
    """The images of a request: what their sender calls them (None: nothing), and their pixels."""

    names: Sequence[str | None]
    pixels: NDArray[np.uint8]


def read_images(body: bytes | bytearray, content_type: str, bounds: Bounds) -> SentImages:
    """The images of a body.

    Raises:
        Refusal: it cannot be read as images, or holds more than the bounds allow.
    """
    kind_bytes, options = parse_options_header(content_type.encode("latin-1", "replace"))
    kind = kind_bytes.decode("latin-1").lower()
    if not body:
        raise Refusal(400, "the body is empty: send an image")
    if kind == "multipart/form-data":
        boundary = options.get(b"boundary")
        if not boundary or len(boundary) > 256:
            raise Refusal(400, "the content type names no boundary of the multipart body")
        files = files_of(body, boundary, bounds.images)
        if not files:
            raise Refusal(400, "no file in the form: send images as files, such as curl -F file=@cat.png")
        return read_files(files, bounds)
    if kind == "application/json":
        from pipeline.serving.json_bodies import read_json

        return read_json(body, bounds)
    if kind == "text/csv":
        from pipeline.serving.json_bodies import read_csv

        return read_csv(body, bounds)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return read_files([(None, body)], bounds)
    what = f"{kind[:80]!r} is not read here" if kind else "the request names no content type"
    raise Refusal(415, f"{what}: send {TYPES_IN_WORDS}")


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
