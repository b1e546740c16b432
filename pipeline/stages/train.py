"""train: find the weights, resumable at any moment."""

import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.later_settings import counted
from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.errors import BudgetExhaustedError, InterruptedRunError, MachineUnfitError
from pipeline.stages.context import Context, TrainingNode
from pipeline.stages.prepare import NAME as PREPARE
from pipeline.stages.prepare import fingerprint_of as prepared_fingerprint
from pipeline.stages.results import Results, TrainedModel
from pipeline.stages.stage import Stage
from pipeline.tracking.delivery import RunIdentity
from pipeline.tracking.delivery_state import Status
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.tracking.training_folders import RUN_FILE
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.manifests import stage_lock

if TYPE_CHECKING:
    from pipeline.stages.training_work import Figures
    from pipeline.tracking.background import BackgroundDelivery
    from pipeline.training.checkpoint_writer import CheckpointWriter

NAME = "train"
VERSION = 2
DELIVERY_PATIENCE_S = 60.0
LEAVING_PATIENCE_S = 1.5
"""How long to wait for MLflow, the last checkpoint's write included; what it misses a later command delivers."""


class Train(Stage):
    """A training made anew is a new run in MLflow: what stands on the old one goes with it."""

    name = NAME
    version = VERSION
    result = TrainedModel
    inputs = (PREPARE,)
    scratch = ("step-*",)
    is_new_each_time = True
    loads_model = True
    retention = "newest"

    def reads(self, config: RunConfig, mlflow: ResolvedMlflow) -> dict[str, Any]:
        return reads(config)

    def run(self, config: RunConfig, made: Results, folder: Path, context: Context) -> TrainedModel:
        return train(config, made[PreparedData], folder, context)

    def progress(self, folder: Path) -> str | None:
        return progress_text(folder)

    def summary(self, result: Mapping[str, Any]) -> str:
        accuracy = f"validation accuracy {result['validation_accuracy']:.2%}"
        return f"{result['model']}, {result['epochs']} epochs, {accuracy}"

    def unfinished_inputs(self, folder: Path) -> Mapping[str, str] | None:
        from pipeline.stages.run_page import starting_config

        config = starting_config(folder)
        return None if config is None else {PREPARE: prepared_fingerprint(config)}

    def unfinished_run(self, folder: Path) -> str | None:
        try:
            return str(json.loads((folder / RUN_FILE).read_bytes())["key"])
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
            return None


STAGE = Train()


def reads(config: RunConfig) -> dict[str, Any]:
    """What the weights depend on; the precision as it was asked for."""
    return {
        "seed": config.seed,
        "model": counted(config.model, "model"),
        "train": counted(config.train, "train"),
        "precision": config.compute.precision,
    }


def train(config: RunConfig, prepared: PreparedData, folder: Path, context: Context) -> TrainedModel:
    """Train in `folder`, going on from its newest whole checkpoint.

    Raises:
        TrainingDivergedError, MemoryCapError: the training cannot go on; the last checkpoint is kept.
        BudgetExhaustedError, InterruptedRunError: asked to leave; the same command goes on.
    """
    from pipeline.stages.run_page import starting_commit
    from pipeline.tracking.background import BackgroundDelivery

    identity = dataclasses.replace(run_identity(config, folder), parent=context.parent_run)
    journal_id = f"{NAME}/{folder.name.removesuffix('.partial')}"
    delivery = BackgroundDelivery(context.tracker, identity, journal_id, folder)

    def resumed(offset: int) -> None:
        context.tracker.record(identity, journal_id, folder, upto=offset, status="RUNNING")

    if context.node is None:
        figures = _train_here(config, prepared, folder, context, delivery, resumed)
    else:
        figures = _train_there(context.node, config, prepared, folder, context, delivery, resumed)
    return TrainedModel(
        folder=folder,
        model=config.model.name,
        run_key=identity.key,
        run_name=identity.name,
        git_commit=starting_commit(folder),
        **vars(figures),
    )


def _train_here(
    config: RunConfig,
    prepared: PreparedData,
    folder: Path,
    context: Context,
    delivery: "BackgroundDelivery",
    resumed: Callable[[int], None],
) -> "Figures":
    from pipeline.stages.training_work import Surroundings, train_in

    def closing(writer: "CheckpointWriter") -> AbstractContextManager[None]:
        return _closing(delivery, lambda: writer.durable_offset, writer.close)

    around = Surroundings(context.reporter, context.stop_token, delivery.notify, closing, on_resume=resumed)
    return train_in(folder, config, prepared, around)


def _train_there(
    node: TrainingNode,
    config: RunConfig,
    prepared: PreparedData,
    folder: Path,
    context: Context,
    delivery: "BackgroundDelivery",
    resumed: Callable[[int], None],
) -> "Figures":
    """Train there; the journal is delivered from here, as it comes home."""
    from pipeline.stages.train_there import durable_offset, train_on

    if (offset := durable_offset(folder)) is not None:
        resumed(offset)
    with _closing(delivery, lambda: durable_offset(folder)):
        return train_on(node, config, prepared, folder, context, delivery.notify)


@contextmanager
def _closing(
    delivery: "BackgroundDelivery",
    upto: Callable[[], int | None],
    last: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Within this, a training works; however it ends, `last` is waited for, and MLflow gets its status.

    `last` is the write of its last checkpoint; `upto` says how much of the journal is durable then, None if there is
    nothing to deliver.
    """
    status: Status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (BudgetExhaustedError, InterruptedRunError, MachineUnfitError):
        status = "KILLED"
        raise
    finally:
        patience_s = DELIVERY_PATIENCE_S if status == "FINISHED" else LEAVING_PATIENCE_S
        until = time.monotonic() + patience_s
        try:
            last()
        except BaseException:  # the disk is full, or a second Ctrl-C
            until = 0.0
            if status == "FINISHED":
                status = "FAILED"
            raise
        finally:
            if (offset := upto()) is not None:
                delivery.close(upto=offset, status=status, timeout_s=max(0.0, until - time.monotonic()))


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


def identity_of(trained: TrainedModel, parent: str = "") -> RunIdentity:
    """The MLflow run that a trained model's figures belong to; `parent` is the key of the run to move it under."""
    return RunIdentity(trained.run_key, trained.run_name, parent)


def progress_text(folder: Path) -> str | None:
    """How far an unfinished training is, from its newest checkpoint's description; None if there is none."""
    for described in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            progress = json.loads(described.read_bytes())["progress"]
            return f"{progress['epoch']} epochs done, step {progress['step']}"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
