"""Rebuilds a lost run record from the training's stage folders."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import WorkspaceError
from pipeline.tracking.journal import FILE_NAME
from pipeline.workspace.manifests import MANIFEST, read_manifest
from pipeline.workspace.paths import Workspace

RUN_FILE = "run.json"
"""Holds the key and the name of the run that a training's folder belongs to."""
TRAIN, EVALUATE = "train", "evaluate"
"""The stages that keep journals; a training's run has those of both."""


@dataclass(frozen=True)
class FoundJournal:
    """A journal that belongs to a run, and how much of it is durable."""

    journal_id: str
    folder: Path
    upto: int


@dataclass(frozen=True)
class FoundRun:
    """A run as its stage folders describe it."""

    key: str
    name: str
    is_finished: bool
    journals: tuple[FoundJournal, ...]


def run_keys(workspace: Workspace) -> set[str]:
    """The keys of all runs that a training's folder belongs to."""
    return {run["key"] for path in workspace.stage(TRAIN).glob("*") if (run := _run_of(path))}


def is_finished(workspace: Workspace, key: str) -> bool:
    """Whether the folder of a run's training is whole, whatever its record says."""
    folder = workspace.stage(TRAIN) / _fingerprint(key)
    return _run_of(folder).get("key") == key and (folder / MANIFEST).is_file()


def find_run(workspace: Workspace, key: str) -> FoundRun | None:
    """A training's run, or None where no folder has anything durable of it."""
    fingerprint = _fingerprint(key)
    journal_id = f"{TRAIN}/{fingerprint}"
    whole = workspace.stage(TRAIN) / fingerprint
    partial = whole.with_name(f"{fingerprint}.partial")
    if is_finished(workspace, key):
        training = FoundJournal(journal_id, whole, _size(whole / FILE_NAME))
        return FoundRun(key, _run_of(whole)["name"], True, (training, *_evaluations(workspace, fingerprint)))
    if _run_of(partial).get("key") == key and (durable := _durable_bytes(partial)) is not None:
        return FoundRun(key, _run_of(partial)["name"], False, (FoundJournal(journal_id, partial, durable),))
    return None


def _fingerprint(key: str) -> str:
    """The fingerprint of the training, which its run's key starts with."""
    return key.rpartition("-")[0]


def _run_of(folder: Path) -> dict[str, str]:
    """The key and the name of the run that a training's folder belongs to; empty where it does not say."""
    try:
        content = json.loads((folder / RUN_FILE).read_bytes())
        return {"key": str(content["key"]), "name": str(content["name"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _durable_bytes(partial: Path) -> int | None:
    """How much of an unfinished training's journal its newest checkpoint covers; None without a checkpoint."""
    for described in sorted(partial.glob("step-*.json"), reverse=True):
        try:
            return int(json.loads(described.read_bytes())["journal_offset"])
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return None


def _evaluations(workspace: Workspace, training: str) -> Iterator[FoundJournal]:
    """The journals of a training's whole evaluations."""
    for path in sorted(workspace.stage(EVALUATE).glob("*")):
        try:
            manifest = read_manifest(path)
        except WorkspaceError:  # reported when that folder itself is read
            continue
        if manifest is not None and manifest.inputs.get(TRAIN) == training and (path / FILE_NAME).is_file():
            yield FoundJournal(f"{EVALUATE}/{path.name}", path, _size(path / FILE_NAME))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
