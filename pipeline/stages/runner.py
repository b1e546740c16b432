"""The four stages in their order: skip what is up to date, say why not, resume what is partial.

prepare -> train -> evaluate, and train -> register. Planning reads manifests only, and imports neither torch nor
mlflow.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from pipeline.config.schema import RunConfig
from pipeline.data.prepared import PreparedData
from pipeline.errors import ConfigError, WorkspaceError
from pipeline.stages import evaluate, prepare, register, train
from pipeline.stages.context import Context
from pipeline.stages.results import Evaluation, Registration, TrainedModel
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.fingerprints import fingerprint
from pipeline.workspace.manifests import Manifest, StageFolder, StageResult, read_manifest
from pipeline.workspace.paths import Workspace

STAGES = (prepare.NAME, train.NAME, evaluate.NAME, register.NAME)
State = Literal["up to date", "stale", "partial", "missing"]
Result = TypeVar("Result", bound=StageResult)


@dataclass(frozen=True)
class Identity:
    """What a stage's result depends on, and its hash."""

    stage: str
    version: int
    reads: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """The hash that names the stage's folder."""
        return fingerprint(self.stage, self.version, self.reads, self.inputs)


@dataclass(frozen=True)
class Step:
    """One stage of a plan: whether it would run, and why."""

    stage: str
    fingerprint: str
    state: State
    why: str

    @property
    def runs(self) -> bool:
        """Whether there is something to do."""
        return self.state != "up to date"


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
    prepared: PreparedData | None = None
    trained: TrainedModel | None = None
    evaluation: Evaluation | None = None
    registration: Registration | None = None
    unfinished: str | None = None
    """The stage that was begun and is not done: an error or a limit ended it."""

    @property
    def did_nothing(self) -> bool:
        """Whether everything was up to date."""
        return self.unfinished is None and all(stage.status == "skipped" for stage in self.stages)


def identities(config: RunConfig, mlflow: ResolvedMlflow) -> dict[str, Identity]:
    """The identity of every stage under a config."""
    found: dict[str, Identity] = {}

    def add(stage: str, version: int, reads: Mapping[str, Any], *inputs: str) -> None:
        found[stage] = Identity(stage, version, reads, {name: found[name].fingerprint for name in inputs})

    add(prepare.NAME, prepare.VERSION, prepare.reads(config))
    add(train.NAME, train.VERSION, train.reads(config), prepare.NAME)
    add(evaluate.NAME, evaluate.VERSION, evaluate.reads(config), train.NAME)
    add(register.NAME, register.VERSION, register.reads(config, mlflow), train.NAME)
    return found


def plan(
    config: RunConfig,
    mlflow: ResolvedMlflow,
    workspace: Workspace,
    through: str = STAGES[-1],
    *,
    fresh: Collection[str] = (),
) -> list[Step]:
    """What a command up to the stage `through` would do, which makes the stages in `fresh` anew."""
    steps: list[Step] = []
    for stage, identity in list(identities(config, mlflow).items())[: STAGES.index(through) + 1]:
        folder = StageFolder(workspace, stage, identity.fingerprint)
        again = any(step.runs for step in steps if step.stage == train.NAME)
        is_there = folder.whole.is_dir() or folder.partial.is_dir()
        if stage in fresh and is_there:
            state: State = "stale"
            why = "--fresh discards what is there"
        elif (manifest := folder.manifest()) is not None:
            missing = register.missing_store(manifest, mlflow, workspace) if stage == register.NAME else None
            state, why = ("stale", missing) if missing else ("up to date", f"made {manifest.created}")
            if again:  # what stands on prepare stays: it always makes the same
                state, why = "stale", f"{train.NAME} runs again"
        elif folder.partial.is_dir():
            how_far = train.progress_text(folder.partial) if stage == train.NAME else None
            state, why = "partial", how_far or "begun"
        else:
            state, why = _why_not_there(workspace, identity, config)
        steps.append(Step(stage, identity.fingerprint, state, why))
    return steps


class Runner:
    """Runs stages for one model after another in a workspace; those in `fresh` anew, whatever is there."""

    def __init__(self, context: Context, *, fresh: Collection[str] = ()) -> None:
        self._context = context
        self._fresh = fresh
        self._made: set[Path] = set()
        self.outcomes: list[ModelOutcome] = []
        """What became of each model so far, also when one ends in an error."""

    def end_dead_runs(self, configs: Sequence[RunConfig], through: str = STAGES[-1]) -> None:
        """Tell MLflow of trainings and searches that were killed, except those that this command goes on with."""
        context = self._context
        resumed: set[str | None] = set()
        if STAGES.index(through) >= STAGES.index(train.NAME) and train.NAME not in self._fresh:
            for config in configs:
                identity = identities(config, context.mlflow)[train.NAME]
                resumed.add(train.unfinished_run(StageFolder(context.workspace, train.NAME, identity.fingerprint)))
        context.tracker.close_dead(resumed)

    def run(
        self, config: RunConfig, through: str = STAGES[-1], on_stage: Callable[[str, str], None] = lambda *_: None
    ) -> ModelOutcome:
        """Bring every stage up to `through` up to date; `on_stage` is told each stage and why it runs or not."""
        context = self._context
        outcome = ModelOutcome(config)
        self.outcomes.append(outcome)
        found = identities(config, context.mlflow)
        through_index = STAGES.index(through)

        def stage(identity: Identity, kind: type[Result], make: Callable[[Path], Result]) -> Result:
            return self._stage(outcome, identity, kind, make, on_stage)

        prepared = stage(found["prepare"], PreparedData, lambda folder: prepare.prepare(config, folder, context))
        outcome.prepared = prepared
        if through_index >= 1:
            trained = stage(
                found["train"], TrainedModel, lambda folder: train.train(config, prepared, folder, context)
            )
            outcome.trained = trained
        if through_index >= 2:
            evaluation = stage(
                found["evaluate"],
                Evaluation,
                lambda folder: evaluate.evaluate(config, prepared, trained, folder, context),
            )
            outcome.evaluation = evaluation
        if through_index >= 3:
            outcome.registration = stage(
                found["register"],
                Registration,
                lambda folder: register.register(config, prepared, trained, evaluation, folder, context),
            )
        return outcome

    def _stage(
        self,
        outcome: ModelOutcome,
        identity: Identity,
        kind: type[Result],
        make: Callable[[Path], Result],
        on_stage: Callable[[str, str], None],
    ) -> Result:
        outcome.unfinished = identity.stage
        result = self._brought_up_to_date(outcome, identity, kind, make, on_stage)
        outcome.unfinished = None
        return result

    def _brought_up_to_date(
        self,
        outcome: ModelOutcome,
        identity: Identity,
        kind: type[Result],
        make: Callable[[Path], Result],
        on_stage: Callable[[str, str], None],
    ) -> Result:
        context = self._context
        context.stop_token.raise_if_asked()
        folder = StageFolder(context.workspace, identity.stage, identity.fingerprint)
        fresh = identity.stage in self._fresh and folder.whole not in self._made
        if not fresh and (manifest := self._current(folder)) is not None:  # no lock for what is only read
            return self._skip(outcome, identity, kind, folder, manifest, on_stage)
        with folder.locked(context.reporter.note, context.stop_token.raise_if_asked):
            if not fresh and (manifest := self._current(folder)) is not None:
                return self._skip(outcome, identity, kind, folder, manifest, on_stage)
            why = "--fresh" if fresh else self._why(identity, outcome.config, folder)
            on_stage(identity.stage, why)
            started = time.monotonic()
            if identity.stage == train.NAME:  # what stands on another training goes; prepare always makes the same
                self._discard_dependents(identity)
                if fresh:  # at once, so that the same command without --fresh goes on with the new one
                    folder.discard()
            working = folder.begin(fresh=fresh)
            result = make(working)
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
            whole = folder.finish(manifest, scratch=train.SCRATCH)
            self._made.add(whole)
        outcome.stages.append(StageOutcome(identity.stage, identity.fingerprint, "done", why, seconds))
        result = result.model_copy(update={"folder": whole})
        if identity.stage == evaluate.NAME and outcome.trained is not None:
            context.tracker.deliver(train.identity_of(outcome.trained), f"{evaluate.NAME}/{whole.name}", whole)
        return result

    def _why(self, identity: Identity, config: RunConfig, folder: StageFolder) -> str:
        if folder.partial.is_dir():
            how_far = train.progress_text(folder.partial) if identity.stage == train.NAME else None
            return f"going on: {how_far}" if how_far else "begun before, and made again"
        if (manifest := folder.manifest()) is not None:
            missing = register.missing_store(manifest, self._context.mlflow, self._context.workspace)
            return missing or "made again"
        return _why_not_there(self._context.workspace, identity, config)[1]

    def _current(self, folder: StageFolder) -> Manifest | None:
        manifest = folder.manifest()
        if manifest is None or folder.stage != register.NAME:
            return manifest
        return None if register.missing_store(manifest, self._context.mlflow, self._context.workspace) else manifest

    def _skip(
        self,
        outcome: ModelOutcome,
        identity: Identity,
        kind: type[Result],
        folder: StageFolder,
        manifest: Manifest,
        on_stage: Callable[[str, str], None],
    ) -> Result:
        result = load_result(kind, folder.whole, manifest)
        on_stage(identity.stage, "up to date")
        outcome.stages.append(StageOutcome(identity.stage, identity.fingerprint, "skipped", "up to date", 0.0))
        return result

    def _discard_dependents(self, identity: Identity) -> None:
        """Remove what stands on a stage that is made anew under the same fingerprint."""
        workspace = self._context.workspace
        for stage in STAGES[STAGES.index(identity.stage) + 1 :]:
            for path in sorted(workspace.stage(stage).glob("*")):
                try:
                    manifest = read_manifest(path)
                except WorkspaceError:  # said when that folder itself is asked for
                    continue
                if manifest is not None and manifest.inputs.get(identity.stage) == identity.fingerprint:
                    dependent = Identity(stage, manifest.version, manifest.reads, manifest.inputs)
                    self._discard_dependents(dependent)
                    StageFolder(workspace, stage, manifest.fingerprint).discard()


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


def check_stage(name: str) -> str:
    """A stage's name, `all` meaning the last.

    Raises:
        ConfigError: there is no such stage.
    """
    if name == "all":
        return STAGES[-1]
    if name not in STAGES:
        raise ConfigError(f"there is no stage {name!r}; choose from {', '.join(STAGES)}, or all")
    return name


def _why_not_there(workspace: Workspace, identity: Identity, config: RunConfig) -> tuple[State, str]:
    """How the newest result of the same stage and model, on the same inputs if any is, differs from what is asked."""

    def closeness(manifest: Manifest) -> tuple[bool, str]:
        return manifest.inputs == identity.inputs, manifest.created

    newest: Manifest | None = None
    for path in workspace.stage(identity.stage).glob("*"):
        try:
            manifest = read_manifest(path)
        except WorkspaceError:  # said when that folder itself is asked for
            continue
        if manifest is None or manifest.reads.get("model", {}).get("name") not in (None, config.model.name):
            continue
        if manifest.fingerprint == identity.fingerprint:
            continue
        if newest is None or closeness(manifest) > closeness(newest):
            newest = manifest
    if newest is None:
        return "missing", "not made yet"
    changes = list(_changes(newest.reads, identity.reads))
    changes += [f"{name} changed" for name in identity.inputs if newest.inputs.get(name) != identity.inputs[name]]
    if newest.version != identity.version:
        changes.append(f"this version of seqpipe makes {identity.stage} in another way")
    shown = ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
    return "stale", shown or "not made yet"


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _changes(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {_shown(before)} -> {_shown(after)}")
    return found


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
