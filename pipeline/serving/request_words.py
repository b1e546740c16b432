"""What the OpenAPI document says of requests and answers: bodies are read by `bodies`, not by FastAPI."""

from typing import Any

SUMMARY = (
    "Classifies images with a registered model. Any PNG, JPEG, WebP, BMP or GIF is cut to a square and resized to "
    "32 x 32 pixels. What cannot be read is answered with a status from 400 to 499 and one sentence as `error`."
)
_FILE = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte"}
_PIXELS = {
    "type": "array",
    "description": "N x 32 x 32 x 3 whole numbers from 0 to 255",
    "items": {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}},
}
_FORM = {"type": "object", "properties": {"file": {"type": "array", "items": _FILE}}}
_ONE_FILE_FORM = {"type": "object", "properties": {"file": _FILE}}
_DOCUMENT = {
    "oneOf": [
        {"type": "object", "required": ["image"], "properties": {"image": _BASE64}},
        {"type": "object", "required": ["images"], "properties": {"images": {"type": "array", "items": _BASE64}}},
        {"type": "object", "required": ["inputs"], "properties": {"inputs": _PIXELS}},
        {"type": "object", "required": ["instances"], "properties": {"instances": _PIXELS}},
        {"type": "object", "required": ["dataframe_split"], "properties": {"dataframe_split": {"type": "object"}}},
        {"type": "object", "required": ["dataframe_records"], "properties": {"dataframe_records": {"type": "array"}}},
    ]
}
_CONTENT = {
    "multipart/form-data": {"schema": _FORM},
    "application/json": {"schema": _DOCUMENT},
    "text/csv": {"schema": {"type": "string"}},
    "image/*": {"schema": _FILE},
}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_SHARES = {"type": "object", "additionalProperties": _SHARE}
_MODEL = {"type": "object", "properties": {"name": {"type": "string"}, "version": {"type": "string"}}}
_IMAGE = {
    "type": "object",
    "required": ["class", "probability", "probabilities"],
    "properties": {
        "name": {"type": "string"},
        "class": {"type": "string"},
        "probability": _SHARE,
        "probabilities": _SHARES,
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_REFUSALS = {
    400: "The body is not what it says it is, or has no images",
    401: "The token is missing or wrong",
    408: "The request did not arrive in time",
    413: "The body, an image or the number of images is too large",
    415: "The content type is not read here",
    422: "An image cannot be read",
    429: "Too much waits already; try again as `Retry-After` says",
}


def _of(summary: str, content: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """What a route is declared with."""
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "The answer", "content": {"application/json": {"schema": answer}}}
    }
    for status, words in _REFUSALS.items():
        responses[status] = {"description": words, "content": {"application/json": {"schema": _ERROR}}}
    return {
        "summary": summary,
        "responses": responses,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


PREDICT = _of(
    "The class of each image, and the probabilities of all classes",
    _CONTENT,
    {"type": "object", "properties": {"model": _MODEL, "images": {"type": "array", "items": _IMAGE}}},
)
INVOCATIONS = _of(
    "The same as MLflow's scoring server answers",
    _CONTENT,
    {"type": "object", "properties": {"predictions": {"type": "array", "items": {"type": "object"}}}},
)
EXPLAIN = _of(
    "Which pixels of one image counted: how the probabilities fall when squares of it are covered (occlusion)",
    {**_CONTENT, "multipart/form-data": {"schema": _ONE_FILE_FORM}},
    {
        "type": "object",
        "properties": {
            "model": _MODEL,
            "image": _IMAGE,
            "method": {"type": "string"},
            "cell_pixels": {"type": "integer"},
            "square_pixels": {"type": "integer"},
            "drops": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
            },
            "seen": {"type": "string"},
        },
    },
)
