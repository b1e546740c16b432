"""Which stages are up to date, and why the others are not: what `run`, `--dry-run` and `status` all ask.

Reads manifests only, and imports neither torch nor mlflow.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.config.difference import differences, first_few
from pipeline.config.schema import RunConfig
from pipeline.errors import WorkspaceError
from pipeline.stages.catalog import ALL, STAGES, stages_through
from pipeline.stages.stage import Stage
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.workspace.fingerprints import fingerprint
from pipeline.workspace.locks import is_held
from pipeline.workspace.manifests import Manifest, StageFolder, read_manifest
from pipeline.workspace.paths import Workspace

State = Literal["up to date", "stale", "partial", "missing"]


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


def identities(config: RunConfig, mlflow: ResolvedMlflow) -> dict[str, Identity]:
    """The identity of every stage under a config."""
    found: dict[str, Identity] = {}
    for stage in stages_through():
        inputs = {name: found[name].fingerprint for name in stage.inputs}
        found[stage.name] = Identity(stage.name, stage.version, stage.reads(config, mlflow), inputs)
    return found


@dataclass(frozen=True)
class Decision:
    """Whether a stage has to run, and why."""

    stage: str
    fingerprint: str
    state: State
    why: str
    announcement: str = ""
    """What a run says as it starts the stage."""
    discards: bool = False
    """Whether `--fresh` discards what is there."""
    manifest: Manifest | None = None
    """Of a result that is up to date and on disk."""

    @property
    def runs(self) -> bool:
        """Whether there is something to do."""
        return self.state != "up to date"

    def is_running(self, workspace: Workspace) -> bool:
        """Whether a command is making the result now."""
        return self.runs and is_held(StageFolder(workspace, self.stage, self.fingerprint).lock_path)


@dataclass
class Command:
    """What a command was asked to make anew, and what it has done so far, as far as later decisions depend on it."""

    fresh: Collection[str] = ()
    """Stages to run whatever is there."""
    made: set[str] = field(default_factory=set)
    """Fingerprints of what it made: two models that share it have it made once."""
    discarded: dict[str, str] = field(default_factory=dict)
    """Fingerprints of what stood on a stage that ran again, and that stage."""


def plan(
    config: RunConfig,
    mlflow: ResolvedMlflow,
    workspace: Workspace,
    through: str = ALL,
    command: Command | None = None,
) -> list[Decision]:
    """What a command up to and including the stage `through` would do.

    A `command` for several models is handed from one to the next, since what one makes is there for the others.
    """
    command = command or Command()
    found = identities(config, mlflow)
    decisions = []
    for stage in stages_through(through):
        identity = found[stage.name]
        if identity.fingerprint in command.made:  # planned, so that there is nothing on disk yet
            decisions.append(Decision(stage.name, identity.fingerprint, "up to date", "made before in this command"))
            continue
        decision = decide(stage, identity, config, mlflow, workspace, command)
        if decision.runs:
            if stage.is_new_each_time:
                command.discarded |= dict.fromkeys(
                    (folder.fingerprint for folder in made_from(identity, workspace)), stage.name
                )
            command.made.add(identity.fingerprint)
        decisions.append(decision)
    return decisions


def decide(
    stage: Stage,
    identity: Identity,
    config: RunConfig,
    mlflow: ResolvedMlflow,
    workspace: Workspace,
    command: Command,
) -> Decision:
    """Whether a stage has to run, as the workspace is now and after what the command has done so far."""
    folder = StageFolder(workspace, stage.name, identity.fingerprint)

    def decided(state: State, why: str, announcement: str = "", **more: Any) -> Decision:
        return Decision(stage.name, identity.fingerprint, state, why, announcement or why, **more)

    if identity.fingerprint not in command.made:
        ran_again = command.discarded.get(identity.fingerprint)
        if stage.name in command.fresh and (ran_again or folder.whole.is_dir() or folder.partial.is_dir()):
            return decided("stale", "--fresh discards what is there", discards=True)
        if ran_again:
            return decided("stale", f"{ran_again} runs again")
    if (manifest := folder.manifest()) is not None:
        if invalid := stage.why_invalid(manifest, mlflow, workspace):
            return decided("stale", invalid)
        return decided("up to date", f"made {manifest.created}", manifest=manifest)
    if folder.partial.is_dir():
        progress = stage.progress(folder.partial)
        if progress is None:
            return decided("partial", "begun", "begun before, and made again")
        return decided("partial", progress, f"going on: {progress}")
    if (newest := _nearest_other(workspace, identity, config)) is not None:
        return decided("stale", _what_changed(newest, identity))
    return decided("missing", "not made yet")


def made_from(identity: Identity, workspace: Workspace) -> Iterator[StageFolder]:
    """The folders of all that was made from a stage's result, the last stages first."""
    for stage in STAGES[STAGES.index(identity.stage) + 1 :]:
        for manifest in _manifests(workspace, stage):
            if manifest.inputs.get(identity.stage) == identity.fingerprint:
                yield from made_from(Identity(stage, manifest.version, manifest.reads, manifest.inputs), workspace)
                yield StageFolder(workspace, stage, manifest.fingerprint)


def _manifests(workspace: Workspace, stage: str) -> Iterator[Manifest]:
    for path in sorted(workspace.stage(stage).glob("*")):
        try:
            manifest = read_manifest(path)
        except WorkspaceError:  # reported when that folder itself is asked for
            continue
        if manifest is not None:
            yield manifest


def _nearest_other(workspace: Workspace, identity: Identity, config: RunConfig) -> Manifest | None:
    """The newest other result of the same stage and model, on the same inputs if there is one."""
    others = [
        manifest
        for manifest in _manifests(workspace, identity.stage)
        if manifest.fingerprint != identity.fingerprint
        and manifest.reads.get("model", {}).get("name") in (None, config.model.name)
    ]
    return max(others, key=lambda other: (other.inputs == identity.inputs, other.created), default=None)


def _what_changed(old: Manifest, new: Identity) -> str:
    changes = [difference.in_words() for difference in differences(old.reads, new.reads)]
    changes += [f"{name} changed" for name in new.inputs if old.inputs.get(name) != new.inputs[name]]
    if old.version != new.version:
        changes.append(f"this version of seqpipe makes {new.stage} in another way")
    return first_few(changes) or "not made yet"
