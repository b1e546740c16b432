"""What is known of one training: read from its files, and computed from its kept predictions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.config.schema import RunConfig
from pipeline.errors import SeqpipeError, WorkspaceError
from pipeline.evaluation.latency import Latency, kept
from pipeline.evaluation.metrics import ClassificationReport, compute
from pipeline.evaluation.published import ComparisonRow, ModelResult, comparison_rows
from pipeline.promotion.report import summary
from pipeline.reports.named_runs import NamedRun
from pipeline.stages.evaluate import NAME as EVALUATE
from pipeline.stages.register import NAME as REGISTER
from pipeline.stages.results import Registration
from pipeline.stages.run_page import CONFIG_FILE, PROVENANCE_FILE, starting_config
from pipeline.stages.train import NAME as TRAIN
from pipeline.tracking import journal
from pipeline.training.time_forecast import FORECAST_TAG
from pipeline.workspace.manifests import Manifest, read_manifest
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from pipeline.evaluation.predictions import Predictions

_NODE_TAG = "seqpipe.node"
HERE = "this laptop"


@dataclass(frozen=True)
class TrainingFacts:
    """A training of this workspace, or a registered version of one elsewhere, of which less is known."""

    run: NamedRun
    predictions: "Predictions | None"
    """Of the test images; None if it was not evaluated, or they are gone."""
    metrics: ClassificationReport | None
    """On the test images."""
    config: RunConfig | None
    """What it was started with."""
    config_text: str
    epochs: Sequence[Mapping[str, float]]
    """The figures of each epoch, by their names in MLflow."""
    latency: Latency | None
    registrations: tuple[Registration, ...]
    """Its versions in the registry, the oldest first."""
    versions: Mapping[str, str]
    """Of Python and of the packages that it was trained with."""
    node: str
    """The laptop that trained it."""
    forecast_s: float | None
    """How long it said, after its first steps, that it would take."""
    missing: tuple[str, ...]
    """What is not there of it, a sentence each."""

    @property
    def seed(self) -> int | None:
        """Of weights, order and augmentation."""
        seed = (self.run.settings or {}).get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def name(self) -> str:
        """`seed 1`; the name of the run where its seed is not known."""
        return self.run.name if self.seed is None else f"seed {self.seed}"

    @property
    def validation_accuracy(self) -> float | None:
        """Of its best epoch, whose weights are kept."""
        return self.run.trained.validation_accuracy if self.run.trained else None

    @property
    def is_mirrored(self) -> bool:
        """Whether each test image was seen from both sides."""
        return self.run.predictions is not None and "mirrored" in self.run.predictions.name

    @property
    def against_published(self) -> ComparisonRow | None:
        """Its figures beside the published ones; None without figures."""
        metrics, prepared = self.metrics, self.run.prepared
        if metrics is None:
            return None
        result = ModelResult(
            model=self.run.model,
            accuracy=metrics.accuracy,
            accuracy_low=metrics.accuracy_low,
            accuracy_high=metrics.accuracy_high,
            loss=metrics.loss,
            images=metrics.images,
            dataset=prepared.dataset if prepared else "that is not here",
            class_names=metrics.class_names,
            fraction=prepared.fraction if prepared else 1.0,
        )
        return comparison_rows([result])[0]

    @property
    def lineage(self) -> dict[str, str]:
        """Where it comes from: data, settings, code, run, versions. What is not known is left out."""
        trained, prepared = self.run.trained, self.run.prepared
        found = {
            "data": f"{prepared.dataset}, from {prepared.source}" if prepared else "",
            "hash of the data": prepared.data_hash if prepared else "",
            "settings (fingerprint)": trained.folder.name if trained else "",
            "code (commit)": (trained.git_commit or "not known") if trained else "",
            "run": self.run.key,
            "run in MLflow": self.run.run_id or "",
            "trained": self.run.created.replace("T", " ").replace("Z", " UTC"),
            "on": self.node if trained else "",
            **self.versions,
        }
        for one in self.registrations:
            aliases = f", {' and '.join(one.aliases)} when it was registered" if one.aliases else ""
            gate = summary(one.decision) if one.decision else "not asked"
            found[f"version {one.version}"] = f"of {one.name}{aliases}; gate: {gate}"
        return {name: value for name, value in found.items() if value}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        trained, row = self.run.trained, self.against_published
        return {
            "key": self.run.key,
            "name": self.run.name,
            "model": self.run.model,
            "seed": self.seed,
            "parameters": self.run.parameters,
            "run_id": self.run.run_id,
            "trained": trained.model_dump(mode="json") if trained else None,
            "test": self.metrics.to_json() if self.metrics else None,
            "mirrored": self.is_mirrored,
            "published": {
                "accuracy": row.published_accuracy,
                "loss": row.published_loss,
                "difference_points": row.difference_points,
                "like_for_like": row.like_for_like,
                "reason": row.reason,
            }
            if row
            else None,
            "forecast_s": self.forecast_s,
            "latency_ms": self.latency.ms if self.latency else None,
            "epochs": [dict(one) for one in self.epochs],
            "registrations": [one.model_dump(mode="json") for one in self.registrations],
            "lineage": self.lineage,
            "missing": list(self.missing),
            "config": self.config.model_dump(mode="json") if self.config else None,
        }


def read_training(run: NamedRun, workspace: Workspace) -> TrainingFacts:
    """Gather what is known of a training; what is missing or damaged is left out, and said."""
    folder = run.trained.folder if run.trained else None
    config = starting_config(folder) if folder else None
    missing = []
    if folder is not None and config is None:
        missing.append("its config cannot be read by this version of seqpipe")
    if folder is not None and run.prepared is None:
        missing.append("its data are no longer prepared here (`seqpipe run prepare` with its settings makes them)")
    tags = _tags(folder / journal.FILE_NAME) if folder else {}
    predictions: Predictions | None = None
    metrics: ClassificationReport | None = None
    try:
        predictions = run.load_predictions()
        metrics = compute(predictions, calibration_bins=config.evaluate.calibration_bins if config else 15)
    except SeqpipeError as error:  # none, or damaged
        missing.append(str(error))
        if folder is not None and (metrics := _kept_metrics(workspace, folder.name)) is not None:
            missing.append("its figures are those that its evaluation kept")
    return TrainingFacts(
        run=run,
        predictions=predictions,
        metrics=metrics,
        config=config,
        config_text=(folder / CONFIG_FILE).read_text() if folder and config else "",
        epochs=_plain_json(folder / "epochs.json", []) if folder else [],
        latency=kept(run.predictions.parent) if run.predictions else None,
        registrations=tuple(_registrations(workspace, folder.name)) if folder else (),
        versions=_plain_json(folder / PROVENANCE_FILE, {}).get("versions", {}) if folder else {},
        node=tags.get(_NODE_TAG, HERE) if folder else "",
        forecast_s=float(tags[FORECAST_TAG]) if FORECAST_TAG in tags else None,
        missing=tuple(missing),
    )


def _kept_metrics(workspace: Workspace, training: str) -> ClassificationReport | None:
    """Of the newest evaluation that still has its report, where the predictions are gone."""
    for manifest in reversed(_made_from(workspace, EVALUATE, training)):
        content = _plain_json(workspace.stage(EVALUATE) / manifest.fingerprint / "report.json", None)
        try:
            return ClassificationReport.from_json(content)
        except ValueError:
            continue
    return None


def _registrations(workspace: Workspace, training: str) -> Iterator[Registration]:
    for manifest in _made_from(workspace, REGISTER, training):
        folder = workspace.stage(REGISTER) / manifest.fingerprint
        try:
            yield Registration.model_validate({**manifest.result, "folder": folder})
        except ValidationError:  # reported when that stage itself is asked for
            continue


def _made_from(workspace: Workspace, stage: str, training: str) -> list[Manifest]:
    """The manifests of a stage that stand on a training, the oldest first."""
    found = []
    for path in workspace.stage(stage).glob("*"):
        try:
            manifest = read_manifest(path)
        except WorkspaceError:  # reported when that folder itself is asked for
            continue
        if manifest is not None and manifest.inputs.get(TRAIN) == training and manifest.fingerprint == path.name:
            found.append(manifest)
    return sorted(found, key=lambda one: one.created)


def _tags(path: Path) -> dict[str, str]:
    """What a journal last said of each tag."""
    found: dict[str, str] = {}
    for event in journal.read(path):
        if event.kind == "tags":
            found |= event.content["values"]
    return found


def _plain_json(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return otherwise
