"""Where a search lies, what tells it from others, and how far it is.

    .seqpipe/searches/<fingerprint>/
        search.json           what it searches, its MLflow run
        ledger.jsonl          every proposal and outcome (tuning.ledger)
        checkpoints/          of unfinished trials, and of the best one
        journal.jsonl         what MLflow is told of the search
        trials/<number>/      what MLflow is told of a trial, and its config
        best.yaml, trials.csv, trials.json, plots/

The fingerprint is the hash of the model, the data, the base config as far as training reads it, the space, and this
version's way to search. So other settings are another search, and the one before stays. Light: reads files only.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import RunConfig
from pipeline.stages import prepare, train
from pipeline.workspace.durable_files import write_json, writing
from pipeline.workspace.fingerprints import canonical_json, fingerprint
from pipeline.workspace.locks import is_held
from pipeline.workspace.manifests import remove_folder
from pipeline.workspace.paths import Workspace
from tuning.space import Space

NAME = "search"
VERSION = 1
"""Raised when trials of an older version can no longer be compared with new ones."""
DESCRIPTION = "search.json"
LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class Standing:
    """How far a search is."""

    target: int
    proposed: int
    finished: int
    best: float | None
    is_exhausted: bool = False
    """Whether there was nothing left to propose."""

    @property
    def is_done(self) -> bool:
        """Whether it has all of its trials, or all that there can be."""
        return self.finished >= (self.proposed if self.is_exhausted else self.target)

    def in_words(self) -> str:
        """`12 of 30 trials, best 84.21 %`."""
        best = f", best {100 * self.best:.2f} %" if self.best is not None else ""
        return f"{self.finished} of {self.target} trials{best}"


@dataclass(frozen=True)
class SearchPlace:
    """The folder of one search, by what it searches."""

    workspace: Workspace
    model: str
    identity: Mapping[str, Any]
    """What tells it from others, in JSON."""

    @classmethod
    def of(cls, workspace: Workspace, config: RunConfig, space: Space) -> "SearchPlace":
        """The place of the search of this config and space."""
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
        """The hash that names the folder."""
        return fingerprint(NAME, VERSION, self.identity, {})

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return searches(self.workspace) / self.fingerprint

    @property
    def lock(self) -> Path:
        """Held by the command that searches."""
        return self.workspace.lock(self.lock_name)

    @property
    def lock_name(self) -> str:
        """The lock's name, which the records of the search's runs keep."""
        return _lock_name(self.fingerprint)

    def standing(self) -> Standing | None:
        """How far it is, or None if it was not begun."""
        return standing(self.folder)

    def begin(self) -> str:
        """Make the folder if it is not there; the key of the search's MLflow run."""
        try:
            return str(json.loads((self.folder / DESCRIPTION).read_bytes())["key"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            key = f"{NAME}-{self.fingerprint}-{uuid.uuid4().hex[:8]}"
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            created = time.strftime("%Y-%m-%d %H:%M:%S")
            write_json(self.folder / DESCRIPTION, {"key": key, "created": created, "identity": self.identity})
            return key

    def discard(self) -> None:
        """Remove all of it."""
        if self.folder.exists():
            with writing(self.folder):
                (self.folder / DESCRIPTION).unlink(missing_ok=True)
                remove_folder(self.folder)

    def set_aside(self) -> None:
        """Make room for a new search in its place; `settle` decides which of the two stays."""
        with writing(self._aside):
            self._aside.parent.mkdir(parents=True, exist_ok=True)
            self.folder.rename(self._aside)

    def settle(self) -> bool:
        """Drop what was set aside if the new search has begun a trial, else put it back; whether it was dropped.

        Nothing is lost by a new search that is refused before it has begun.
        """
        if not self._aside.is_dir():
            return False
        standing = self.standing()
        with writing(self._aside):
            if standing is not None and standing.proposed:
                remove_folder(self._aside)
                return True
            self.discard()
            self._aside.rename(self.folder)
        return False

    @property
    def _aside(self) -> Path:
        return self.workspace.hidden / "set-aside" / self.fingerprint

    def nearest_other(self) -> tuple[Path, list[str]] | None:
        """The begun search of the same model that differs least, the newest among equals; and in what it differs."""
        found = []
        for folder, content in described(self.workspace):
            if folder != self.folder and content["identity"].get("model") == self.model and standing(folder):
                differing = list(_differences(content["identity"], self.identity))
                found.append((-len(differing), content.get("created", ""), folder, differing))
        if not found:
            return None
        _, _, folder, differing = max(found)
        return folder, differing


@dataclass(frozen=True)
class Begun:
    """A search of a workspace, under whatever settings."""

    folder: Path
    model: str
    created: str
    data: Mapping[str, Any]
    """What its prepared data depend on."""
    standing: Standing
    lock: Path
    is_of_this_version: bool
    """Whether this program would go on with it."""

    @property
    def state(self) -> str:
        """`running`, `finished` or `unfinished`."""
        return "running" if is_held(self.lock) else "finished" if self.standing.is_done else "unfinished"

    @property
    def journals(self) -> str:
        """What the names of its journals begin with."""
        return f"{NAME}/{self.folder.name}"

    @property
    def prepared(self) -> str:
        """The prepared data that its trials read."""
        return fingerprint(prepare.NAME, prepare.VERSION, {"data": self.data}, {})


def begun(workspace: Workspace) -> list[Begun]:
    """Every search of a workspace, the newest first."""
    found = []
    for folder, content in described(workspace):
        identity, how_far = content["identity"], standing(folder)
        if how_far is not None:
            found.append(
                Begun(
                    folder=folder,
                    model=str(identity.get("model")),
                    created=str(content.get("created", "")),
                    data=identity.get("data", {}),
                    standing=how_far,
                    lock=workspace.lock(_lock_name(folder.name)),
                    is_of_this_version=identity.get("versions") == _versions(),
                )
            )
    return sorted(found, key=lambda one: one.created, reverse=True)


def searches(workspace: Workspace) -> Path:
    """The folder of all searches."""
    return workspace.hidden / "searches"


def described(workspace: Workspace) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every search of a workspace, and what it says of itself."""
    for path in sorted(searches(workspace).glob(f"*/{DESCRIPTION}")):
        try:
            content = json.loads(path.read_bytes())
            if isinstance(content["identity"], dict):
                yield path.parent, content
        except (OSError, ValueError, KeyError, TypeError):
            continue  # said by whoever goes on with it


def standing(folder: Path) -> Standing | None:
    """How far the search in a folder is, while another process may be writing it; None if it was not begun."""
    target, proposed, is_exhausted = 0, 0, False
    values: dict[int, float | None] = {}
    try:
        lines = (folder / LEDGER).read_bytes().splitlines()
    except OSError:
        return None
    for line in lines:
        try:
            event = json.loads(line)
            match event["event"]:
                case "target":
                    target = event["trials"]
                case "proposed":
                    proposed += 1
                case "finished":
                    values[event["row"]] = event["value"] if event["outcome"] == "completed" else None
                case "exhausted":
                    is_exhausted = True
                case "reopened":
                    values.pop(event["row"], None)
        except (ValueError, KeyError, TypeError):  # torn; a damaged ledger is told by whoever opens it
            continue
    known = [value for value in values.values() if value is not None]
    return Standing(target, proposed, len(values), max(known, default=None), is_exhausted) if target else None


def _versions() -> dict[str, int]:
    return {NAME: VERSION, prepare.NAME: prepare.VERSION, train.NAME: train.VERSION}


def _lock_name(search: str) -> str:
    return f"{NAME}-{search}"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of what is not the same."""
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict) and prefix.count(".") < 2 and prefix != "space.":
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}"
