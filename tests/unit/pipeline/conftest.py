"""A workspace in which the four stages are cheap stand-ins, so that only their order and their reuse are at work."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from offline_store import offline_tracker

from pipeline.config.resolution import resolve
from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.progress import SilentReporter
from pipeline.stages import evaluate, prepare, register, train
from pipeline.stages.context import Context
from pipeline.stages.plan import Command, Decision, plan
from pipeline.stages.results import Evaluation, Registration, TrainedModel
from pipeline.stages.runner import ModelOutcome, Runner
from pipeline.stop import StopToken
from pipeline.tracking import delivery_state
from pipeline.tracking import settings as mlflow_settings
from pipeline.workspace.paths import Workspace


class Recorder(SilentReporter):
    """Remembers what it is given to report."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.epochs: list[dict[str, float]] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epoch(self, row: dict[str, float]) -> None:
        self.epochs.append(row)


@dataclass
class House:
    """A workspace with stand-ins for stages; `ran` is what ran in the last command."""

    workspace: Workspace
    context: Context
    ran: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    trainings: int = 0
    accuracies: dict[int, float] = field(default_factory=dict)
    """By seed, on validation and on test images; 0.5 for the others."""
    errors: dict[int, Exception] = field(default_factory=dict)
    """By seed: what its training ends in."""
    parents: list[str] = field(default_factory=list)
    """The run that each training was to lie under."""

    def run(
        self, *sets: str, model: str = "vanilla", through: str = "register", fresh: Collection[str] = ()
    ) -> ModelOutcome:
        self.ran.clear()
        self.why.clear()
        return Runner(self.context, fresh=fresh).run(config_of(*sets, model=model), through, self.why.__setitem__)

    def plan(
        self, *sets: str, model: str = "vanilla", through: str = "register", command: Command | None = None
    ) -> dict[str, Decision]:
        config = config_of(*sets, model=model)
        decisions = plan(config, self.context.mlflow, self.workspace, through, command)
        return {decision.stage: decision for decision in decisions}

    def folder(self, stage: str) -> Path:
        (only,) = self.workspace.stage(stage).iterdir()
        return only


def config_of(*sets: str, model: str = "vanilla") -> RunConfig:
    return resolve(model, sets=["data.source=synthetic", *sets])


@pytest.fixture
def context(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path)
    settings = mlflow_settings.load(workspace, {})
    return Context(workspace, Recorder(), StopToken(), settings, offline_tracker(settings, workspace))


@pytest.fixture
def house(context: Context, monkeypatch: pytest.MonkeyPatch) -> House:
    made = House(context.workspace, context)

    def began(stage: str, folder: Path) -> None:
        made.ran.append(stage)
        (folder / "work").write_text(stage)
        if stage in made.fails:
            raise RuntimeError(stage)

    def fake_prepare(config: RunConfig, folder: Path, context: Context) -> PreparedData:
        began("prepare", folder)
        return PreparedData(
            folder=folder,
            dataset="synthetic",
            source="synthetic",
            class_names=config.data.class_names,
            counts={split: dict.fromkeys(config.data.class_names, 3) for split in prepare.SPLITS},
            fraction=config.data.fraction,
            sha256={},
            data_hash="d0",
            mean=(120.0,) * 3,
            std=(60.0,) * 3,
        )

    def fake_train(config: RunConfig, prepared: PreparedData, folder: Path, context: Context) -> TrainedModel:
        assert (prepared.folder / "work").exists()
        made.parents.append(context.parent_run)
        began("train", folder)
        if config.seed in made.errors:
            raise made.errors[config.seed]
        made.trainings += 1
        return TrainedModel(
            folder=folder,
            model=config.model.name,
            run_key=f"{folder.name}-{made.trainings}",
            run_name="run",
            parameters=1,
            epochs=config.train.epochs,
            best_epoch=1,
            validation_accuracy=made.accuracies.get(config.seed, 0.5),
            validation_loss=1.0,
            trained_s=1.0,
            images_per_s=1.0,
            peak_memory_mb=1.0,
            numerics={},
            git_commit=None,
        )

    def fake_evaluate(
        config: RunConfig, prepared: PreparedData, trained: TrainedModel, folder: Path, context: Context
    ) -> Evaluation:
        assert (trained.folder / "work").exists()
        began("evaluate", folder)
        figures = {"loss": 1.0, "accuracy_low": 0.3, "accuracy_high": 0.6, "macro_f1": 0.5, "ece": 0.1}
        return Evaluation(folder=folder, images=6, accuracy=made.accuracies.get(config.seed, 0.5), **figures)

    def fake_register(
        config: RunConfig,
        prepared: PreparedData,
        trained: TrainedModel,
        evaluation: Evaluation,
        folder: Path,
        context: Context,
    ) -> Registration:
        began("register", folder)
        (context.workspace.root / "mlflow.db").touch()
        store = delivery_state.StoreRecord(context.mlflow.address, "r", "1")
        delivery_state.write_store(context.workspace, trained.run_key, store)
        return Registration(
            folder=folder,
            name="m",
            version="1",
            aliases=("champion",),
            run_id="r",
            run_key=trained.run_key,
            tracking_uri="sqlite",
        )

    monkeypatch.setattr(prepare, "prepare", fake_prepare)
    monkeypatch.setattr(train, "train", fake_train)
    monkeypatch.setattr(evaluate, "evaluate", fake_evaluate)
    monkeypatch.setattr(register, "register", fake_register)
    return made
