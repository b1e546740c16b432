"""What a command asks of the stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.schema import RunConfig
from pipeline.stages.catalog import ALL, STAGES, checked_name, stage_named
from pipeline.stages.plan import Command, Decision, plan
from pipeline.stages.train import NAME as TRAIN
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from pipeline.training.forecaster import TrainingForecast


@dataclass(frozen=True)
class Request:
    """Which models to bring up to date, up to which stage, and whether to discard what is there."""

    configs: Sequence[RunConfig]
    """One for each model and seed; the limits on time and memory are those of the first."""
    stage: str = ALL
    is_fresh: bool = False
    seeds: Sequence[int] = ()
    """The seeds that `configs` has one of each model for; empty for a command without `--seeds`."""

    @property
    def through(self) -> str:
        """The last stage to run.

        Raises:
            ConfigError: there is no such stage.
        """
        return checked_name(self.stage)

    @property
    def fresh(self) -> tuple[str, ...]:
        """The stages to run whatever is there: with `all` every one, else the one that is named."""
        if not self.is_fresh:
            return ()
        return STAGES if self.stage == ALL else (self.through,)

    def label(self, config: RunConfig) -> str:
        """What messages call the work on a config: its model, and its seed if there are several."""
        return f"{config.model.name}, seed {config.seed}" if self.seeds else config.model.name

    @property
    def again(self) -> str:
        """What goes on from where this command left."""
        return "the same command without --fresh" if self.is_fresh else "the same command"

    def plans(self, mlflow: ResolvedMlflow, workspace: Workspace) -> list[list[Decision]]:
        """What the command would do, for each config."""
        command = Command(self.fresh)
        return [plan(config, mlflow, workspace, self.through, command) for config in self.configs]

    def forecasts(self, plans: Sequence[Sequence[Decision]]) -> "dict[str, TrainingForecast]":
        """What the trainings among the plans need of this machine, by label.

        Raises:
            MachineUnfitError: the device or the kernel that a config asks for is not here, or there is no answer.
        """
        training = [
            config
            for config, plan in zip(self.configs, plans, strict=True)
            if any(one.runs and one.stage == TRAIN for one in plan)
        ]
        if not training:
            return {}
        from pipeline.training.forecaster import TrainingForecaster  # with numpy, which a command may not need

        with TrainingForecaster() as forecaster:
            of_model: dict[str, TrainingForecast] = {}  # the same for every seed
            for config in training:
                if config.model.name not in of_model:
                    of_model[config.model.name] = forecaster.forecast(config)
        return {self.label(config): of_model[config.model.name] for config in training}

    def stages_to_run(self, mlflow: ResolvedMlflow, workspace: Workspace) -> set[str]:
        """The stages that are not up to date for one of the configs."""
        return {one.stage for decisions in self.plans(mlflow, workspace) for one in decisions if one.runs}


def loads_model(stages: set[str]) -> bool:
    """Whether one of the stages needs a model in memory."""
    return any(stage_named(name).loads_model for name in stages)
