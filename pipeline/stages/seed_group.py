"""Trainings that differ in their seed alone: their results, how these spread, and the MLflow run that they lie under.

    .seqpipe/seeds/<group>/journal.jsonl      what that run shows, written whenever one of the seeds is done

The group is the fingerprint of a training without its seed, so any command for some of the seeds adds to one run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.keys import flatten
from pipeline.config.schema import RunConfig
from pipeline.errors import WorkspaceError
from pipeline.evaluation.spread import Spread, spread
from pipeline.stages.context import Context
from pipeline.stages.evaluate import NAME as EVALUATE
from pipeline.stages.plan import Identity, identities
from pipeline.stages.results import Evaluation, Result, TrainedModel
from pipeline.stages.train import NAME as TRAIN
from pipeline.stages.train import identity_of
from pipeline.tracking.delivery import RunIdentity
from pipeline.tracking.delivery_state import Status
from pipeline.tracking.journal import FILE_NAME, Journal, read
from pipeline.workspace.durable_files import writing
from pipeline.workspace.fingerprints import fingerprint
from pipeline.workspace.locks import exclusive
from pipeline.workspace.manifests import Manifest, StageFolder, read_manifest, stage_lock

NAME = "seeds"
SEED = "seed"


@dataclass(frozen=True)
class SeedResult:
    """What a training with one seed came to."""

    seed: int
    trained: TrainedModel
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class Spreads:
    """How the figures of several seeds spread."""

    validation_accuracy: Spread
    test_accuracy: Spread | None
    """Of the seeds that were evaluated; None if none was."""


def spreads(results: Sequence[SeedResult]) -> Spreads:
    """The spread of each figure of at least one result."""
    tested = [one.evaluation.accuracy for one in results if one.evaluation is not None]
    return Spreads(spread([one.trained.validation_accuracy for one in results]), spread(tested) if tested else None)


def group_of(training: Identity | Manifest) -> str:
    """The fingerprint of a training without its seed."""
    reads = {key: value for key, value in training.reads.items() if key != SEED}
    return fingerprint(TRAIN, training.version, reads, training.inputs)


class SeedGroup:
    """The group that a config's training belongs to, and its MLflow run."""

    def __init__(self, config: RunConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._found = identities(config, context.mlflow)
        self.fingerprint = group_of(self._found[TRAIN])
        self.key = f"{NAME}-{self.fingerprint}"
        self._folder = context.workspace.hidden / NAME / self.fingerprint

    def results(self) -> list[SeedResult]:
        """The seeds whose trainings are whole in this workspace, evaluated as the config says or not at all."""
        found = []
        for path in self._context.workspace.stage(TRAIN).glob("*"):
            manifest = _manifest(path)
            if manifest is None or manifest.fingerprint != path.name or group_of(manifest) != self.fingerprint:
                continue
            if (trained := _result(TrainedModel, path, manifest)) is not None:
                found.append(SeedResult(manifest.reads[SEED], trained, self._evaluation(path.name)))
        return sorted(found, key=lambda one: one.seed)

    def write(self, status: Status) -> None:
        """Write what the group's run shows now, and how it stands; and have its trainings lie under it.

        Raises:
            WorkspaceError: the workspace cannot be written.
        """
        tracker, workspace = self._context.tracker, self._context.workspace
        with exclusive(workspace.lock(self.key), self._context.reporter.note, what=f"the run of {self.key}"):
            results = self.results()
            with writing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            self._write_journal(results)
            lock = stage_lock(TRAIN, self._found[TRAIN].fingerprint)  # held by the process that trains this seed
            classes = len(self._config.data.class_names)
            name = f"seeds of {self._config.model.name}, {classes} classes"
            identity = RunIdentity(self.key, name, lock=lock)
            tracker.record(identity, f"{NAME}/{self.fingerprint}", self._folder, status=status)
        for one in results:
            child = identity_of(one.trained, parent=self.key)
            tracker.record(child, f"{TRAIN}/{one.trained.folder.name}", one.trained.folder)

    def _evaluation(self, training: str) -> Evaluation | None:
        of_config = self._found[EVALUATE]
        its = Identity(EVALUATE, of_config.version, of_config.reads, {**of_config.inputs, TRAIN: training})
        folder = StageFolder(self._context.workspace, EVALUATE, its.fingerprint).whole
        manifest = _manifest(folder)
        return None if manifest is None else _result(Evaluation, folder, manifest)

    def _write_journal(self, results: Sequence[SeedResult]) -> None:
        known = _Known.of(self._folder)
        with Journal(self._folder) as journal:
            if not known.params:
                settings = flatten(self._config).items()
                journal.params({key: value for key, value in settings if key != SEED and not _is_of_report(key)})
            tags = {
                "seqpipe.kind": NAME,
                "seqpipe.model": self._config.model.name,
                "seqpipe.classes": ", ".join(self._config.data.class_names),
                "seqpipe.seeds": ", ".join(str(one.seed) for one in results) or "none yet",
                "mlflow.note.content": _note(self._config, spreads(results)) if results else "",
            }
            if new_tags := {key: value for key, value in tags.items() if known.tags.get(key) != value}:
                journal.tags(new_tags)
            metrics = metrics_of(spreads(results)) if results else {}
            if any(known.metrics.get(key) != value for key, value in metrics.items()):
                journal.metrics(metrics, step=len(results))


def metrics_of(of: Spreads) -> dict[str, float]:
    """The figures on the group's page in MLflow, by name."""
    named = {"best/validation_accuracy": of.validation_accuracy, "test/accuracy": of.test_accuracy}
    metrics = {"seeds": float(of.validation_accuracy.count)}
    for name, one in named.items():
        if one is not None:
            figures = {"mean": one.mean, "deviation": one.deviation, "mean_low": one.low, "mean_high": one.high}
            metrics |= {f"{name}_{what}": value for what, value in figures.items() if value is not None}
    return metrics


def _note(config: RunConfig, of: Spreads) -> str:
    figures = {"validation accuracy": of.validation_accuracy, "test accuracy": of.test_accuracy}
    parts = [f"{name} {one.in_words()}" for name, one in figures.items() if one is not None]
    return f"**{config.model.name}**, the same settings with different seeds: {'; '.join(parts)}."


@dataclass(frozen=True)
class _Known:
    """What the journal says already."""

    params: bool
    tags: Mapping[str, Any]
    metrics: Mapping[str, float]

    @classmethod
    def of(cls, folder: Path) -> "_Known":
        values: dict[str, dict[str, Any]] = {"params": {}, "tags": {}, "metrics": {}}
        for event in read(folder / FILE_NAME):
            values[event.kind] |= event.content["values"]
        return cls(bool(values["params"]), values["tags"], values["metrics"])


def _is_of_report(key: str) -> bool:
    return key.startswith("evaluate.")


def _result(kind: type[Result], folder: Path, manifest: Manifest) -> Result | None:
    try:
        return kind.model_validate({**manifest.result, "folder": folder})
    except ValidationError:  # reported when it is asked for
        return None


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except WorkspaceError:  # reported when that folder itself is asked for
        return None
