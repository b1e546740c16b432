"""register: a version in the MLflow registry under the task's name, with everything that it takes to trust it."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.keys import to_yaml
from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.errors import TrackingError, WorkspaceError
from pipeline.stages.context import Context
from pipeline.stages.evaluate import run_metrics
from pipeline.stages.prepare import NAME as PREPARE
from pipeline.stages.results import Evaluation, Registration, TrainedModel
from pipeline.stages.train import NAME as TRAIN
from pipeline.stages.train import identity_of
from pipeline.tracking import delivery_state, registration_check
from pipeline.tracking.settings import ResolvedMlflow, task_name
from pipeline.tracking.sqlite_files import sqlite_path
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.manifests import Manifest, read_manifest
from pipeline.workspace.paths import Workspace

NAME = "register"
VERSION = 1
EXAMPLES = 4
"""Test images that are logged as the input example."""


def reads(config: RunConfig, mlflow: ResolvedMlflow) -> dict[str, Any]:
    """Where the version goes, and under which name."""
    registry = mlflow.registry_uri or mlflow.address
    return {
        "model": {"name": config.model.name},
        "registry": registry,
        "registered_model": model_name(config, mlflow),
    }


def model_name(config: RunConfig, mlflow: ResolvedMlflow) -> str:
    """The registered model's name: it stands for the task, whatever the architecture."""
    name = mlflow.model_name(task_name(config.data.dataset, config.data.classes))
    is_told_apart = config.data.dataset != "synthetic" or "{task}" in mlflow.registered_model
    return name if is_told_apart else f"{name}-synthetic"  # made-up images never compete with real ones


def missing_store(manifest: Manifest, mlflow: ResolvedMlflow, workspace: Workspace) -> str | None:
    """Why a registration that was made no longer stands; None where it does, as far as a look at the disk tells.

    What a server holds is not asked: a command with nothing to do works without it.
    """
    if manifest.stage != NAME:
        return None
    name, version = str(manifest.result.get("name")), str(manifest.result.get("version"))
    run_id = str(manifest.result.get("run_id"))
    if (database := mlflow.database) is not None:
        if mlflow.is_gone:
            return f"{database.name} is gone"
        store = delivery_state.read_store(workspace, str(manifest.result.get("run_key")), mlflow.address)
        if store is not None and store.run_id != run_id:
            return f"{database.name} was made anew since"
        if gone := registration_check.missing_run(database, run_id):
            return gone if store is not None else f"{database.name} was made anew since"
    registry = sqlite_path(mlflow.registry_uri) if mlflow.registry_uri else database
    return registration_check.missing_version(registry, name, version) if registry is not None else None


def register(
    config: RunConfig,
    prepared: PreparedData,
    trained: TrainedModel,
    evaluation: Evaluation,
    folder: Path,
    context: Context,
) -> Registration:
    """Register the trained model, and let it have the aliases that it deserves.

    Raises:
        TrackingError: the store or the registry cannot be used.
    """
    import json

    from pipeline.evaluation.metrics import ClassificationReport
    from pipeline.tracking import logged_model
    from pipeline.tracking import registry as model_registry

    identity = identity_of(trained)
    told = context.tracker.deliver(identity, f"{TRAIN}/{trained.folder.name}", trained.folder, force=True)
    run_id = context.tracker.run_id(identity)
    if not told or run_id is None:
        raise TrackingError(f"not registered, since MLflow does not have all of the run: {_problem(context)}")
    report = ClassificationReport.from_json(json.loads((evaluation.folder / "report.json").read_bytes()))
    lineage = {
        "data_hash": prepared.data_hash,
        "config_hash": folder.name.removesuffix(".partial"),
        "train_fingerprint": trained.folder.name,
        "run_key": trained.run_key,
        "git_commit": trained.git_commit or "unknown",
    }
    card = {
        "architecture": config.model.model_dump(mode="json"),
        "classes": list(prepared.class_names),
        "mean": list(prepared.mean),
        "std": list(prepared.std),
        "dataset": prepared.dataset,
        "lineage": lineage,
        "test": {"images": evaluation.images, "accuracy": evaluation.accuracy, "loss": evaluation.loss},
        "config": to_yaml(config),
    }
    name = model_name(config, context.mlflow)
    version = model_registry.register(
        context.tracker,
        run_id,
        name,
        logged_model.Candidate(
            key=trained.run_key,
            weights=trained.weights,
            card=card,
            accuracy=evaluation.accuracy,
            test_hash=prepared.test_hash,
            metrics=run_metrics(report),
            tags={**lineage, "model": config.model.name, "dataset": prepared.dataset},
            example=prepared.array("test_images")[:EXAMPLES].copy(),
            description=(
                f"{config.model.name}, test accuracy {evaluation.accuracy:.2%} "
                f"({evaluation.accuracy_low:.2%} to {evaluation.accuracy_high:.2%}) on {evaluation.images} images"
            ),
            earlier_test_hashes=_test_hashes(context.workspace),
        ),
    )
    write_json(folder / "model.json", card)
    return Registration(
        folder=folder,
        name=version.name,
        version=version.version,
        aliases=version.aliases,
        run_id=run_id,
        run_key=trained.run_key,
        tracking_uri=context.mlflow.address,
        test_hash=prepared.test_hash,
        not_compared=version.not_compared,
    )


def _test_hashes(workspace: Workspace) -> dict[str, str]:
    """The test split's hash of all prepared data that are still here, by the hash of the whole."""
    found = {}
    for path in workspace.stage(PREPARE).glob("*"):
        try:
            if (manifest := read_manifest(path)) is not None:
                prepared = PreparedData.model_validate({**manifest.result, "folder": path})
                found[prepared.data_hash] = prepared.test_hash
        except (WorkspaceError, ValidationError, KeyError):  # said when that folder itself is asked for
            continue
    return found


def _problem(context: Context) -> str:
    """What keeps the store from having a run."""
    try:
        context.tracker.connection.experiment_id()
    except TrackingError as error:
        return str(error)
    return f"{context.mlflow.address} did not take it; repeat the command"
