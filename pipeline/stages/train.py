"""train: find the weights, resumable at any moment."""

import dataclasses
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import run_records
from pipeline.config import RunConfig, flatten, to_yaml
from pipeline.courier import Courier
from pipeline.errors import BudgetExhaustedError, InterruptedRunError, MachineUnfitError
from pipeline.journal import Journal
from pipeline.provenance import git_commit, versions
from pipeline.stages.context import Context
from pipeline.stages.results import PreparedData, TrainedModel
from pipeline.tracking import RunIdentity
from pipeline.workspace import StageFolder, Workspace, is_held, write_atomically, write_json, writing

if TYPE_CHECKING:
    from torch import nn

    from pipeline.training.device import Numerics

NAME = "train"
VERSION = 2
SCRATCH = ("step-*",)
"""Files that only a resume needs."""
RUN_FILE = "run.json"
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


def build_model(config: RunConfig, classes: int) -> "nn.Module":
    """The model of a config, its weights drawn by the config's seed."""
    import torch

    from pipeline.data.batches import derive_seed
    from sequencer_models import catalog

    torch.manual_seed(derive_seed(config.seed, "weights"))
    return catalog.build(config.model.name, classes, **config.model.model_dump(exclude={"name"}))


def train(config: RunConfig, prepared: PreparedData, folder: Path, context: Context) -> TrainedModel:
    """Train in `folder`, going on from its newest whole checkpoint.

    Raises:
        TrainingDivergedError, MemoryCapError: the training cannot go on; the last checkpoint is kept.
        BudgetExhaustedError, InterruptedRunError: asked to leave; the same command goes on.
    """
    import torch

    from pipeline.data.batches import Normalisation, Split, TrainBatches, derive_seed
    from pipeline.training import checkpoint as checkpoints
    from pipeline.training.loop import Training, Validation, telling_of_memory
    from sequencer_models.sequencer2d import Sequencer2DLevel

    identity = run_identity(config, folder)
    numerics = _numerics(config, len(prepared.class_names), folder, context)
    numerics.apply()
    context.reporter.note(_means(numerics, config))
    normalise = Normalisation(prepared.mean, prepared.std)
    train_split, validation_split = (
        Split(prepared.array(f"{name}_images"), prepared.array(f"{name}_labels")) for name in ("train", "validation")
    )
    batches = TrainBatches(train_split, normalise, config.train.augment, config.train.batch_size, config.seed)
    with telling_of_memory(numerics):
        model = build_model(config, len(prepared.class_names))
    for level in model.modules():
        if isinstance(level, Sequencer2DLevel):
            level.recompute = config.compute.recompute
    torch.manual_seed(derive_seed(config.seed, "dropout"))
    parameters = sum(parameter.numel() for parameter in model.parameters())

    journal_id = f"{NAME}/{folder.name.removesuffix('.partial')}"
    courier = Courier(context.tracker, identity, journal_id, folder)
    checkpoint = checkpoints.latest(folder, context.reporter.warn)
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    with telling_of_memory(numerics), Journal(folder) as journal:
        writer = checkpoints.CheckpointWriter(
            folder,
            before=journal.sync,
            durable=courier.notify,
            durable_offset=checkpoint.journal_offset if checkpoint else 0,
        )
        training = Training(
            model=model,
            batches=batches,
            validation=Validation(validation_split, normalise, min(250, 4 * numerics.micro_batch_size)),
            config=config.train,
            numerics=numerics,
            journal=journal,
            writer=writer,
            reporter=context.reporter,
            control=context.control,
            checkpoint_every_s=config.compute.checkpoint_every_s,
            max_memory_mb=config.compute.max_memory_mb,
        )
        try:
            if checkpoint is None:
                journal.truncate(0)
                _describe(config, prepared, numerics, parameters, folder, journal)
                training.save()
            else:
                training.resume(checkpoint, checkpoints.best_epoch(folder))
                context.tracker.note(identity, journal_id, folder, upto=journal.offset, status="RUNNING")
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
                courier.close(upto=writer.durable_offset, status=status, timeout_s=patience_s)
    checkpoints.save_weights(folder / "last.safetensors", model.state_dict())
    write_json(folder / "epochs.json", progress.rows)
    return TrainedModel(
        folder=folder,
        model=config.model.name,
        run_key=identity.key,
        run_name=identity.name,
        parameters=parameters,
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        validation_accuracy=progress.best_accuracy,
        validation_loss=progress.best_loss,
        trained_s=progress.trained_s,
        images_per_s=len(train_split) * progress.epoch / progress.steps_s,
        peak_memory_mb=progress.peak_memory_mb,
        numerics=numerics.to_json(),
        git_commit=_begun_with(folder),
    )


def run_identity(config: RunConfig, folder: Path) -> RunIdentity:
    """The MLflow run of a training: one through any number of resumes, kept in its folder."""
    path = folder / RUN_FILE
    try:
        return RunIdentity(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        fingerprint = folder.name.removesuffix(".partial")
        classes = len(config.data.class_names)
        name = f"{config.model.name}, {classes} classes, seed {config.seed}"
        identity = RunIdentity(key=f"{fingerprint}-{uuid.uuid4().hex[:8]}", name=name)
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


def is_worked_on(workspace: Workspace, key: str) -> bool:
    """Whether a process trains the run of a key now; True for a run that is no training's, which others end."""
    record = run_records.read_run(workspace, key)
    trainings = [
        name.partition("/")[2] for name in (record.journals if record else ()) if name.startswith(f"{NAME}/")
    ]
    if not trainings:
        return True
    folder = StageFolder(workspace, NAME, trainings[0])
    return unfinished_run(folder) == key and is_held(folder.lock_path)


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


def _numerics(config: RunConfig, classes: int, folder: Path, context: Context) -> "Numerics":
    """Resolved once for a training, then taken from its folder, so that a resume computes the same bits."""
    from pipeline.training import device

    path = folder / "numerics.json"
    try:
        kept = device.Numerics(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        numerics = _within_memory(config, classes, device.resolve(config.compute, config.train.batch_size), context)
        write_json(path, numerics.to_json())
        return numerics
    try:
        same = {"device": kept.device, "kernel": "eager" if kept.recurrence == "eager" else "auto"}
        present = device.resolve(config.compute.model_copy(update=same), config.train.batch_size)
    except MachineUnfitError:
        raise MachineUnfitError(
            f"this training began on {kept.device}, which is not here; go on where it is, or start again with --fresh"
        ) from None
    for field, what in (("torch", "torch"), ("cpu", "processor"), ("recurrence", "LSTM kernel")):
        before, now = getattr(kept, field), getattr(present, field)
        if before != now:
            context.reporter.warn(
                f"started with the {what} {before}, going on with {now}: the weights will not be the same bit for bit"
            )
    asked = config.compute
    ignored = {
        "device": asked.device not in ("auto", kept.device),
        "threads": asked.threads not in (None, kept.threads),
        "kernel": asked.kernel not in ("auto", kept.recurrence.partition(" ")[0]),
        "micro_batch_size": asked.micro_batch_size not in (None, kept.micro_batch_size),
    }
    for name in (name for name, differs in ignored.items() if differs):
        had = kept.recurrence if name == "kernel" else getattr(kept, name)
        context.reporter.warn(f"this training was started with {name} {had} and goes on so; --fresh starts it again")
    return kept


def _within_memory(config: RunConfig, classes: int, numerics: "Numerics", context: Context) -> "Numerics":
    """With as many images at once as the memory cap allows, where there is one and the number is left open."""
    compute = config.compute
    if compute.max_memory_mb is None or compute.micro_batch_size is not None:
        return numerics
    from pipeline.training import memory_plan

    numerics.apply()
    size = memory_plan.micro_batch_size(
        compute.max_memory_mb, config.train.batch_size, build_model(config, classes), numerics, compute.recompute
    )
    if size < numerics.micro_batch_size:
        context.reporter.note(f"{size} images at once, to stay within {compute.max_memory_mb:.0f} MB")
    return dataclasses.replace(numerics, micro_batch_size=size)


def _means(numerics: "Numerics", config: RunConfig) -> str:
    """What computes, in a line."""
    from pipeline.training import device

    means = f"on {numerics.device} in {numerics.precision}, {numerics.threads} threads"
    if numerics.recurrence != "eager":
        return f"{means}, with the native LSTM kernel"
    if numerics.device != "cpu" or config.compute.kernel == "eager":
        return means
    return f"{means}, without the native LSTM kernel, which is faster ({device.native_kernel()[1]})"


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
        **{f"numerics.{name}": str(value) for name, value in numerics.to_json().items()},
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
