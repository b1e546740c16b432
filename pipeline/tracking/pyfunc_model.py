"""The model that MLflow serves: logged with its weights ("models from code").

It has to work where seqpipe is not installed, so it imports `sequencer_models`, which is logged with it, and nothing
of the pipeline. No pickle: weights are safetensors, everything else is the model card, `model.json`:

    {"architecture": {"name": "small", ...}, "classes": [...], "mean": [r, g, b], "std": [r, g, b],
     "mirrored": false, ...}

with mean and standard deviation of the pixels on the 0..255 scale; cards of earlier versions have no `mirrored`.

N images, 32 x 32 pixels, 3 channels (RGB), K classes.
"""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from safetensors.torch import load_file

BATCH = 256
IMAGE_SHAPE = (32, 32, 3)


class ImageClassifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Pixels in, class names and probabilities out."""

    def load_context(self, context: Any) -> None:
        """Build the network of the model card and load its weights."""
        from sequencer_models import catalog

        self.card = json.loads(Path(context.artifacts["card"]).read_bytes())
        architecture = dict(self.card["architecture"])
        self.network = catalog.build(architecture.pop("name"), len(self.card["classes"]), **architecture)
        self.network.load_state_dict(load_file(context.artifacts["weights"]))

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify images, in fp32 on the CPU.

        `model_input`: N x 32 x 32 x 3 pixels, whole numbers 0..255 of any numeric type. Returns N rows: `class`, its
        `probability`, and `probability_<class>` of each of the K classes.

        Raises:
            MlflowException: the input is something else (INVALID_PARAMETER_VALUE).
        """
        from sequencer_models.inference import probabilities

        classes = self.card["classes"]
        pixels = _pixels(model_input)
        card = self.card
        found = probabilities(
            self.network, pixels, card["mean"], card["std"], mirrored=card.get("mirrored", False), batch_size=BATCH
        )
        each = found.astype(np.float64).reshape(len(pixels), len(classes))  # N x K, for no images too
        columns: dict[str, Any] = {
            "class": np.array(classes, dtype=object)[each.argmax(axis=1)],
            "probability": each.max(axis=1, initial=0.0),
        }
        return pd.DataFrame(columns | {f"probability_{name}": each[:, k] for k, name in enumerate(classes)})


def _pixels(given: object) -> NDArray[np.uint8]:
    """The input as uint8 pixels; raises MlflowException if it is something else."""
    try:
        array = np.asarray(given)
    except ValueError:
        raise _refused("the images differ in shape") from None
    if array.ndim != 4 or array.shape[1:] != IMAGE_SHAPE:
        raise _refused(f"got shape {tuple(array.shape)}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iuf":
        raise _refused(f"got values of type {array.dtype}")
    if not np.isfinite(array).all() or (array.size and (array.min() < 0 or array.max() > 255)):
        raise _refused("got values outside 0..255")
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        raise _refused("got fractions (were the pixels scaled to 0..1?)")
    return np.ascontiguousarray(array.astype(np.uint8))


def _refused(what: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(
        f"Images must be N x 32 x 32 x 3 pixels (RGB), whole numbers from 0 to 255: {what}."
    )


mlflow.models.set_model(ImageClassifier())
