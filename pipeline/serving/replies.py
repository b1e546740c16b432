"""What the server answers, as JSON.

N images of a request, K classes; probabilities are N x K.
"""

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import Response

from pipeline.inference.classifier import Classifier
from pipeline.inference.prediction import Prediction
from pipeline.serving import explanation
from pipeline.serving.batcher import Answer

METHOD = "occlusion"


def predictions(names: Sequence[str | None], found: Answer) -> Response:
    """The classes of images, those of each image with the most probable first."""
    images = [
        ({"name": name} if name is not None else {}) | _classes(prediction)
        for name, prediction in zip(names, _predictions(found), strict=True)
    ]
    return as_json({"model": short_model(found.classifier), "images": images})


def invocations(found: Answer) -> Response:
    """The same as MLflow's scoring server answers for this model."""
    rows = []
    for one in _predictions(found):
        each = {f"probability_{name}": share for name, share in zip(one.classes, one.probabilities, strict=True)}
        rows.append({"class": one.best, "probability": one.probability, **each})
    return as_json({"predictions": rows})


def explained(name: str | None, pixels: NDArray[np.uint8], found: Answer) -> Response:
    """What the covered copies of an image (32 x 32 x 3) say of its pixels; `found` is of `explanation.covered`."""
    classifier = found.classifier
    [prediction] = _predictions(Answer(classifier, found.probabilities[:1]))
    each = explanation.drops(found.probabilities)
    return as_json(
        {
            "model": short_model(classifier),
            "image": ({"name": name} if name is not None else {}) | _classes(prediction),
            "method": METHOD,
            "cell_pixels": explanation.CELL,
            "square_pixels": explanation.SQUARE,
            "drops": {name: np.round(one, 6).tolist() for name, one in zip(classifier.classes, each, strict=True)},
            "seen": _png(pixels),
        }
    )


def short_model(classifier: Classifier) -> dict[str, Any]:
    """Which model answered."""
    return {"name": classifier.version.name, "version": classifier.version.number}


def whole_model(classifier: Classifier) -> dict[str, Any]:
    """What is known of the model."""
    card = classifier.card
    return {
        **short_model(classifier),
        "aliases": classifier.version.aliases,
        "run_id": classifier.version.run_id,
        "architecture": card.model,
        "classes": classifier.classes,
        "accuracy": card.accuracy,
        "commit": card.git_commit,
    }


def as_json(content: object, status: int = 200) -> Response:
    """A response; what is no number in JSON would be a fault."""
    return Response(json.dumps(content, allow_nan=False).encode(), status, media_type="application/json")


def _predictions(found: Answer) -> list[Prediction]:
    rows = found.probabilities.astype(np.float64).tolist()
    return [Prediction(found.classifier.classes, tuple(map(_digits, row))) for row in rows]


def _classes(prediction: Prediction) -> dict[str, Any]:
    ranked = prediction.top(len(prediction.classes))
    return {"class": ranked[0][0], "probability": ranked[0][1], "probabilities": dict(ranked)}


def _digits(share: float) -> float:
    """A probability with the digits that it has in fp32."""
    return float(f"{share:.9g}")


def _png(pixels: NDArray[np.uint8]) -> str:
    """An image as a data: address."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
