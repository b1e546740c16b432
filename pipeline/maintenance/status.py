"""What a workspace has of each model: its stages, its searches, and what MLflow does not have yet."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config.models import MODEL_NAMES
from pipeline.config.resolution import resolve
from pipeline.config.schema import RunConfig
from pipeline.search.store import StoredSearch, stored_searches
from pipeline.stages import last_runs
from pipeline.stages.plan import Decision, plan
from pipeline.tracking import delivery_state
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.paths import Workspace


@dataclass(frozen=True)
class ModelStatus:
    """The stages of one model under one config; a model that was run with several seeds has one of each."""

    config: RunConfig
    settings: Literal["last run", "given", "defaults"]
    """Where the config comes from."""
    stages: Sequence[Decision]
    running: Collection[str]
    """The stages that a command is making now."""
    is_of_several: bool = False
    """Whether it is one of several seeds."""

    @property
    def model(self) -> str:
        return self.config.model.name

    @property
    def label(self) -> str:
        """The model, and its seed if it is one of several."""
        return f"{self.model}, seed {self.config.seed}" if self.is_of_several else self.model

    @property
    def changed_settings(self) -> list[str]:
        """For a last run: what it set that is not the default, as words for `--set`."""
        return last_runs.changes(self.config) if self.settings == "last run" else []


@dataclass(frozen=True)
class Status:
    """What `seqpipe status` shows."""

    workspace: Workspace
    models: Sequence[ModelStatus]
    searches: Sequence[StoredSearch]
    undelivered: int
    """Runs that MLflow does not have all of."""


@dataclass(frozen=True)
class Settings:
    """The settings that the status is asked for; with none of them, those of each model's last run."""

    models: Sequence[str] = ()
    file: Path | None = None
    sets: Sequence[str] = ()
    seed: int | None = None
    recipe: str | None = None

    @property
    def are_given(self) -> bool:
        return bool(self.models or self.file is not None or self.sets or self.seed is not None or self.recipe)

    def names(self) -> list[str]:
        """The models that are meant. A file stands for the model that it names."""
        if not self.models and self.file is not None:
            return [resolve(None, self.file).model.name]
        return list(self.models or MODEL_NAMES)

    def config(self, name: str) -> RunConfig:
        return resolve(name, self.file, self.sets, {"seed": self.seed, "recipe": self.recipe})


def status_of(workspace: Workspace, mlflow: ResolvedMlflow, asked: Settings) -> Status:
    """Look at a workspace; nothing in it is changed."""
    names = asked.names()
    last = {} if asked.are_given else last_runs.read(workspace)
    models = []
    for name in names:
        configs = last.get(name) or [asked.config(name)]
        for config in configs:
            stages = plan(config, mlflow, workspace)
            running = {one.stage for one in stages if one.is_running(workspace)}
            models.append(
                ModelStatus(
                    config,
                    "last run" if name in last else "given" if asked.are_given else "defaults",
                    stages,
                    running,
                    is_of_several=len(configs) > 1,
                )
            )
    return Status(
        workspace,
        models,
        [one for one in stored_searches(workspace) if one.model in names],
        len(delivery_state.pending(workspace, mlflow.address, is_gone=mlflow.is_gone)),
    )
