"""What a report is about: trainings and searches, as a user names them, those of the last runs, or all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.reports.named_runs import SHORTEST_PREFIX, NamedRun, RunFinder
from pipeline.search.store import StoredSearch, stored_searches
from pipeline.stages import last_runs
from pipeline.stages.plan import identities
from pipeline.stages.train import NAME as TRAIN
from pipeline.tracking import delivery_state
from pipeline.tracking.settings import ResolvedMlflow

NOTHING = "nothing was trained or searched in this workspace yet; `seqpipe run all` trains a model"


@dataclass(frozen=True)
class Choice:
    """The trainings, in groups that differ in their seed alone, and the searches of a report."""

    groups: tuple[tuple[NamedRun, ...], ...]
    searches: tuple[StoredSearch, ...]


@dataclass(frozen=True)
class Chooser:
    """Finds what a report is about in the workspace of `finder`; `mlflow` are its settings."""

    finder: RunFinder
    mlflow: ResolvedMlflow

    def named(self, words: Sequence[str]) -> Choice:
        """What the words name, each thing once.

        Raises:
            ConfigError: a word names nothing, or more than one thing.
        """
        searches: list[StoredSearch] = []
        runs: list[NamedRun] = []
        known = stored_searches(self.finder.workspace)
        for word in words:
            found = self._searches(word, known)
            if len(found) > 1:
                names = ", ".join(one.folder.name for one in found)
                raise ConfigError(f"{word!r} names {len(found)} searches; say which by its id: {names}")
            if found:
                searches += found
            else:
                [side] = self.finder.find([word])
                if any(run.is_trial for run in side.runs):
                    raise ConfigError(f"{word}: a trial is reported with its search; name that")
                runs += side.runs
        unique = {one.folder: one for one in searches}
        return Choice(_grouped(runs), tuple(unique.values()))

    def last(self) -> Choice:
        """The trainings of each model's last run, and the newest search of each of these models.

        Where the last runs are not known, the newest training and its seeds.

        Raises:
            ConfigError: there is nothing yet.
        """
        configs = last_runs.read(self.finder.workspace)
        wanted = {
            identities(config, self.mlflow)[TRAIN].fingerprint for of_model in configs.values() for config in of_model
        }
        every = self.finder.every()
        runs = [run for run in every if run.trained is not None and run.trained.folder.name in wanted]
        if not runs and every:
            newest = max(every, key=lambda run: run.created)
            runs = [run for run in every if run.seed_group == newest.seed_group]
        searches: dict[str, StoredSearch] = {}
        for search in stored_searches(self.finder.workspace):  # the newest first
            if not runs or search.model in {run.model for run in runs}:
                searches.setdefault(search.model, search)
        return _something(Choice(_grouped(runs), tuple(searches.values())))

    def all(self) -> Choice:
        """Every training and every search of the workspace.

        Raises:
            ConfigError: there is none.
        """
        return _something(Choice(_grouped(self.finder.every()), tuple(stored_searches(self.finder.workspace))))

    def run_id(self, search: StoredSearch) -> str | None:
        """The id of a search's run in MLflow, once it is there."""
        store = delivery_state.read_store(self.finder.workspace, search.key, self.mlflow.address)
        return store.run_id if store else None

    def _searches(self, word: str, known: Sequence[StoredSearch]) -> list[StoredSearch]:
        """Those that a word names: by id, key, name or id in MLflow; else by the beginning of an id."""
        word = word.removeprefix("search ") if word.startswith("search ") and _is_id(word[7:]) else word
        exact = [one for one in known if word in (one.folder.name, one.key, self._name(one), self.run_id(one))]
        if exact or len(word) < SHORTEST_PREFIX:
            return exact
        return _beginning(word, known, lambda one: (one.folder.name, one.key, self.run_id(one) or ""))

    def _name(self, search: StoredSearch) -> str:
        """What its run is called in MLflow, which `seqpipe runs list` shows."""
        record = delivery_state.read_run(self.finder.workspace, search.key)
        return record.name if record else ""


def _is_id(text: str) -> bool:
    return bool(text) and all(letter in "0123456789abcdef" for letter in text)


def _beginning(
    word: str, known: Sequence[StoredSearch], names: Callable[[StoredSearch], tuple[str, ...]]
) -> list[StoredSearch]:
    return [one for one in known if any(name.startswith(word) for name in names(one))]


def _grouped(runs: Sequence[NamedRun]) -> tuple[tuple[NamedRun, ...], ...]:
    """By what differs in the seed alone; each run once, in the order of its seed."""
    groups: dict[str, dict[str, NamedRun]] = {}
    for run in runs:
        groups.setdefault(run.seed_group or run.key, {})[run.key] = run
    return tuple(tuple(sorted(group.values(), key=_seed)) for group in groups.values())


def _seed(run: NamedRun) -> tuple[int, str]:
    seed = (run.settings or {}).get("seed")
    return (seed if isinstance(seed, int) else 0, run.key)


def _something(choice: Choice) -> Choice:
    if not choice.groups and not choice.searches:
        raise ConfigError(NOTHING)
    return choice
