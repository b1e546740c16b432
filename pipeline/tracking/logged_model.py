"""Logs a trained model to its run: weights, card, code and signature, without pickle.

MLflow is imported inside functions.
"""

import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tracking.mlflow_variables import quiet
from pipeline.tracking.registration_check import missing_files
from pipeline.tracking.registry_names import PREDICTIONS, REGISTER_KEY_TAG
from pipeline.workspace.fingerprints import file_sha256

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "safetensors")


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model, to be registered.

    `key` is unique to it (its run's key, and whether it predicts mirrored views): registering it again finds the
    version that exists. `weights` is a safetensors file; `predictions` holds those of the test images, by which later
    versions are compared with it. `card` is the content of `model.json`, as `pyfunc_model` reads it, with anything
    else that should travel with the weights; their hash is added. `accuracy` is that of the test split, `test_hash`
    the hash of its images and labels, and `metrics` are shown with the model. `earlier_test_hashes` gives the hash of
    the test split by the hash of the whole data, which is all that versions of earlier releases recorded. `example`
    is a few images, N x 32 x 32 x 3, uint8.
    """

    key: str
    weights: Path
    predictions: Path
    card: Mapping[str, Any]
    accuracy: float
    test_hash: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    example: NDArray[np.uint8]
    description: str = ""
    earlier_test_hashes: Mapping[str, str] = field(default_factory=dict)


def log_model(client: "MlflowClient", run_id: str, candidate: Candidate, scratch: Path) -> tuple[str, str]:
    """Log the model to the run, or find it there: its id and its location; `scratch` is a folder to work in."""
    experiment_id = client.get_run(run_id).info.experiment_id
    query = f"tags.`{REGISTER_KEY_TAG}` = '{candidate.key}'"
    for known in client.search_logged_models([experiment_id], query):
        if known.status == "READY" and not missing_files(known.artifact_location):
            return known.model_id, known.artifact_location
        client.delete_logged_model(known.model_id)  # left half made by a crash, or its files were removed
    model = client.create_logged_model(
        experiment_id,
        name="model",
        source_run_id=run_id,
        tags={REGISTER_KEY_TAG: candidate.key, **candidate.tags},
        params={key: str(value) for key, value in candidate.card["architecture"].items()},
        model_type="image classifier",
    )
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        saved = Path(folder) / "model"
        _save(saved, candidate, run_id=run_id, model_id=model.model_id)
        client.log_model_artifacts(model.model_id, str(saved))
    _log_metrics(client, run_id, model.model_id, candidate.metrics)
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id, model.artifact_location


def signature(classes: Sequence[str]) -> "ModelSignature":
    """What the logged model takes and returns.

    Pixels are uint8, so an array of another type is refused rather than cast. (A scoring server casts JSON numbers
    before the model sees them: pixels that were scaled to 0..1 become 0 there.)
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    inputs = Schema([TensorSpec(np.dtype("uint8"), (-1, 32, 32, 3))])
    columns = [ColSpec(DataType.string, "class"), ColSpec(DataType.double, "probability")]
    columns += [ColSpec(DataType.double, f"probability_{name}") for name in classes]
    return ModelSignature(inputs=inputs, outputs=Schema(columns))


def requirements() -> list[str]:
    """What the logged model needs, pinned to the installed versions without a local part such as `+cpu`."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in _REQUIREMENTS]


def _save(path: Path, candidate: Candidate, *, run_id: str, model_id: str) -> None:
    """Write the model's folder: MLflow's description, our code, the weights and the card."""
    quiet(os.environ)
    from mlflow import pyfunc
    from mlflow.models import Model

    import sequencer_models

    card_path = path.parent / "model.json"
    predictions_path = path.parent / Path(PREDICTIONS).name
    shutil.copyfile(candidate.predictions, predictions_path)
    card = {**candidate.card, "weights_sha256": file_sha256(candidate.weights)}
    card_path.write_text(json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    pyfunc.save_model(
        path,
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={
            "weights": candidate.weights.absolute().as_uri(),
            "predictions": predictions_path.as_uri(),
            "card": card_path.as_uri(),
        },
        code_paths=[str(Path(sequencer_models.__file__).parent)],
        signature=signature(candidate.card["classes"]),
        input_example=candidate.example,
        pip_requirements=requirements(),
        mlflow_model=Model(run_id=run_id, model_id=model_id, artifact_path=path.name),
    )
    for copied in path.rglob("*"):  # copies keep the permissions of their sources; the umask should decide
        copied.chmod((path if copied.is_dir() else card_path).stat().st_mode)


def _log_metrics(client: "MlflowClient", run_id: str, model_id: str, metrics: Mapping[str, float]) -> None:
    """Log the run's figures for the model too, with the same time and step, so that the run has them once."""
    for key, value in metrics.items():
        same = [past for past in client.get_metric_history(run_id, key) if past.value == value]
        time_ms, step = (same[-1].timestamp, same[-1].step) if same else (None, None)
        client.log_metric(run_id, key, value, timestamp=time_ms, step=step, model_id=model_id)
