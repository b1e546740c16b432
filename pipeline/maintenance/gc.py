"""What the folders of a workspace hold, which of them something needs, and the removal of the others.

Conservative: what is in use, unfinished work, registered models, the newest of each kind and what MLflow has still to
be told stay.
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config.resolution import resolve
from pipeline.errors import SeqpipeError, WorkspaceError
from pipeline.search.store import NAME as SEARCH
from pipeline.search.store import StoredSearch, stored_searches
from pipeline.stages import evaluate, prepare, register, train
from pipeline.stages.catalog import STAGES
from pipeline.tracking import delivery_state
from pipeline.tracking.delivery import Tracker
from pipeline.workspace.durable_files import writing
from pipeline.workspace.fingerprints import fingerprint
from pipeline.workspace.locks import if_free, is_held
from pipeline.workspace.manifests import Manifest, read_manifest, remove_folder
from pipeline.workspace.paths import Workspace

State = Literal["current", "superseded", "partial", "in use", "damaged"]
STALE_AFTER_S = 3600.0
"""Files that were being written this long ago belong to a command that died."""


@dataclass(frozen=True)
class Holding:
    """One folder: `superseded` is a whole one of which there is a newer one for the same model and task."""

    stage: str
    folder: Path
    bytes: int
    state: State
    holds: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"folder": str(self.folder)}


def holdings(workspace: Workspace) -> list[Holding]:
    """Every stage folder, in the order of the stages, the newest first."""
    found: list[Holding] = []
    for stage in STAGES:
        seen: set[object] = set()
        for path, manifest in _newest_first(workspace.stage(stage)):
            size = _bytes_in(path)
            state: State
            if isinstance(manifest, Manifest):
                kind = (manifest.reads.get("model", {}).get("name"), str(manifest.inputs), stage == "prepare")
                state = "superseded" if kind in seen else "current"
                seen.add(kind)
                holds = f"made {manifest.created}; {_summary(manifest)}"
            elif manifest is None and not path.name.endswith(".partial"):
                state, holds = "damaged", "its manifest is missing; the next run makes it again"
            elif manifest is None:
                lock = workspace.lock(f"{stage}-{path.name.removesuffix('.partial')}")
                state = "in use" if is_held(lock) else "partial"
                holds = (train.progress_text(path) if stage == train.NAME else None) or "begun"
            else:
                state, holds = "damaged", str(manifest)
            found.append(Holding(stage, path, size, state, holds))
    return found


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # a training replaces its files while it runs
            continue
    return total


@dataclass(frozen=True)
class Verdict:
    """Whether something can go, and why."""

    what: str
    path: Path
    bytes: int
    goes: bool
    why: str
    lock: Path | None = None
    """Held while it is removed."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"what": self.what, "path": str(self.path), "bytes": self.bytes, "goes": self.goes, "why": self.why}


def judge(workspace: Workspace, address: str, registered: Callable[[], Collection[str] | None]) -> list[Verdict]:
    """Everything that takes space, and whether it can go.

    `address` is the MLflow store's; `registered` gives the run keys that registered versions were made from, None
    if the registry cannot tell; it is only asked when a training or predictions could go.
    """
    return list(_Judge(workspace, address, registered).verdicts())


def remove(verdicts: Collection[Verdict]) -> list[Verdict]:
    """Remove what can go and is not in use by now; what was removed."""
    removed = []
    for verdict in verdicts:
        if verdict.goes:
            with writing(verdict.path):
                if verdict.lock is None:
                    _remove(verdict.path)
                    removed.append(verdict)
                    continue
                verdict.lock.parent.mkdir(parents=True, exist_ok=True)
                with if_free(verdict.lock) as free:
                    if free:
                        _remove(verdict.path)
                        removed.append(verdict)
    return removed


def registered_run_keys(tracker: Tracker, on_problem: Callable[[str], None]) -> frozenset[str] | None:
    """The run keys of all versions in the registry; None if it cannot be asked."""
    if tracker.settings.is_gone:
        return frozenset()
    try:
        client = tracker.connect(to_write=False)
        keys: set[str] = set()
        page: str | None = None
        while True:
            versions = client.search_model_versions(page_token=page)
            keys |= {version.tags["run_key"] for version in versions if "run_key" in version.tags}
            page = versions.token
            if not page:
                return frozenset(keys)
    except Exception as error:  # whatever a registry finds wrong, nothing is removed on a guess
        on_problem(f"the registry cannot be asked ({tracker.explained(error)}); what may be registered stays")
        return None


class _Judge:
    def __init__(self, workspace: Workspace, address: str, registered: Callable[[], Collection[str] | None]) -> None:
        self.workspace = workspace
        self.held = holdings(workspace)
        self.manifests = {one.folder: _manifest(one.folder) for one in self.held}
        self.undelivered = {
            journal for record in delivery_state.pending(workspace, address) for journal in record.journals
        }
        self._ask = registered
        self._registered: Collection[str] | None = None
        self._asked = False
        self.by_register = {manifest.inputs.get(train.NAME) for one, manifest in self._whole(register.NAME)}
        self.at_work = {one.stage for one in self.held if one.state == "in use"}
        self.searches = stored_searches(workspace)

    def verdicts(self) -> Iterator[Verdict]:
        trainings = {one.folder: self._training(one) for one in self.held if one.stage == train.NAME}
        kept = [folder for folder, (goes, _) in trainings.items() if not goes]
        kept_trainings = {folder.name for folder in kept}
        prepared = {manifest.inputs.get(prepare.NAME) for folder in kept if (manifest := self.manifests[folder])}
        prepared |= {self._prepared_of_unfinished(folder) for folder in kept if not self.manifests[folder]}
        searched = {one.prepared for one in self.searches if one.state != "finished"}
        for one in self.held:
            if one.stage == train.NAME:
                goes, why = trainings[one.folder]
            elif (stays := self._stays_anyway(one)) is not None:
                goes, why = False, stays
            elif one.state == "partial":
                goes, why = True, "begun and never finished"
            elif one.stage == prepare.NAME:
                goes, why = self._prepare(one, prepared, searched)
            elif one.stage == evaluate.NAME:
                goes, why = self._evaluation(one, kept_trainings)
            else:
                goes, why = False, "says what was registered"
            lock = self.workspace.lock(f"{one.stage}-{_fingerprint(one.folder)}")
            yield Verdict(one.stage, one.folder, one.bytes, goes, f"{one.holds}; {why}", lock)
        yield from self._searches()
        yield from self._predictions({_run_key(self.manifests[folder]) for folder in kept})
        yield from self._torn_files()

    def _whole(self, stage: str) -> list[tuple[Holding, Manifest]]:
        found = [(one, self.manifests[one.folder]) for one in self.held if one.stage == stage]
        return [(one, manifest) for one, manifest in found if manifest is not None]

    def _stays_anyway(self, one: Holding) -> str | None:
        if one.state == "in use" or is_held(self.workspace.lock(f"{one.stage}-{_fingerprint(one.folder)}")):
            return "in use"
        if one.state == "damaged":
            return "damaged: look at it first"
        if f"{one.stage}/{_fingerprint(one.folder)}" in self.undelivered:
            return "MLflow was not told all of it yet"
        if self.at_work & {evaluate.NAME, register.NAME} and one.stage in (prepare.NAME, train.NAME):
            return "a command that is at work may read it"
        return None

    def _training(self, one: Holding) -> tuple[bool, str]:
        if (stays := self._stays_anyway(one)) is not None:
            return False, stays
        if one.state == "partial":
            unfinished = train.progress_text(one.folder) is not None
            return not unfinished, "unfinished work; only --fresh discards it" if unfinished else "no step was made"
        if one.state == "current":
            return False, "the newest of its model on this data"
        key = _run_key(self.manifests[one.folder])
        if one.folder.name in self.by_register or self._is_registered(key):
            return False, "a registered version was made from it"
        return True, "superseded by a newer training"

    def _prepare(self, one: Holding, needed: Collection[str | None], searched: Collection[str]) -> tuple[bool, str]:
        if one.folder.name in needed or None in needed:
            return False, "a training that stays was made from it"
        if one.folder.name in searched:
            return False, "a search that is not finished reads it"
        if one.state == "current":
            return False, "the newest"
        return True, "no training that stays was made from it"

    def _evaluation(self, one: Holding, kept_trainings: Collection[str]) -> tuple[bool, str]:
        manifest = self.manifests[one.folder]
        assert manifest is not None, "partial and damaged ones are judged before"
        if manifest.inputs.get(train.NAME) not in kept_trainings:
            return True, "its training goes or is gone"
        if one.state == "superseded":
            return True, "superseded by a newer report"
        return False, "the newest report on its training"

    def _searches(self) -> Iterator[Verdict]:
        seen: set[object] = set()
        for one in self.searches:
            kind = (one.model, str(one.data))
            goes, why = self._search(one, kind in seen)
            if one.status.is_done and one.is_of_this_version:
                seen.add(kind)
            text = f"{one.model}, begun {one.created}, {one.status.in_words()}; {why}"
            yield Verdict(SEARCH, one.folder, _bytes_in(one.folder), goes, text, one.lock)

    def _search(self, one: StoredSearch, has_newer: bool) -> tuple[bool, str]:
        if one.state == "running":
            return False, "in use"
        if any(journal.startswith(one.journals) for journal in self.undelivered):
            return False, "MLflow was not told all of it yet"
        if not one.is_of_this_version:
            return True, "of another version of seqpipe, which alone could go on with it"
        if not one.status.is_done:
            return False, "unfinished work; only --fresh discards it"
        if has_newer:
            return True, "superseded by a newer search"
        return False, "the newest of its model on this data"

    def _predictions(self, kept: Collection[str | None]) -> Iterator[Verdict]:
        for folder in sorted(self.workspace.predictions.glob("*")):
            lock = self.workspace.lock(f"predictions-{folder.name}")
            if folder.name in kept:
                goes, why = False, "of a training that stays"
            elif is_held(lock):
                goes, why = False, "in use"
            elif self._is_registered(folder.name):
                goes, why = False, "of a registered version"
            else:
                goes, why = True, "its training goes or is gone"
            yield Verdict("predictions", folder, _bytes(folder), goes, why, lock)

    def _torn_files(self) -> Iterator[Verdict]:
        in_use = [one.folder for one in self.held if one.state == "in use"]
        places = [*self.workspace.root.glob(".*.tmp"), *self.workspace.hidden.rglob(".*.tmp")]
        for path in self.workspace.stage(train.NAME).glob("*/step-*"):
            if not path.parent.name.endswith(".partial"):  # killed while it dropped what a resume would have needed
                yield Verdict("torn file", path, path.stat().st_size, True, "of a training that is whole")
        for path in sorted(places):
            written = any(path.is_relative_to(folder) for folder in in_use)
            if path.is_file() and not written and time.time() - path.stat().st_mtime > STALE_AFTER_S:
                yield Verdict("torn file", path, path.stat().st_size, True, "left by a command that died")

    def _is_registered(self, key: str | None) -> bool:
        if not self._asked:
            self._asked, self._registered = True, self._ask()
        return self._registered is None or key in self._registered

    def _prepared_of_unfinished(self, folder: Path) -> str | None:
        """The prepared data that an unfinished training reads; None if its config cannot tell."""
        try:
            config = resolve(None, folder / "config.yaml")
            return fingerprint(prepare.NAME, prepare.VERSION, prepare.reads(config), {})
        except SeqpipeError:
            return None


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except WorkspaceError:
        return None


def _fingerprint(folder: Path) -> str:
    return folder.name.removesuffix(".partial")


def _run_key(manifest: Manifest | None) -> str | None:
    return manifest.result.get("run_key") if manifest is not None else None


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[tuple[Path, Manifest | WorkspaceError | None]]:
    entries: list[tuple[Path, Manifest | WorkspaceError | None]] = []
    for path in (path for path in folder.glob("*") if path.is_dir()):
        if path.name.endswith(".partial"):
            entries.append((path, None))
            continue
        try:
            entries.append((path, read_manifest(path)))
        except WorkspaceError as error:
            entries.append((path, error))
    return sorted(entries, key=lambda entry: getattr(entry[1], "created", ""), reverse=True)


def _summary(manifest: Manifest) -> str:
    result = manifest.result
    if manifest.stage == "prepare":
        images = sum(sum(split.values()) for split in result["counts"].values())
        return f"{result['dataset']}, {len(result['class_names'])} classes, {images} images"
    if manifest.stage == "train":
        return (
            f"{result['model']}, {result['epochs']} epochs, validation accuracy {result['validation_accuracy']:.2%}"
        )
    if manifest.stage == "evaluate":
        return f"test accuracy {result['accuracy']:.2%}"
    return f"{result['name']} version {result['version']}"
