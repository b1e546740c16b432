"""The retention rule: what of a workspace is kept, what can be removed, and why.

Conservative: it keeps what is in use, unfinished work, registered models, the newest of each kind, and what MLflow
does not have yet.
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.maintenance.inventory import InventoryItem, bytes_in, stage_folders
from pipeline.search.store import NAME as SEARCH
from pipeline.search.store import StoredSearch, stored_searches
from pipeline.stages.catalog import stage_named, stages_through
from pipeline.stages.stage import Retention, Stage
from pipeline.tracking import delivery_state
from pipeline.workspace.locks import is_held
from pipeline.workspace.paths import Workspace

STALE_AFTER_S = 3600.0
"""A temporary file this old belongs to a command that died."""


@dataclass(frozen=True)
class Decision:
    """Whether something can be removed, and why; `lock` is held while it is."""

    what: str
    path: Path
    bytes: int
    removable: bool
    why: str
    lock: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "what": self.what,
            "path": str(self.path),
            "bytes": self.bytes,
            "goes": self.removable,
            "why": self.why,
        }


RegisteredKeys = Callable[[], Collection[str] | None]
"""Asks for the run keys that registered versions were made from; None if the registry cannot be asked."""
_Choice = tuple[bool, str]
"""Whether something can be removed, and why."""
_ORDER: tuple[Retention, ...] = ("always", "newest", "while needed", "with its inputs")
"""Each is decided by what is decided about those before it."""


def decide(workspace: Workspace, address: str, registered_keys: RegisteredKeys) -> list[Decision]:
    """Decide about everything that takes space.

    `address` is that of the MLflow store. `registered_keys` is called only when a training or predictions could go.
    """
    retention = _Retention(workspace, address, registered_keys)
    return [
        *retention.stage_folders(),
        *retention.searches(),
        *retention.predictions(),
        *retention.reports(),
        *retention.temporary_files(),
    ]


class _Retention:
    def __init__(self, workspace: Workspace, address: str, registered_keys: RegisteredKeys) -> None:
        self._workspace = workspace
        self._ask_registry = registered_keys
        self._folders = stage_folders(workspace)
        self._searches = stored_searches(workspace)
        pending = delivery_state.pending(workspace, address)
        self._undelivered = {journal for record in pending for journal in record.journals}
        self._choices: dict[Path, _Choice] = {}
        for kind in _ORDER:
            for one in self._of(kind):
                self._choices[one.folder] = self._choice(one)

    def stage_folders(self) -> Iterator[Decision]:
        for one in self._folders:
            removable, why = self._choices[one.folder]
            yield Decision(one.stage.name, one.folder, one.bytes, removable, f"{one.holds}; {why}", one.lock)

    def searches(self) -> Iterator[Decision]:
        seen: set[object] = set()
        for one in self._searches:
            kind = (one.model, str(one.data))
            removable, why = self._search(one, has_newer=kind in seen)
            if one.status.is_done and one.is_of_this_version:
                seen.add(kind)
            text = f"{one.model}, started {one.created}, {one.status.in_words()}; {why}"
            yield Decision(SEARCH, one.folder, bytes_in(one.folder), removable, text, one.lock)

    def predictions(self) -> Iterator[Decision]:
        kept = {one.run_key for one in self._kept_trainings}
        for folder in sorted(self._workspace.predictions.glob("*")):
            lock = self._workspace.lock(f"predictions-{folder.name}")
            if folder.name in kept:
                removable, why = False, "of a training that stays"
            elif is_held(lock):
                removable, why = False, "in use"
            elif self._is_registered(folder.name):
                removable, why = False, "of a registered version"
            else:
                removable, why = True, "its training goes or is gone"
            yield Decision("predictions", folder, bytes_in(folder), removable, why, lock)

    def reports(self) -> Iterator[Decision]:
        for folder in sorted((self._workspace.hidden / "reports").glob("*")):
            waits = folder.name in self._undelivered
            why = "MLflow does not have it yet" if waits else "MLflow has it"
            lock = self._workspace.lock(folder.name)
            yield Decision("report", folder, bytes_in(folder), not waits and not is_held(lock), why, lock)

    def temporary_files(self) -> Iterator[Decision]:
        for stage in stages_through():
            for path in self._workspace.stage(stage.name).glob("*/*"):
                is_scratch = any(path.match(pattern) for pattern in stage.scratch)
                if is_scratch and not path.parent.name.endswith(".partial"):
                    yield Decision("torn file", path, path.stat().st_size, True, "of work that is whole")
        in_use = [one.folder for one in self._folders if one.state == "in use"]
        temporary = [*self._workspace.root.glob(".*.tmp"), *self._workspace.hidden.rglob(".*.tmp")]
        for path in sorted(temporary):
            is_written = any(path.is_relative_to(folder) for folder in in_use)
            if path.is_file() and not is_written and time.time() - path.stat().st_mtime > STALE_AFTER_S:
                yield Decision("torn file", path, path.stat().st_size, True, "left by a command that died")

    def _of(self, kind: Retention) -> list[InventoryItem]:
        return [one for one in self._folders if one.stage.retention == kind]

    def _stays(self, folder: Path) -> bool:
        return folder in self._choices and not self._choices[folder][0]

    def _choice(self, one: InventoryItem) -> _Choice:
        if (reason := self._why_kept_anyway(one)) is not None:
            return False, reason
        if one.state == "partial":
            if one.progress is None:
                return True, "started and never finished"
            return False, "unfinished work; only --fresh discards it"
        return {
            "always": self._record,
            "newest": self._training,
            "while needed": self._prepared,
            "with its inputs": self._report,
        }[one.stage.retention](one)

    def _why_kept_anyway(self, one: InventoryItem) -> str | None:
        """Why a folder is kept whatever it holds; None if that depends on what it holds."""
        if one.state == "in use" or is_held(one.lock):
            return "in use"
        if one.state == "damaged":
            return "damaged: look at it first"
        if f"{one.stage.name}/{one.fingerprint}" in self._undelivered:
            return "MLflow does not have all of it yet"
        if one.stage.name in self._stages_being_read:
            return "a running command may read it"
        return None

    def _record(self, _one: InventoryItem) -> _Choice:
        return False, "records what was registered"

    def _training(self, one: InventoryItem) -> _Choice:
        if one.state == "current":
            return False, "the newest of its model on this data, or another seed of it"
        if one.folder.name in self._registered_here or self._is_registered(one.run_key):
            return False, "a registered version was made from it"
        return True, "superseded by a newer training"

    def _prepared(self, one: InventoryItem) -> _Choice:
        if self._read_by_trainings is None or one.folder.name in self._read_by_trainings:
            return False, "a training that stays was made from it"
        if one.folder.name in {search.prepared for search in self._searches if search.state != "finished"}:
            return False, "a search that is not finished reads it"
        if one.state == "current":
            return False, "the newest"
        return True, "no training that stays was made from it"

    def _report(self, one: InventoryItem) -> _Choice:
        for stage, fingerprint in (one.inputs or {}).items():
            if not self._stays(self._workspace.stage(stage) / fingerprint):
                return True, f"what it was made from ({stage}) goes or is gone"
        if one.state == "superseded":
            return True, "superseded by a newer one"
        return False, "the newest from these inputs"

    def _search(self, one: StoredSearch, *, has_newer: bool) -> _Choice:
        if one.state == "running":
            return False, "in use"
        if any(journal.startswith(one.journals) for journal in self._undelivered):
            return False, "MLflow does not have all of it yet"
        if not one.is_of_this_version:
            return True, "of another version of seqpipe, which alone could go on with it"
        if not one.status.is_done:
            return False, "unfinished work; only --fresh discards it"
        if has_newer:
            return True, "superseded by a newer search"
        return False, "the newest of its model on this data"

    @cached_property
    def _kept_trainings(self) -> list[InventoryItem]:
        return [one for one in self._of("newest") if self._stays(one.folder)]

    @cached_property
    def _read_by_trainings(self) -> set[str] | None:
        """The fingerprints of what the kept trainings were made from; None if they are unknown for one of them."""
        inputs = [one.inputs for one in self._kept_trainings]
        return None if None in inputs else {name for one in inputs for name in (one or {}).values()}

    @cached_property
    def _registered_here(self) -> set[str]:
        """The fingerprints of what the registrations in this workspace were made from."""
        return {name for one in self._of("always") for name in (one.inputs or {}).values()}

    @cached_property
    def _stages_being_read(self) -> set[str]:
        """The stages of which a running command may read any result."""
        unknown = [one.stage for one in self._folders if one.state == "in use" and one.inputs is None]
        return {name for stage in unknown for name in _stages_below(stage)}

    @cached_property
    def _registered_keys(self) -> Collection[str] | None:
        return self._ask_registry()

    def _is_registered(self, run_key: str | None) -> bool:
        """Whether a registered version may have been made from a run; True if the registry cannot be asked."""
        return self._registered_keys is None or run_key in self._registered_keys


def _stages_below(stage: Stage) -> set[str]:
    """The names of the stages that a stage stands on."""
    return {name for direct in stage.inputs for name in (direct, *_stages_below(stage_named(direct)))}
