"""Models as versions with aliases: logged without pickle, registered once, promoted by what they measured.

`challenger` is the newest version; `champion` the best on the test split, among those judged on the same images.
MLflow is imported inside functions.
"""

import importlib.metadata
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking.delivery import Tracker
from pipeline.tracking.settings import quiet
from pipeline.tracking.still_registered import CHALLENGER, CHAMPION, missing_files
from pipeline.workspace.locks import exclusive

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

REGISTER_KEY_TAG = "seqpipe.register_key"
ACCURACY_TAG = "test_accuracy"
TEST_HASH_TAG = "test_hash"
DATA_HASH_TAG = "data_hash"
NOT_COMPARED_TAG = "not_compared"
_REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "safetensors")


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model.

    `key` is unique to it (its fingerprint): registering it again finds the version that is there. `weights` is a
    safetensors file. `card` is the content of `model.json`, as `pipeline/pyfunc_model.py` reads it, with whatever
    else should travel with the weights. `accuracy` is the test split's, `test_hash` is that of its images and
    labels, and `metrics` is what is shown with the model. `earlier_test_hashes` gives the test split of prepared data
    by their hash, which is all that versions of earlier releases say. `example` is a few images, N x 32 x 32 x 3,
    uint8.
    """

    key: str
    weights: Path
    card: Mapping[str, Any]
    accuracy: float
    test_hash: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    example: NDArray[np.uint8]
    description: str = ""
    earlier_test_hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry, and which champion it met."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created: bool
    previous_champion: str | None
    previous_champion_accuracy: float | None
    not_compared: str = ""
    """Why it was not compared with that champion, which stays; empty if it was."""

    @property
    def is_champion(self) -> bool:
        """Whether the alias `champion` points to this version."""
        return CHAMPION in self.aliases


def register(tracker: Tracker, run_id: str, name: str, candidate: Candidate) -> RegisteredVersion:
    """Log a model, make it a version of `name`, and point the aliases: repeated, it changes nothing.

    `challenger` goes to the version; `champion` too if there is none, or one with a lower test accuracy on the same
    images (a tie keeps the present one). A champion that was judged on other images stays, and the version says why.
    A version that is there already keeps out of the way of newer ones: it takes no alias from them.

    Raises:
        TrackingError: the store or the registry cannot be reached or used.
    """
    try:
        with exclusive(tracker.workspace.lock("register"), lambda _: None, what="the registry"):
            client = tracker.connect()
            version = _find_version(client, name, candidate.key)
            created = False
            if version is None or missing_files(version.source):
                model_id, source = _log(tracker, client, run_id, candidate)
                if version is None or version.source != source:
                    created = True
                    version = _create_version(client, name, source, run_id, model_id, candidate)
                    _link(client, model_id, name, str(version.version))
            return _promote(client, name, str(version.version), candidate, created=created)
    except SeqpipeError:
        raise
    except Exception as error:  # whatever a store, a server or MLflow itself finds wrong
        fault = tracker.explained(error)
        raise TrackingError(
            f"the model could not be registered as {name!r}: {fault}; then repeat the command", passes=fault.passes
        ) from error


def load(tracker: Tracker, name: str, version_or_alias: str = CHAMPION) -> "PyFuncModel":
    """A registered model, by version number or alias, as whoever serves it sees it.

    Raises:
        TrackingError: there is no such version, or it cannot be loaded.
    """
    client = tracker.connect()
    from mlflow import pyfunc
    from mlflow.exceptions import MlflowException

    try:
        if version_or_alias.isdigit():
            version = client.get_model_version(name, version_or_alias)
        else:
            version = client.get_model_version_by_alias(name, version_or_alias)
        with tempfile.TemporaryDirectory() as folder:
            from mlflow.artifacts import download_artifacts

            source = client.get_model_version_download_uri(name, str(version.version))
            local = download_artifacts(
                artifact_uri=source, dst_path=folder, tracking_uri=tracker.settings.tracking_uri
            )
            return pyfunc.load_model(local)
    except MlflowException as error:
        raise TrackingError(f"model {name!r} {version_or_alias!r}: {str(error).splitlines()[0]}") from error


def signature(classes: Sequence[str]) -> "ModelSignature":
    """What the logged model takes and gives.

    Pixels are uint8, so an array of another type is refused rather than cast. (A scoring server casts what JSON gives
    it before the model sees it: pixels that somebody scaled to 0..1 become 0 there.)
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    inputs = Schema([TensorSpec(np.dtype("uint8"), (-1, 32, 32, 3))])
    columns = [ColSpec(DataType.string, "class"), ColSpec(DataType.double, "probability")]
    columns += [ColSpec(DataType.double, f"probability_{name}") for name in classes]
    return ModelSignature(inputs=inputs, outputs=Schema(columns))


def requirements() -> list[str]:
    """What the logged model needs, pinned to what is installed, without a local part such as `+cpu`."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in _REQUIREMENTS]


def _log(tracker: Tracker, client: "MlflowClient", run_id: str, candidate: Candidate) -> tuple[str, str]:
    """Log the model to the run, or find it there: its id and where it lies."""
    experiment_id = client.get_run(run_id).info.experiment_id
    query = f"tags.`{REGISTER_KEY_TAG}` = '{candidate.key}'"
    for known in client.search_logged_models([experiment_id], query):
        if known.status == "READY" and not missing_files(known.artifact_location):
            return known.model_id, known.artifact_location
        client.delete_logged_model(known.model_id)  # a crash left it half made, or somebody removed its files
    model = client.create_logged_model(
        experiment_id,
        name="model",
        source_run_id=run_id,
        tags={REGISTER_KEY_TAG: candidate.key, **candidate.tags},
        params={key: str(value) for key, value in candidate.card["architecture"].items()},
        model_type="image classifier",
    )
    with tempfile.TemporaryDirectory(dir=tracker.workspace.hidden) as folder:
        saved = Path(folder) / "model"
        _save(saved, candidate, run_id=run_id, model_id=model.model_id)
        client.log_model_artifacts(model.model_id, str(saved))
    _show_metrics(client, run_id, model.model_id, candidate.metrics)
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id, model.artifact_location


def _save(path: Path, candidate: Candidate, *, run_id: str, model_id: str) -> None:
    """Write the model's folder: MLflow's description, our code, the weights and the card."""
    quiet(os.environ)
    from mlflow import pyfunc
    from mlflow.models import Model

    import sequencer_models

    card_path = path.parent / "model.json"
    card_path.write_text(json.dumps(candidate.card, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    pyfunc.save_model(
        path,
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"weights": candidate.weights.absolute().as_uri(), "card": card_path.as_uri()},
        code_paths=[str(Path(sequencer_models.__file__).parent)],
        signature=signature(candidate.card["classes"]),
        input_example=candidate.example,
        pip_requirements=requirements(),
        mlflow_model=Model(run_id=run_id, model_id=model_id, artifact_path=path.name),
    )
    for copied in path.rglob("*"):  # from wherever they were, with the permissions that they had there
        copied.chmod((path if copied.is_dir() else card_path).stat().st_mode)


def _show_metrics(client: "MlflowClient", run_id: str, model_id: str, metrics: Mapping[str, float]) -> None:
    """Show the run's figures with the model too; the same time and step, so that the run has them once."""
    for key, value in metrics.items():
        same = [past for past in client.get_metric_history(run_id, key) if past.value == value]
        time_ms, step = (same[-1].timestamp, same[-1].step) if same else (None, None)
        client.log_metric(run_id, key, value, timestamp=time_ms, step=step, model_id=model_id)


def _find_version(client: "MlflowClient", name: str, key: str) -> "ModelVersion | None":
    found = client.search_model_versions(f"name = '{name}' and tags.`{REGISTER_KEY_TAG}` = '{key}'")
    return found[0] if found else None


def _create_version(
    client: "MlflowClient", name: str, source: str, run_id: str, model_id: str, candidate: Candidate
) -> "ModelVersion":
    if not client.search_registered_models(f"name = '{name}'"):
        classes = ", ".join(candidate.card["classes"])
        client.create_registered_model(name, description=f"Tells apart: {classes}.")
    tags = {
        **candidate.tags,
        REGISTER_KEY_TAG: candidate.key,
        ACCURACY_TAG: repr(float(candidate.accuracy)),
        TEST_HASH_TAG: candidate.test_hash,
    }
    return client.create_model_version(
        name, source, run_id, tags=tags, description=candidate.description or None, model_id=model_id
    )


def _link(client: "MlflowClient", model_id: str, name: str, version: str) -> None:
    """Let the pages of the run and of the logged model lead to the version (the tag that MLflow's UI looks for)."""
    link = json.dumps([{"name": name, "version": version}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})


def _promote(
    client: "MlflowClient", name: str, version: str, candidate: Candidate, *, created: bool
) -> RegisteredVersion:
    challenger = _by_alias(client, name, CHALLENGER)
    if challenger is None or int(challenger.version) < int(version):
        client.set_registered_model_alias(name, CHALLENGER, version)
    champion = _by_alias(client, name, CHAMPION)
    accuracy = _accuracy(champion) if champion is not None else None
    reason = ""
    if champion is None:
        wins = True
    elif champion.tags.get(REGISTER_KEY_TAG) == candidate.key:  # itself, or the same model whose files were lost
        wins = int(champion.version) < int(version)
    elif accuracy is None:
        wins, reason = False, f"the champion, version {champion.version}, does not say its test accuracy"
    else:
        reason = _why_not_compared(champion, candidate)
        wins = not reason and (candidate.accuracy > accuracy or math.isnan(accuracy))
    if wins:
        client.set_registered_model_alias(name, CHAMPION, version)
    _note(client, name, version, candidate.description, reason)
    aliases = client.get_model_version(name, version).aliases
    previous = str(champion.version) if champion is not None else None
    return RegisteredVersion(name, version, tuple(sorted(aliases)), created, previous, accuracy, reason)


def _accuracy(version: "ModelVersion") -> float | None:
    """The test accuracy that a version says it has; None where it says none that can be read."""
    try:
        return float(version.tags[ACCURACY_TAG])
    except (KeyError, ValueError):
        return None


def _why_not_compared(champion: "ModelVersion", candidate: Candidate) -> str:
    """Why the accuracies of the two say nothing about which is better; empty where they do."""
    known = candidate.earlier_test_hashes.get(champion.tags.get(DATA_HASH_TAG, ""))
    judged_on = champion.tags.get(TEST_HASH_TAG, known)
    if judged_on is None:
        return f"the champion, version {champion.version}, does not say on which test images it was judged"
    if judged_on != candidate.test_hash:
        return f"the champion, version {champion.version}, was judged on other test images"
    return ""


def _note(client: "MlflowClient", name: str, version: str, description: str, reason: str) -> None:
    """Say at the version why it was not compared with the champion, or no longer that."""
    if reason:
        client.set_model_version_tag(name, version, NOT_COMPARED_TAG, reason)
        client.update_model_version(name, version, f"{description}; not compared: {reason}")
    elif NOT_COMPARED_TAG in client.get_model_version(name, version).tags:
        client.delete_model_version_tag(name, version, NOT_COMPARED_TAG)
        client.update_model_version(name, version, description)


def _by_alias(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model, no such alias
            return None
        raise
