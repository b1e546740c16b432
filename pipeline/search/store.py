"""The search store: the folder of each search in a workspace, its identity and its status.

    .seqpipe/searches/<fingerprint>/
        search.json           the identity of the search, and the key of its MLflow run
        ledger.jsonl          every proposal and outcome (tuning.ledger)
        checkpoints/          of unfinished trials, and of the best one
        journal.jsonl         the journal of the search's MLflow run
        trials/<number>/      the journal of a trial's MLflow run, and its config
        best.yaml, trials.csv, trials.json, plots/

The fingerprint is the hash of the model, the data, the base config as far as training reads it, the space, and the
versions of the code. So other settings are another search, and the earlier one stays. Light: reads files only, and
imports `tuning` only where there is a search.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.difference import differences
from pipeline.config.schema import RunConfig
from pipeline.stages import prepare, train
from pipeline.workspace.durable_files import write_json, writing
from pipeline.workspace.fingerprints import canonical_json, fingerprint
from pipeline.workspace.locks import is_held
from pipeline.workspace.manifests import remove_folder
from pipeline.workspace.paths import Workspace

if TYPE_CHECKING:
    from tuning.space import Space

NAME = "search"
VERSION = 1
"""Raised when trials of an older version can no longer be compared with new ones."""
DESCRIPTION = "search.json"


@dataclass(frozen=True)
class SearchStatus:
    """The status of a search that has started: how many of its trials are done, and the best value."""

    target: int
    proposed: int
    finished: int
    best: float | None
    is_exhausted: bool = False
    """Whether there was nothing left to propose."""

    @property
    def is_done(self) -> bool:
        """Whether it has all of its trials, or all that the space allows."""
        return self.finished >= (self.proposed if self.is_exhausted else self.target)

    def in_words(self) -> str:
        """`12 of 30 trials, best 84.21 %`."""
        best = f", best {100 * self.best:.2f} %" if self.best is not None else ""
        return f"{self.finished} of {self.target} trials{best}"


def status_in(folder: Path) -> SearchStatus | None:
    """The status of the search in a folder, which another process may be running; None if it has not started."""
    from tuning import ledger

    contents = ledger.read(folder)
    if contents is None or not contents.target:
        return None
    scores = [row.score for row in contents.rows if row.score is not None]
    return SearchStatus(
        target=contents.target,
        proposed=len(contents.rows),
        finished=contents.finished,
        best=max(scores, default=None),
        is_exhausted=contents.is_exhausted,
    )


@dataclass(frozen=True)
class SearchFolder:
    """The folder of one search, found by the identity of the search."""

    workspace: Workspace
    model: str
    identity: Mapping[str, Any]
    """What makes it another search than others, in JSON."""

    @classmethod
    def of(cls, workspace: Workspace, config: RunConfig, space: "Space") -> "SearchFolder":
        """The folder of the search of this config and space."""
        identity = {
            "model": config.model.name,
            "data": prepare.reads(config)["data"],
            "base": train.reads(config),
            "space": space.to_json(),
            "versions": _versions(),
        }
        return cls(workspace, config.model.name, json.loads(canonical_json(identity)))

    @property
    def fingerprint(self) -> str:
        """The hash of the identity, which names the folder."""
        return fingerprint(NAME, VERSION, self.identity, {})

    @property
    def path(self) -> Path:
        """The folder itself."""
        return _searches(self.workspace) / self.fingerprint

    @property
    def lock(self) -> Path:
        """Held by the command that runs the search."""
        return self.workspace.lock(self.lock_name)

    @property
    def lock_name(self) -> str:
        """The name of the lock, which the delivery state of the search's runs refers to."""
        return _lock_name(self.fingerprint)

    def status(self) -> SearchStatus | None:
        """The status of the search, or None if it has not started."""
        return status_in(self.path)

    def create(self) -> str:
        """Create the folder if it is not there; returns the key of the search's MLflow run."""
        try:
            return str(json.loads((self.path / DESCRIPTION).read_bytes())["key"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            key = f"{NAME}-{self.fingerprint}-{uuid.uuid4().hex[:8]}"
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            created = time.strftime("%Y-%m-%d %H:%M:%S")
            write_json(self.path / DESCRIPTION, {"key": key, "created": created, "identity": self.identity})
            return key

    def discard(self) -> None:
        """Remove the folder."""
        if self.path.exists():
            with writing(self.path):
                (self.path / DESCRIPTION).unlink(missing_ok=True)
                remove_folder(self.path)

    def discard_if_unused(self) -> None:
        """Remove the folder of a search that proposed nothing."""
        status = self.status()
        if status is not None and not status.proposed:
            self.discard()

    def set_aside(self) -> None:
        """Move the folder away to make room for a new search; `drop_or_restore` decides which of the two stays."""
        with writing(self._aside):
            self._aside.parent.mkdir(parents=True, exist_ok=True)
            self.path.rename(self._aside)

    def drop_or_restore(self) -> bool:
        """Drop what was set aside if the new search has a trial, else put it back; whether it was dropped.

        So a new search that is refused before its first trial loses nothing.
        """
        if not self._aside.is_dir():
            return False
        status = self.status()
        with writing(self._aside):
            if status is not None and status.proposed:
                remove_folder(self._aside)
                return True
            self.discard()
            self._aside.rename(self.path)
        return False

    @property
    def _aside(self) -> Path:
        return self.workspace.hidden / "set-aside" / self.fingerprint

    def closest_other(self) -> tuple[Path, list[str]] | None:
        """The started search of the same model that differs in the fewest settings, and these settings."""
        found = []  # the newest among equals
        for folder, content in _descriptions(self.workspace):
            if folder != self.path and content["identity"].get("model") == self.model and status_in(folder):
                differing = _differing_settings(content["identity"], self.identity)
                found.append((-len(differing), content.get("created", ""), folder, differing))
        if not found:
            return None
        _, _, folder, differing = max(found)
        return folder, differing


@dataclass(frozen=True)
class StoredSearch:
    """A started search of a workspace, under whatever settings."""

    folder: Path
    key: str
    """Of its MLflow run."""
    model: str
    created: str
    identity: Mapping[str, Any]
    """What makes it another search than others, in JSON."""
    status: SearchStatus
    lock: Path
    is_of_this_version: bool
    """Whether this version of seqpipe could continue it."""

    @property
    def state(self) -> str:
        """`running`, `finished` or `unfinished`."""
        return "running" if is_held(self.lock) else "finished" if self.status.is_done else "unfinished"

    def trial_key(self, number: int) -> str:
        """The key of a trial's MLflow run."""
        return trial_key(self.key, number)

    def trial_folder(self, number: int) -> Path:
        """The folder with the config and the journal of a trial."""
        return trial_folder(self.folder, number)

    @property
    def journals(self) -> str:
        """The prefix of its journals' names."""
        return f"{NAME}/{self.folder.name}"

    @property
    def data(self) -> Mapping[str, Any]:
        """The settings that its prepared data depend on."""
        found: Mapping[str, Any] = self.identity.get("data", {})
        return found

    @property
    def prepared(self) -> str:
        """The fingerprint of the prepared data that its trials read."""
        return fingerprint(prepare.NAME, prepare.VERSION, {"data": self.data}, {})


def trial_key(search_key: str, number: int) -> str:
    """The key of the MLflow run of a trial, below that of its search."""
    return f"{search_key}-{number:05d}"


def trial_folder(search_folder: Path, number: int) -> Path:
    """The folder of a trial in that of its search."""
    return search_folder / "trials" / f"{number:03d}"


def stored_searches(workspace: Workspace) -> list[StoredSearch]:
    """Every started search of a workspace, the newest first."""
    found = []
    for folder, content in _descriptions(workspace):
        identity, status = content["identity"], status_in(folder)
        if status is not None:
            found.append(
                StoredSearch(
                    folder=folder,
                    key=str(content.get("key", "")),
                    model=str(identity.get("model")),
                    created=str(content.get("created", "")),
                    identity=identity,
                    status=status,
                    lock=workspace.lock(_lock_name(folder.name)),
                    is_of_this_version=identity.get("versions") == _versions(),
                )
            )
    return sorted(found, key=lambda one: one.created, reverse=True)


def _searches(workspace: Workspace) -> Path:
    return workspace.hidden / "searches"


def _descriptions(workspace: Workspace) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The folder of every search, and the contents of its search.json."""
    for path in sorted(_searches(workspace).glob(f"*/{DESCRIPTION}")):
        try:
            content = json.loads(path.read_bytes())
            if isinstance(content["identity"], dict):
                yield path.parent, content
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: reported by the command that continues it


def _versions() -> dict[str, int]:
    return {NAME: VERSION, prepare.NAME: prepare.VERSION, train.NAME: train.VERSION}


def _lock_name(search: str) -> str:
    return f"{NAME}-{search}"


def _differing_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted names of what differs between two identities; a parameter of the space is one setting."""

    def flat(identity: Mapping[str, Any]) -> Mapping[str, Any]:
        space = identity.get("space")
        parameters = {key: str(parameter) for key, parameter in space.items()} if isinstance(space, dict) else {}
        return {**identity, "space": parameters}

    return [difference.key for difference in differences(flat(old), flat(new))]
