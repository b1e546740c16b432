"""Images in JSON and CSV: as base64, and in the formats of MLflow's `/invocations`.

    {"image": "<base64>"}                           one image file
    {"images": ["<base64>", ...]}                   several; a data: address is taken, too
    {"inputs": [[[[r, g, b], ...], ...], ...]}      N x 32 x 32 x 3 pixels; `instances` is the same
    {"dataframe_split": {"columns": [...], "data": [[...], ...]}}
    {"dataframe_records": [{...}, ...]}             a row is one image: base64, 32 x 32 x 3 pixels, or 3072 numbers

MLflow's `params` are left aside. CSV has a line of names, then a row for each image. N images.
"""

import base64
import binascii
import csv
import io
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.inference.images import SIDE
from pipeline.serving.bounds import Bounds
from pipeline.serving.refusal import Refusal
from pipeline.serving.sent_images import SentImages, read_files, require_few

SHAPE = (SIDE, SIDE, 3)
KEYS = ("image", "images", "inputs", "instances", "dataframe_split", "dataframe_records")
PIXELS_IN_WORDS = f"N x {SIDE} x {SIDE} x 3 whole numbers from 0 to 255 (RGB)"
_LARGE_BYTES = 1_000_000
_ONE_AT_A_TIME = threading.Lock()
"""For large documents: as Python's values they are several times as large."""


def read_json(body: bytes | bytearray, bounds: Bounds) -> SentImages:
    """The images of a JSON document.

    Raises:
        Refusal: it is none, or has no images in it, or more than the bounds allow.
    """
    _require_few_values(body, bounds)
    if len(body) <= _LARGE_BYTES:
        return _read_document(body, bounds)
    with _ONE_AT_A_TIME:
        return _read_document(body, bounds)


def read_csv(body: bytes | bytearray, bounds: Bounds) -> SentImages:
    """The images of a CSV document: a row for each.

    Raises:
        Refusal: it is none, or has no images in it, or more than the bounds allow.
    """
    _require_few_values(body, bounds)
    with _ONE_AT_A_TIME:
        try:
            rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise Refusal(400, f"the body is no CSV: {_short(error)}") from None
        rows = [row for row in rows if row]
        if len(rows) < 2:
            raise Refusal(400, "the CSV has no rows below the line of names")
        return _from_rows([[_number(cell) for cell in row] for row in rows[1:]], bounds)


def _require_few_values(body: bytes | bytearray, bounds: Bounds) -> None:
    if body.count(b",") + body.count(b"[") + body.count(b"{") + body.count(b"\n") > bounds.values:
        raise Refusal(413, f"more values than {bounds.images} images have")


def _read_document(body: bytes | bytearray, bounds: Bounds) -> SentImages:
    try:
        document = json.loads(body)
    except RecursionError:
        raise Refusal(400, "the JSON is nested too deeply") from None
    except ValueError as error:  # of the encoding, too
        raise Refusal(400, f"the body is no JSON: {_short(error)}") from None
    given = [key for key in KEYS if key in document] if isinstance(document, dict) else []
    if len(given) != 1:
        found = f"found {' and '.join(given)}" if given else "found none"
        raise Refusal(400, f"the JSON must be an object with one of {', '.join(KEYS)}: {found}")
    [key] = given
    return _READERS[key](document[key], bounds)


def _one_image(value: Any, bounds: Bounds) -> SentImages:
    return _files([value], bounds)


def _several_images(value: Any, bounds: Bounds) -> SentImages:
    if not isinstance(value, list) or not value:
        raise Refusal(400, "images must be a list of one or more base64 texts")
    return _files(value, bounds)


def _files(values: Sequence[Any], bounds: Bounds) -> SentImages:
    require_few(len(values), bounds)
    return read_files([(None, _decoded(value, number)) for number, value in enumerate(values, 1)], bounds)


def _decoded(value: Any, number: int) -> bytes:
    """The file in base64, with or without `data:...;base64,` before it."""
    if not isinstance(value, str):
        raise Refusal(400, f"image {number} must be a base64 text, not {_kind(value)}")
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(re.sub(r"\s+", "", text), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, f"image {number} is no base64") from None


def _from_pixels(value: Any, bounds: Bounds) -> SentImages:
    """Images as nested lists of pixels; `instances` may have base64 texts or rows of a table, too."""
    if not isinstance(value, list) or not value:
        raise Refusal(400, f"a list of images is needed: {PIXELS_IN_WORDS}")
    if all(isinstance(one, dict) for one in value):
        return _from_records(value, bounds)
    if all(isinstance(one, str) for one in value):
        return _files(value, bounds)
    require_few(len(value), bounds)
    return _pixels(value)


def _from_records(value: Any, bounds: Bounds) -> SentImages:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise Refusal(400, "dataframe_records must be a list of objects, one for each image")
    return _from_rows([list(row.values()) for row in value], bounds)


def _from_split(value: Any, bounds: Bounds) -> SentImages:
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        raise Refusal(400, 'dataframe_split must be {"columns": [...], "data": [[...], ...]}, a row for each image')
    return _from_rows(data, bounds)


def _from_rows(rows: Sequence[Sequence[Any]], bounds: Bounds) -> SentImages:
    """Rows of a table: each has one cell with an image in it, or a cell for each of its numbers."""
    if not rows:
        raise Refusal(400, "no images: the table has no rows")
    require_few(len(rows), bounds)
    if all(len(row) == 1 for row in rows):
        cells = [row[0] for row in rows]
        return _files(cells, bounds) if all(isinstance(cell, str) for cell in cells) else _pixels(cells)
    if any(len(row) != np.prod(SHAPE) for row in rows):
        raise Refusal(400, f"a row must be one image: a base64 text, {SIDE} x {SIDE} x 3 pixels, or 3072 numbers")
    return _pixels(rows, flat=True)


def _pixels(value: Sequence[Any], *, flat: bool = False) -> SentImages:
    """Numbers as pixels: N x 32 x 32 x 3, or N x 3072 if `flat`."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        raise Refusal(400, f"the images differ in shape: {PIXELS_IN_WORDS} are needed") from None
    if array.dtype.kind not in "iuf":
        raise Refusal(400, f"pixels must be numbers: {PIXELS_IN_WORDS} are needed")
    expected = (len(value), int(np.prod(SHAPE))) if flat else (len(value), *SHAPE)
    if array.shape != expected:
        raise Refusal(400, f"pixels of shape {' x '.join(map(str, array.shape))}: {PIXELS_IN_WORDS} are needed")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
        raise Refusal(400, f"pixels outside 0 to 255: {PIXELS_IN_WORDS} are needed")
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        raise Refusal(400, f"pixels with fractions (were they scaled to 0..1?): {PIXELS_IN_WORDS} are needed")
    pixels: NDArray[np.uint8] = array.astype(np.uint8).reshape(len(value), *SHAPE)
    return SentImages([None] * len(value), pixels)


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _kind(value: Any) -> str:
    return {list: "a list", dict: "an object", type(None): "null", bool: "true or false"}.get(type(value), "a number")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:150]


_READERS: Mapping[str, Callable[[Any, Bounds], SentImages]] = {
    "image": _one_image,
    "images": _several_images,
    "inputs": _from_pixels,
    "instances": _from_pixels,
    "dataframe_split": _from_split,
    "dataframe_records": _from_records,
}
