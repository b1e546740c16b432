"""Reads an image as the 32 x 32 pixels that a model takes.

The rule, the same for every format, size and mode:

1. The first frame of an animation. Of a JPEG whose shorter side has 256 pixels or more, a half, a quarter or an
   eighth of its size is decoded, never less than 128 pixels of the shorter side.
2. 16 bits of grey become the upper 8; palettes, CMYK and the like become RGB. Colour profiles are not applied.
3. The largest centred square is resized to 32 x 32 pixels (bicubic, antialiased). An image of 32 x 32 stays as it is.
4. It is turned as its orientation tag (EXIF or XMP) says.
5. What is transparent shows white; grey becomes RGB.

What decoding may hold is bounded: an image that needs more than `MOST_BYTES` is refused by its header, and those that
need more than `SMALL_BYTES` take turns.
"""

import os
import stat
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import ImageError, ImageTooLargeError

SIDE = 32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif")
FORMATS_IN_WORDS = "PNG, JPEG, WebP, BMP or GIF"
DRAFT_SIDE = 128
"""Pixels of the shorter side below which no JPEG is decoded at a fraction of its size."""
MOST_BYTES = 256_000_000
"""Of a file, and of what decoding it holds: a photo of 64 million pixels without transparency."""
SMALL_BYTES = 16_000_000
_ONE_AT_A_TIME = threading.Lock()


def read_image(name: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The image in a file: 32 x 32 x 3 pixels.

    Raises:
        ImageError: there is no such file, or no image in it; the reason alone.
    """
    path = Path(name)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a file, but a folder or a device")
        if not status.st_size:
            raise ImageError("empty (0 bytes)")
        if status.st_size > MOST_BYTES:
            raise ImageTooLargeError(f"larger than {_megabytes(MOST_BYTES)}")
        with path.open("rb") as file:
            return decode(file)
    except OSError as error:
        raise ImageError(why_unreadable(path, error)) from None


def decode(file: BinaryIO, most_bytes: int = MOST_BYTES) -> NDArray[np.uint8]:
    """The image in an open file: 32 x 32 x 3 pixels; decoding it holds at most `most_bytes`.

    Raises:
        ImageError: there is no image in it; the reason alone.
        ImageTooLargeError: decoding it would hold more.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            image.draft(None, (DRAFT_SIDE, DRAFT_SIDE))  # other formats than JPEG ignore it
            return fit(image, most_bytes)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not a {FORMATS_IN_WORDS} image") from None
    except Image.DecompressionBombError:
        raise ImageTooLargeError(f"too many pixels (at most {_megabytes(most_bytes)} are decoded)") from None
    except Exception as error:  # decoders raise whatever damaged bytes lead them to
        raise ImageError(f"damaged: {' '.join(str(error).split())[:200] or type(error).__name__}") from None


def fit(image: Image.Image, most_bytes: int = MOST_BYTES) -> NDArray[np.uint8]:
    """An opened image as 32 x 32 x 3 pixels.

    Raises:
        ImageTooLargeError: it has too many pixels.
    """
    held_bytes = _bytes_to_decode(image)
    if held_bytes > most_bytes:
        width, height = image.size
        raise ImageTooLargeError(
            f"too many pixels: {width} x {height} (at most {_megabytes(most_bytes)} are decoded)"
        )
    with _ONE_AT_A_TIME if held_bytes > SMALL_BYTES else nullcontext():
        square = ImageOps.fit(_in_8_bits(image), (SIDE, SIDE), Image.Resampling.BICUBIC)
    square = ImageOps.exif_transpose(square)  # a centred square turns as the whole image would
    if square.mode == "RGBA":
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square)
    return np.array(square.convert("RGB"))


def why_unreadable(path: str | os.PathLike[str], error: OSError) -> str:
    """Why a file or a folder cannot be read, in words."""
    if isinstance(error, FileNotFoundError):
        return "a link that leads nowhere" if Path(path).is_symlink() else "no such file or folder"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return error.strerror or str(error)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """The decoded image as RGBA if anything of it may be transparent, else as grey or RGB."""
    if image.mode.startswith("I"):
        grey = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # `convert` would cut off at 255
        grey.info = image.info  # its orientation
        return grey
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _bytes_to_decode(image: Image.Image) -> int:
    """An upper bound of what decoding and resizing an image hold, by what its header says."""
    width, height = image.size
    if image.format == "WEBP":  # two canvases, the frame and its copy
        return 16 * width * height
    return (4 if image.mode in ("L", "RGB") and not image.has_transparency_data else 9) * width * height


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
