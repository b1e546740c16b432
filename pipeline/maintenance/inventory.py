"""What the stage folders of a workspace hold, and in which state each of them is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import WorkspaceError
from pipeline.stages.catalog import stages_through
from pipeline.stages.stage import Stage
from pipeline.workspace.locks import is_held
from pipeline.workspace.manifests import Manifest, read_manifest, stage_lock
from pipeline.workspace.paths import Workspace

State = Literal["current", "superseded", "partial", "in use", "damaged"]
_PARTIAL = ".partial"


@dataclass(frozen=True)
class InventoryItem:
    """A stage folder; `superseded`: whole, but there is a newer one of the same model on the same data.

    Trainings with the same settings and other seeds are as new as the newest of them.
    """

    stage: Stage
    folder: Path
    bytes: int
    state: State
    holds: str
    lock: Path
    manifest: Manifest | None = None
    progress: str | None = None
    """How far unfinished work is that can be resumed."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint that the folder is named by."""
        return _fingerprint(self.folder)

    @property
    def run_key(self) -> str | None:
        """The key of the run that a whole training belongs to."""
        return self.manifest.result.get("run_key") if self.manifest is not None else None

    @property
    def inputs(self) -> Mapping[str, str] | None:
        """The fingerprints of what it was or is being made from, by stage; None if they are not known."""
        return self.stage.unfinished_inputs(self.folder) if self.manifest is None else self.manifest.inputs


def stage_folders(workspace: Workspace) -> list[InventoryItem]:
    """Every stage folder, in the order of the stages, the newest first."""
    return [folder for stage in stages_through() for folder in _folders_of(workspace, stage)]


def bytes_in(folder: Path) -> int:
    """The size of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # a training replaces its files while it runs
            continue
    return total


def _folders_of(workspace: Workspace, stage: Stage) -> Iterator[InventoryItem]:
    newest: dict[object, object] = {}
    for path, manifest in _newest_first(workspace.stage(stage.name)):
        lock = workspace.lock(stage_lock(stage.name, _fingerprint(path)))
        size = bytes_in(path)
        if isinstance(manifest, Manifest):
            kind = (manifest.reads.get("model", {}).get("name"), str(manifest.inputs))
            settings = (manifest.version, {key: value for key, value in manifest.reads.items() if key != "seed"})
            state: State = "current" if newest.setdefault(kind, settings) == settings else "superseded"
            holds = "; ".join(filter(None, (f"made {manifest.created}", stage.summary(manifest.result))))
            yield InventoryItem(stage, path, size, state, holds, lock, manifest)
        elif path.name.endswith(_PARTIAL):
            state = "in use" if is_held(lock) else "partial"
            progress = stage.progress(path)
            yield InventoryItem(stage, path, size, state, progress or "started", lock, progress=progress)
        else:
            holds = str(manifest) if manifest else "its manifest is missing; the next run makes it again"
            yield InventoryItem(stage, path, size, "damaged", holds, lock)


def _newest_first(folder: Path) -> list[tuple[Path, Manifest | WorkspaceError | None]]:
    """The folders of a stage with their manifests: None for a partial or missing one, the error for a damaged one."""
    found: list[tuple[Path, Manifest | WorkspaceError | None]] = []
    for path in (path for path in folder.glob("*") if path.is_dir()):
        if path.name.endswith(_PARTIAL):
            found.append((path, None))
            continue
        try:
            found.append((path, read_manifest(path)))
        except WorkspaceError as error:
            found.append((path, error))
    return sorted(found, key=lambda one: getattr(one[1], "created", ""), reverse=True)


def _fingerprint(folder: Path) -> str:
    return folder.name.removesuffix(_PARTIAL)
