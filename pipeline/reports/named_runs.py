"""The runs that a user names: by key, MLflow id, name, alias of a registered model, or as a group of seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.config.suggestions import nearest
from pipeline.data.prepared import PreparedData
from pipeline.errors import ConfigError, WorkspaceError
from pipeline.stages.evaluate import predictions_file
from pipeline.stages.prepare import NAME as PREPARE
from pipeline.stages.results import TrainedModel
from pipeline.stages.train import NAME as TRAIN
from pipeline.tracking import delivery_state
from pipeline.workspace.fingerprints import fingerprint
from pipeline.workspace.manifests import Manifest, read_manifest
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from pipeline.evaluation.predictions import Predictions

GROUP = "+"
SEEDS = ":seeds"
SEED_GROUP = "seeds-"
SHORTEST_PREFIX = 4


@dataclass(frozen=True)
class OnValidation:
    """How well a run did on the validation split, at its best epoch."""

    split: str
    """The fingerprint of the prepared data."""
    accuracy: float
    loss: float | None
    epoch: int
    trained: str
    """How far, in words."""


@dataclass(frozen=True)
class NamedRun:
    """A training of this workspace, a trial of a search, or a registered version of a training elsewhere."""

    key: str
    name: str
    model: str
    parameters: int | None
    predictions: Path | None
    """The file of them; None if it was not evaluated."""
    run_id: str | None = None
    settings: Mapping[str, Any] | None = None
    """What it was trained with, and on which data; None if it is not known here."""
    seed_group: str = ""
    """The same for trainings that differ in their seed alone."""
    prepared: PreparedData | None = None
    """Its data, if they are still here."""
    on_validation: OnValidation | None = None
    """None where it is not known here."""
    is_trial: bool = False
    """Whether it is a trial of a search, which predicts no test images."""
    trained: TrainedModel | None = None
    """The training itself; None if it is elsewhere."""
    created: str = ""
    """When it was done, ISO 8601 in UTC."""

    def load_predictions(self) -> "Predictions":
        """Its predictions of the test images.

        Raises:
            ConfigError: it has none.
            WorkspaceError: they are damaged.
        """
        from pipeline.evaluation.predictions import load_predictions

        if self.predictions is None or not self.predictions.is_file():
            raise ConfigError(
                f"{self.name} ({self.key}) has no predictions of the test images; `seqpipe run evaluate` with its "
                "settings makes them"
            )
        return load_predictions(self.predictions)


@dataclass(frozen=True)
class Side:
    """What one word on the command line stands for: a run, or several as a group."""

    word: str
    runs: tuple[NamedRun, ...]

    @property
    def name(self) -> str:
        """For people."""
        first = self.runs[0].name
        return first if len(self.runs) == 1 else f"{len(self.runs)} runs: {', '.join(run.name for run in self.runs)}"


@dataclass(frozen=True)
class RunFinder:
    """Finds runs in a workspace, and asks others for what may name a registered version, or a trial of a search."""

    workspace: Workspace
    address: str
    """Of the MLflow store, whose ids count."""
    find_registered: Callable[[str], NamedRun | None] = field(default=lambda word: None)
    """None for a word that names no registered version."""
    find_trials: Callable[[str], Sequence[NamedRun]] = field(default=lambda word: ())
    """Every trial that a word names."""

    def find(self, words: Sequence[str]) -> list[Side]:
        """The run or group that each word names.

        Raises:
            ConfigError: a word names none, or more than one.
        """
        known = self.every()
        return [Side(word, tuple(self._runs(word, known))) for word in words]

    def every(self) -> list[NamedRun]:
        """Every training of the workspace that is whole and can be read."""
        return list(self._trainings())

    def _runs(self, word: str, known: Sequence[NamedRun]) -> list[NamedRun]:
        if word.startswith(SEED_GROUP) and len(word) >= len(SEED_GROUP) + SHORTEST_PREFIX:
            found = [run for run in known if run.seed_group.startswith(word.removeprefix(SEED_GROUP))]
            if not found:
                raise ConfigError(f"no training here belongs to the group {word}; `seqpipe runs list` lists the runs")
            return found
        if word.endswith(SEEDS):
            one = self._one(word.removesuffix(SEEDS), known)
            if not one.seed_group:
                raise ConfigError(
                    f"{word}: {one.name} was not trained here by `seqpipe run`, so its seeds are not known"
                )
            return [run for run in known if run.seed_group == one.seed_group]
        if (single := self._matching(word, known)) or GROUP not in word:  # names may hold any character
            return [self._only(word, single, known)]
        runs = [self._one(part.strip(), known) for part in word.split(GROUP)]
        if len({run.key for run in runs}) < len(runs):
            raise ConfigError(f"{word}: a run is named twice in this group")
        return runs

    def _one(self, word: str, known: Sequence[NamedRun]) -> NamedRun:
        return self._only(word, self._matching(word, known), known)

    def _only(self, word: str, found: Sequence[NamedRun], known: Sequence[NamedRun]) -> NamedRun:
        if len(found) == 1:
            return found[0]
        if found:
            keys = ", ".join(run.key for run in found)
            raise ConfigError(f"{word!r} names {len(found)} runs; say which by its key: {keys}")
        if any(word in (record.key, record.name) for record in delivery_state.every(self.workspace)):
            raise ConfigError(
                f"{word!r} has nothing to compare: it is no whole training and no trial of a search that is here; "
                "`seqpipe runs list` says how far it is"
            )
        names = [text for run in known for text in (run.key, run.name)]
        if not names:
            raise ConfigError(f"no run is called {word!r}: nothing was trained in this workspace yet")
        hint = nearest(word, names) or "; `seqpipe runs list` lists them"
        raise ConfigError(f"no training here is called {word!r}{hint}")

    def _matching(self, word: str, known: Sequence[NamedRun]) -> list[NamedRun]:
        exact = [run for run in known if word in (run.key, run.name, run.run_id)]
        if exact or not word:
            return exact
        if (registered := self.find_registered(word)) is not None:
            return [next((run for run in known if run.key == registered.key), registered)]
        if len(word) >= SHORTEST_PREFIX:
            found = [run for run in known if run.key.startswith(word) or (run.run_id or "").startswith(word)]
            if found:
                return found
        return list(self.find_trials(word))

    def _trainings(self) -> Iterator[NamedRun]:
        for folder in sorted(self.workspace.stage(TRAIN).glob("*")):
            try:
                manifest = read_manifest(folder)
                if manifest is not None:
                    yield self._run(folder, manifest)
            except (WorkspaceError, ValidationError):  # reported when that folder itself is asked for
                continue

    def _run(self, folder: Path, manifest: Manifest) -> NamedRun:
        trained = TrainedModel.model_validate({**manifest.result, "folder": folder})
        store = delivery_state.read_store(self.workspace, trained.run_key, self.address)
        split = manifest.inputs.get(PREPARE, "-")
        prepared = prepared_data(self.workspace, split)
        without_seed = {key: value for key, value in manifest.reads.items() if key != "seed"}
        kept = [predictions_file(self.workspace, trained, mirrored=mirrored) for mirrored in (False, True)]
        predictions = next((path for path in kept if path.exists()), kept[0])
        return NamedRun(
            key=trained.run_key,
            name=trained.run_name,
            model=trained.model,
            parameters=trained.parameters,
            predictions=predictions,
            run_id=store.run_id if store else None,
            settings={**(prepared[0] if prepared else {"prepare": manifest.inputs.get(PREPARE)}), **manifest.reads},
            seed_group=fingerprint(TRAIN, manifest.version, without_seed, manifest.inputs),
            prepared=prepared[1] if prepared else None,
            on_validation=OnValidation(
                split=split,
                accuracy=trained.validation_accuracy,
                loss=trained.validation_loss,
                epoch=trained.best_epoch,
                trained=f"{trained.epochs} epochs",
            ),
            trained=trained,
            created=manifest.created,
        )


def prepared_data(workspace: Workspace, name: str) -> tuple[Mapping[str, Any], PreparedData] | None:
    """The settings and the result of prepared data of that fingerprint, if they are still here."""
    folder = workspace.stage(PREPARE) / name
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return None
        return manifest.reads, PreparedData.model_validate({**manifest.result, "folder": folder})
    except (WorkspaceError, ValidationError):
        return None
