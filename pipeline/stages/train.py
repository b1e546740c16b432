"""train: find the weights, resumable at any moment."""

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config.keys import flatten, to_yaml
from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.errors import BudgetExhaustedError, InterruptedRunError
from pipeline.provenance import git_commit, versions
from pipeline.stages.context import Context
from pipeline.stages.results import TrainedModel
from pipeline.tracking.background import BackgroundDelivery
from pipeline.tracking.delivery import RunIdentity
from pipeline.tracking.journal import Journal
from pipeline.tracking.training_folders import RUN_FILE
from pipeline.workspace.durable_files import write_atomically, write_json, writing
from pipeline.workspace.manifests import StageFolder, stage_lock

if TYPE_CHECKING:
    from pipeline.training.device import Numerics

NAME = "train"
VERSION = 2
SCRATCH = ("step-*",)
"""Files that only a resume needs."""
PROVENANCE_FILE = "provenance.json"
DELIVERY_PATIENCE_S = 60.0
LEAVING_PATIENCE_S = 1.5
"""How long to wait for MLflow; what it misses is delivered by a later command."""


def reads(config: RunConfig) -> dict[str, Any]:
    """What the weights depend on; the precision as it was asked for."""
    return {
        "seed": config.seed,
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json"),
        "precision": config.compute.precision,
    }


def train(config: RunConfig, prepared: PreparedData, folder: Path, context: Context) -> TrainedModel:
    """Train in `folder`, going on from its newest whole checkpoint.

    Raises:
        TrainingDivergedError, MemoryCapError: the training cannot go on; the last checkpoint is kept.
        BudgetExhaustedError, InterruptedRunError: asked to leave; the same command goes on.
    """
    from pipeline.training import checkpoint as checkpoints
    from pipeline.training import numerics as kept_numerics
    from pipeline.training import session

    identity = run_identity(config, folder)
    numerics = kept_numerics.numerics_of(config, len(prepared.class_names), folder, context.reporter)
    context.reporter.note(kept_numerics.in_words(numerics, config))
    journal_id = f"{NAME}/{folder.name.removesuffix('.partial')}"
    delivery = BackgroundDelivery(context.tracker, identity, journal_id, folder)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    with session.opened(
        config, prepared, folder, numerics, context.reporter, context.stop_token, durable=delivery.notify
    ) as opened:
        training, journal, writer = opened.training, opened.journal, opened.writer
        try:
            if opened.checkpoint is None:
                journal.truncate(0)
                _describe(config, prepared, numerics, opened.parameters, folder, journal)
                training.save()
            else:
                training.resume(opened.checkpoint, checkpoints.best_epoch(folder))
                context.tracker.record(identity, journal_id, folder, upto=journal.offset, status="RUNNING")
            progress = training.fit()
            status = "FINISHED"
        except (BudgetExhaustedError, InterruptedRunError):
            status = "KILLED"
            raise
        finally:
            patience_s = DELIVERY_PATIENCE_S if status == "FINISHED" else LEAVING_PATIENCE_S
            try:
                writer.close()
            except BaseException:  # the disk is full, or a second Ctrl-C
                patience_s = 0.0
                if status == "FINISHED":
                    status = "FAILED"
                raise
            finally:
                delivery.close(upto=writer.durable_offset, status=status, timeout_s=patience_s)
    checkpoints.save_weights(folder / "last.safetensors", training.model.state_dict())
    write_json(folder / "epochs.json", progress.rows)
    return TrainedModel(
        folder=folder,
        model=config.model.name,
        run_key=identity.key,
        run_name=identity.name,
        parameters=opened.parameters,
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        validation_accuracy=progress.best_accuracy,
        validation_loss=progress.best_loss,
        trained_s=progress.trained_s,
        images_per_s=opened.images * progress.epoch / progress.steps_s,
        peak_memory_mb=progress.peak_memory_mb,
        numerics=numerics.to_json(),
        git_commit=_begun_with(folder),
    )


def run_identity(config: RunConfig, folder: Path) -> RunIdentity:
    """The MLflow run of a training: one through any number of resumes, kept in its folder."""
    path = folder / RUN_FILE
    fingerprint = folder.name.removesuffix(".partial")
    lock = stage_lock(NAME, fingerprint)
    try:
        return RunIdentity(**json.loads(path.read_bytes()), lock=lock)
    except (FileNotFoundError, ValueError, TypeError):
        classes = len(config.data.class_names)
        name = f"{config.model.name}, {classes} classes, seed {config.seed}"
        identity = RunIdentity(key=f"{fingerprint}-{uuid.uuid4().hex[:8]}", name=name, lock=lock)
        write_json(path, {"key": identity.key, "name": identity.name})
        return identity


def identity_of(trained: TrainedModel) -> RunIdentity:
    """The MLflow run that a trained model's figures belong to."""
    return RunIdentity(trained.run_key, trained.run_name)


def _begun_with(folder: Path) -> str | None:
    """The commit of the code that a training was begun with."""
    try:
        commit: str | None = json.loads((folder / PROVENANCE_FILE).read_bytes())["git_commit"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # what a training is worth does not hang on it
        return None
    return commit


def unfinished_run(folder: StageFolder) -> str | None:
    """The key of the run that an unfinished training belongs to, if there is one."""
    try:
        return str(json.loads((folder.partial / RUN_FILE).read_bytes())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def progress_text(folder: Path) -> str | None:
    """How far an unfinished training is, from its newest checkpoint's description; None if there is none."""
    for described in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            progress = json.loads(described.read_bytes())["progress"]
            return f"{progress['epoch']} epochs done, step {progress['step']}"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _describe(
    config: RunConfig,
    prepared: PreparedData,
    numerics: "Numerics",
    parameters: int,
    folder: Path,
    journal: Journal,
) -> None:
    """What the run's page shows before the first epoch is done."""
    commit, found = git_commit(), versions()
    write_json(folder / PROVENANCE_FILE, {"git_commit": commit, "versions": found})
    write_atomically(folder / "config.yaml", to_yaml(config).encode())
    with writing(folder):
        shutil.copyfile(prepared.contact_sheet, folder / "contact_sheet.png")
    settings = {key: value for key, value in flatten(config).items() if not key.startswith("evaluate.")}
    journal.params({**settings, "model.parameters": parameters})
    tags: Mapping[str, str | None] = {
        "seqpipe.model": config.model.name,
        "seqpipe.dataset": prepared.dataset,
        "seqpipe.classes": ", ".join(prepared.class_names),
        "seqpipe.data_hash": prepared.data_hash,
        "mlflow.source.git.commit": commit,
        "mlflow.note.content": _note(config, prepared),
        **{f"numerics.{name}": None if value is None else str(value) for name, value in numerics.to_json().items()},
        **{f"version.{name}": version for name, version in found.items()},
    }
    journal.tags({name: value for name, value in tags.items() if value is not None})
    profile = {split: prepared.images_in(split) for split in prepared.counts}
    for context in ("train", "validation", "test"):
        journal.dataset(
            {
                "name": f"{prepared.dataset} {context}",
                "digest": prepared.data_hash[:16],
                "context": context,
                "source": prepared.source,
                "profile": {"images": profile[context], "classes": dict(prepared.counts[context])},
            }
        )
    journal.artifact(folder / "config.yaml")
    journal.artifact(folder / "contact_sheet.png", "data")


def _note(config: RunConfig, prepared: PreparedData) -> str:
    counts = ", ".join(f"{prepared.images_in(split)} {split}" for split in prepared.counts)
    return (
        f"**{config.model.name}** on {prepared.dataset}: {', '.join(prepared.class_names)} ({counts} images). "
        f"Train this again with `seqpipe run all --config config.yaml` (the file is among the artifacts)."
    )
