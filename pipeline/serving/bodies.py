"""Reads the images of a request, whichever way they were sent: image files, base64 in JSON, or MLflow's formats."""

from python_multipart.multipart import parse_options_header

from pipeline.serving.bounds import Bounds
from pipeline.serving.json_bodies import read_csv, read_json
from pipeline.serving.multipart import files_of
from pipeline.serving.refusal import Refusal
from pipeline.serving.sent_images import SentImages, read_files

TYPES_IN_WORDS = (
    "multipart/form-data with image files, application/json, text/csv, or an image type such as image/png"
)


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
        return read_json(body, bounds)
    if kind == "text/csv":
        return read_csv(body, bounds)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return read_files([(None, body)], bounds)
    what = f"{kind[:80]!r} is not read here" if kind else "the request names no content type"
    raise Refusal(415, f"{what}: send {TYPES_IN_WORDS}")
