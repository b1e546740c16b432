"""Runs the stages: skips what is up to date, resumes what is partial, makes the rest."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pipeline.config.schema import RunConfig
from pipeline.errors import BudgetExhaustedError, MachineUnfitError, SeqpipeError, WorkspaceError
from pipeline.stages import last_runs
from pipeline.stages.catalog import ALL, STAGES, stages_through
from pipeline.stages.context import Context
from pipeline.stages.plan import Command, Decision, Identity, decide, identities, made_from
from pipeline.stages.prepare import NAME as PREPARE
from pipeline.stages.request import Request
from pipeline.stages.results import Evaluation, Result, Results, TrainedModel
from pipeline.stages.seed_group import SeedGroup
from pipeline.stages.stage import Stage
from pipeline.tracking.delivery_state import Status
from pipeline.workspace.manifests import Manifest, StageFolder

OnStage = Callable[[str, str], None]
"""Called with each stage's name and why it runs, or "up to date"."""
Announce = Callable[[str, str, str], None]
"""The same, with the label of the config first."""


@dataclass(frozen=True)
class StageOutcome:
    """What became of a stage in this command."""

    stage: str
    fingerprint: str
    status: Literal["done", "skipped"]
    why: str
    seconds: float


@dataclass
class ModelOutcome:
    """What a command did and has for one model."""

    config: RunConfig
    stages: list[StageOutcome] = field(default_factory=list)
    results: Results = field(default_factory=Results)
    unfinished: str | None = None
    """The stage that was started and is not done: an error or a limit ended it."""
    failure: SeqpipeError | None = None
    """What ended it, where the command went on with the other seeds."""

    @property
    def is_complete(self) -> bool:
        """Whether every stage of the pipeline is up to date now."""
        return [stage.stage for stage in self.stages] == list(STAGES)

    @property
    def did_nothing(self) -> bool:
        """Whether everything was up to date."""
        return self.unfinished is None and all(stage.status == "skipped" for stage in self.stages)


class Runner:
    """Runs stages for one model after another in a workspace; those in `fresh` anew, whatever is there."""

    def __init__(self, context: Context, *, fresh: Collection[str] = ()) -> None:
        self._context = context
        self._command = Command(fresh)
        self.outcomes: list[ModelOutcome] = []
        """What became of each config so far, also when one ends in an error."""
        self._failed_groups: set[str] = set()

    @property
    def has_figures(self) -> bool:
        """Whether a model was evaluated, or one of several seeds trained."""
        kind = TrainedModel if self._context.parent_run else Evaluation
        return any(outcome.results.get(kind) for outcome in self.outcomes)

    def end_dead_runs(self, configs: Sequence[RunConfig], through: str = ALL) -> None:
        """Close the MLflow runs of killed trainings and searches, except those that this command resumes."""
        workspace = self._context.workspace
        resumed = {
            stage.unfinished_run(StageFolder(workspace, stage.name, found[stage.name].fingerprint).partial)
            for found in (identities(config, self._context.mlflow) for config in configs)
            for stage in stages_through(through)
            if stage.name not in self._command.fresh
        }
        self._context.tracker.close_dead(resumed)

    def run_all(self, request: Request, announce: Announce = lambda *_: None) -> None:
        """Bring every config of a command up to date, and MLflow with it; `outcomes` has what came of it.

        A seed that fails by itself leaves the others to go on; the first such error is raised at the end.
        """
        context = self._context
        self.end_dead_runs(request.configs, request.through)
        try:
            last_runs.write(context.workspace, request.configs)
        except WorkspaceError as error:  # what has to be written reports it itself
            context.reporter.warn(f"`seqpipe status` will not know of this run: {error}")
        for config in request.configs:
            on_stage = partial(announce, request.label(config))
            if request.seeds:
                self._run_seed(config, request, on_stage)
            else:
                self.run(config, request.through, on_stage)
        context.tracker.deliver_pending()
        for outcome in self.outcomes:
            if outcome.failure is not None:
                raise outcome.failure

    def run(self, config: RunConfig, through: str = ALL, on_stage: OnStage = lambda *_: None) -> ModelOutcome:
        """Bring every stage up to and including `through` up to date."""
        outcome = ModelOutcome(config)
        self.outcomes.append(outcome)
        found = identities(config, self._context.mlflow)
        for stage in stages_through(through):
            outcome.unfinished = stage.name
            self._bring_up_to_date(stage, found[stage.name], outcome, on_stage)
            outcome.unfinished = None
        return outcome

    def _run_seed(self, config: RunConfig, request: Request, on_stage: OnStage) -> None:
        """Do the same for one of several seeds, under the MLflow run of its group."""
        group = SeedGroup(config, self._context)
        self._context = replace(self._context, parent_run=group.key)

        has_begun = False

        def started(stage: str, why: str) -> None:
            nonlocal has_begun
            if why != "up to date" and stage != PREPARE:  # a command that gets no further leaves no run
                has_begun = True
                self._write(group, "RUNNING")
            on_stage(stage, why)

        status: Status = "KILLED"
        try:
            outcome = self.run(config, request.through, started)
            status = "FAILED" if group.key in self._failed_groups else "FINISHED"
        except SeqpipeError as error:
            if not isinstance(error, (BudgetExhaustedError, MachineUnfitError)):
                status = "FAILED"
            if not error.is_of_one_seed:
                raise
            outcome = self.outcomes[-1]
            outcome.failure = error
            self._failed_groups.add(group.key)
            self._context.reporter.warn(f"{request.label(config)}: {error}\nThe other seeds go on.")
        finally:
            if has_begun or status == "FINISHED":
                self._write(group, status)
        if not outcome.did_nothing:  # MLflow's client is not imported for nothing
            self._context.tracker.deliver_recorded(group.key)

    def _write(self, group: SeedGroup, status: Status) -> None:
        try:
            group.write(status)
        except WorkspaceError as error:  # what has to be written reports it itself
            self._context.reporter.warn(f"the run over the seeds is not as it should be: {error}")

    def _bring_up_to_date(self, stage: Stage, identity: Identity, outcome: ModelOutcome, on_stage: OnStage) -> None:
        context = self._context
        context.stop_token.raise_if_asked()
        folder = StageFolder(context.workspace, stage.name, identity.fingerprint)
        decision = self._decide(stage, identity, outcome)
        if decision.runs:  # only then is the lock taken: what is up to date is only read
            with folder.locked(context.reporter.note, context.stop_token.raise_if_asked):
                decision = self._decide(stage, identity, outcome)  # another command may have made it meanwhile
                if decision.runs:
                    on_stage(stage.name, decision.announcement)
                    self._make(stage, identity, decision, folder, outcome)
        if decision.manifest is not None:
            on_stage(stage.name, "up to date")
            outcome.results.add(load_result(stage.result, folder.whole, decision.manifest))
            outcome.stages.append(StageOutcome(stage.name, identity.fingerprint, "skipped", "up to date", 0.0))
        else:
            stage.after(outcome.results, context)

    def _decide(self, stage: Stage, identity: Identity, outcome: ModelOutcome) -> Decision:
        context = self._context
        return decide(stage, identity, outcome.config, context.mlflow, context.workspace, self._command)

    def _make(
        self, stage: Stage, identity: Identity, decision: Decision, folder: StageFolder, outcome: ModelOutcome
    ) -> None:
        started = time.monotonic()
        if stage.is_new_each_time:
            self._discard_made_from(identity)
            if decision.discards:  # at once, so that the same command without --fresh resumes the new one
                folder.discard()
        working = folder.begin(fresh=decision.discards)
        result = stage.run(outcome.config, outcome.results, working, self._context)
        seconds = time.monotonic() - started
        manifest = Manifest(
            stage=identity.stage,
            version=identity.version,
            fingerprint=identity.fingerprint,
            reads=identity.reads,
            inputs=identity.inputs,
            result=result.model_dump(mode="json"),
            seconds=seconds,
        )
        whole = folder.finish(manifest, scratch=stage.scratch)
        self._command.made.add(identity.fingerprint)
        outcome.results.add(result.model_copy(update={"folder": whole}))
        outcome.stages.append(StageOutcome(stage.name, identity.fingerprint, "done", decision.announcement, seconds))

    def _discard_made_from(self, identity: Identity) -> None:
        for folder in made_from(identity, self._context.workspace):
            self._command.discarded[folder.fingerprint] = identity.stage
            folder.discard()


def load_result(kind: type[Result], folder: Path, manifest: Manifest) -> Result:
    """The result that a manifest keeps.

    Raises:
        WorkspaceError: it is not what this version writes.
    """
    try:
        return kind.model_validate({**manifest.result, "folder": folder})
    except ValidationError as error:
        raise WorkspaceError(
            f"{folder}: its manifest does not hold what this version of seqpipe writes "
            f"({error.errors()[0]['msg']}); remove that folder, and the next run makes it again"
        ) from None
