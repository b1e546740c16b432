"""register: a version in the MLflow registry under the task's name, with everything that it takes to trust it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.config.keys import to_yaml
from pipeline.config.schema import GateConfig, RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.errors import TrackingError, WorkspaceError
from pipeline.stages.context import Context
from pipeline.stages.evaluate import predictions_file, predictions_folder, run_metrics
from pipeline.stages.judging import RegistryGate
from pipeline.stages.prepare import NAME as PREPARE
from pipeline.stages.results import Evaluation, Registration, Results, TrainedModel
from pipeline.stages.stage import Stage
from pipeline.stages.train import NAME as TRAIN
from pipeline.stages.train import identity_of
from pipeline.tracking import delivery_state, registration_check
from pipeline.tracking.registry_names import CHALLENGER, LATENCY_MACHINE_TAG, LATENCY_TAG, PARAMETERS_TAG
from pipeline.tracking.settings import ResolvedMlflow, task_name
from pipeline.tracking.sqlite_files import sqlite_path
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.manifests import Manifest, read_manifest
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from pipeline.promotion.gate import GateDecision
    from pipeline.tracking.delivery import Tracker
    from pipeline.tracking.logged_model import Candidate
    from pipeline.tracking.registry import RegisteredVersion

NAME = "register"
VERSION = 1
EXAMPLES = 4
"""Test images that are logged as the input example."""


class Register(Stage):
    """Makes a new version for each training; a new report on the same training makes none."""

    name = NAME
    version = VERSION
    result = Registration
    inputs = (TRAIN,)
    retention = "always"

    def reads(self, config: RunConfig, mlflow: ResolvedMlflow) -> dict[str, Any]:
        """Where the version goes, and under which name; and what else than the training decides it.

        Mirrored views and another gate than the usual one are said only where they are: earlier versions do not.
        """
        mirrored, gate = config.evaluate.mirrored, config.registry.gate
        return {
            **({"mirrored": True} if mirrored else {}),
            **({} if gate == GateConfig() else {"gate": gate.model_dump(mode="json")}),
            "model": {"name": config.model.name},
            "registry": mlflow.registry_uri or mlflow.address,
            "registered_model": model_name(config, mlflow),
        }

    def run(self, config: RunConfig, made: Results, folder: Path, context: Context) -> Registration:
        return register(config, made[PreparedData], made[TrainedModel], made[Evaluation], folder, context)

    def summary(self, result: Mapping[str, Any]) -> str:
        return f"{result['name']} version {result['version']}"

    def why_invalid(self, manifest: Manifest, mlflow: ResolvedMlflow, workspace: Workspace) -> str | None:
        """Why the registered version is no longer in MLflow; None if it is, as far as files on this disk show.

        A server is not asked: a command with nothing to do works without it.
        """
        kept = {key: str(manifest.result.get(key)) for key in ("name", "version", "run_id", "run_key")}
        if (database := mlflow.database) is not None:
            if mlflow.is_gone:
                return f"{database.name} is gone"
            store = delivery_state.read_store(workspace, kept["run_key"], mlflow.address)
            if store is not None and store.run_id != kept["run_id"]:
                return f"{database.name} was made anew since"
            if missing := registration_check.missing_run(database, kept["run_id"]):
                return missing if store is not None else f"{database.name} was made anew since"
        registry = sqlite_path(mlflow.registry_uri) if mlflow.registry_uri else database
        if registry is None:
            return None
        aliases = (CHALLENGER,) if _refused_alone(manifest.result) else registration_check.ALIASES
        return registration_check.missing_version(registry, kept["name"], kept["version"], aliases)


STAGE = Register()


def model_name(config: RunConfig, mlflow: ResolvedMlflow) -> str:
    """The registered model's name: it stands for the task, whatever the architecture."""
    name = mlflow.model_name(task_name(config.data.dataset, config.data.classes))
    names_data_set = config.data.dataset != "synthetic" or "{task}" in mlflow.registered_model
    return name if names_data_set else f"{name}-synthetic"  # made-up images never compete with real ones


def register(
    config: RunConfig,
    prepared: PreparedData,
    trained: TrainedModel,
    evaluation: Evaluation,
    folder: Path,
    context: Context,
) -> Registration:
    """Register the trained model, and give it the aliases that the gate allows.

    Raises:
        TrackingError: the store or the registry cannot be used.
    """
    from pipeline.tracking import registry as model_registry

    run_id = _delivered_run(trained, context)
    lineage = lineage_of(prepared, trained, folder.name.removesuffix(".partial"))
    card = model_card(config, prepared, evaluation, lineage)
    gate = RegistryGate(config.registry.gate, context.workspace, config.evaluate.calibration_bins)
    version = model_registry.register(
        context.tracker,
        run_id,
        model_name(config, context.mlflow),
        _candidate(prepared, trained, evaluation, card, context.workspace),
        gate,
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
        decision=gate.decision,
    )


def _refused_alone(result: Mapping[str, Any]) -> bool:
    """Whether the gate refused a version though there was no champion: then it is right that there is none."""
    decision = result.get("decision") or {}
    compared = decision.get("number", 0) > 0 or decision.get("why_not_compared")
    return decision.get("promotes") is False and not compared


def lineage_of(prepared: PreparedData, trained: TrainedModel, fingerprint: str) -> dict[str, str]:
    """Which data, settings, training and code a version comes from."""
    return {
        "data_hash": prepared.data_hash,
        "config_hash": fingerprint,
        "train_fingerprint": trained.folder.name,
        "run_key": trained.run_key,
        "git_commit": trained.git_commit or "unknown",
    }


def model_card(
    config: RunConfig, prepared: PreparedData, evaluation: Evaluation, lineage: Mapping[str, str]
) -> dict[str, Any]:
    """What is kept beside the weights: how to build the model, how to feed it, and what it is worth."""
    return {
        "architecture": config.model.model_dump(mode="json"),
        "classes": list(prepared.class_names),
        "mean": list(prepared.mean),
        "std": list(prepared.std),
        "mirrored": config.evaluate.mirrored,
        "dataset": prepared.dataset,
        "lineage": dict(lineage),
        "test": {"images": evaluation.images, "accuracy": evaluation.accuracy, "loss": evaluation.loss},
        "config": to_yaml(config),
    }


def _candidate(
    prepared: PreparedData,
    trained: TrainedModel,
    evaluation: Evaluation,
    card: dict[str, Any],
    workspace: Workspace,
) -> "Candidate":
    """The version that is offered to the registry."""
    from pipeline.evaluation.metrics import ClassificationReport
    from pipeline.tracking.logged_model import Candidate

    report = ClassificationReport.from_json(json.loads((evaluation.folder / "report.json").read_bytes()))
    return Candidate(
        key=f"{trained.run_key}-mirrored" if card["mirrored"] else trained.run_key,
        weights=trained.weights,
        predictions=predictions_file(workspace, trained, mirrored=card["mirrored"]),
        card=card,
        accuracy=evaluation.accuracy,
        test_hash=prepared.test_hash,
        metrics=run_metrics(report),
        tags={
            **card["lineage"],
            "model": trained.model,
            "dataset": prepared.dataset,
            PARAMETERS_TAG: str(trained.parameters),
            **_latency_tags(predictions_folder(workspace, trained), views=2 if card["mirrored"] else 1),
        },
        example=prepared.array("test_images")[:EXAMPLES].copy(),
        description=(
            f"{trained.model}, test accuracy {evaluation.accuracy:.2%} "
            f"({evaluation.accuracy_low:.2%} to {evaluation.accuracy_high:.2%}) on {evaluation.images} images"
        ),
        earlier_test_hashes=_test_hashes(workspace),
    )


def _latency_tags(folder: Path, views: int = 1) -> dict[str, str]:
    """How long the model takes for one image, of which it sees so many views.

    Nothing of models that earlier releases evaluated.
    """
    from pipeline.evaluation.latency import kept

    found = kept(folder)
    return {} if found is None else {LATENCY_TAG: f"{views * found.ms:.3f}", LATENCY_MACHINE_TAG: found.machine}


def _delivered_run(trained: TrainedModel, context: Context) -> str:
    """The MLflow id of the training's run, once the store has all of it.

    Raises:
        TrackingError: the store does not take it.
    """
    identity = identity_of(trained)
    is_delivered = context.tracker.deliver(identity, f"{TRAIN}/{trained.folder.name}", trained.folder, force=True)
    run_id = context.tracker.run_id(identity)
    if not is_delivered or run_id is None:
        raise TrackingError(f"not registered, since MLflow does not have all of the run: {_problem(context)}")
    return run_id


def _problem(context: Context) -> str:
    """What keeps the store from having a run."""
    try:
        context.tracker.connection.experiment_id()
    except TrackingError as error:
        return str(error)
    return f"{context.mlflow.address} did not take it; repeat the command"


def judge_again(
    name: str, number: int, config: RunConfig, tracker: "Tracker", *, dry_run: bool
) -> tuple["RegisteredVersion", "GateDecision | None"]:
    """Ask the gate about a version that is registered already, and let it have what it says unless `dry_run`.

    There is no decision about the champion itself.

    Raises:
        TrackingError: the registry cannot be reached or used.
    """
    from pipeline.tracking import registry as model_registry

    gate = RegistryGate(config.registry.gate, tracker.workspace, config.evaluate.calibration_bins)
    return model_registry.judge(tracker, name, str(number), gate, dry_run=dry_run), gate.decision


def _test_hashes(workspace: Workspace) -> dict[str, str]:
    """The hash of the test split, by the hash of the whole, of all prepared data that are still here."""
    found = {}
    for path in workspace.stage(PREPARE).glob("*"):
        try:
            if (manifest := read_manifest(path)) is not None:
                prepared = PreparedData.model_validate({**manifest.result, "folder": path})
                found[prepared.data_hash] = prepared.test_hash
        except (WorkspaceError, ValidationError, KeyError):  # reported when that folder itself is asked for
            continue
    return found
