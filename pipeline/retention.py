"""What the stage folders of a workspace hold, and which are still the newest of their kind."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import WorkspaceError
from pipeline.runner import STAGES
from pipeline.stages import train
from pipeline.workspace import Manifest, Workspace, is_held, read_manifest

State = Literal["current", "superseded", "partial", "in use", "damaged"]


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
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            state: State
            if isinstance(manifest, Manifest):
                kind = (manifest.reads.get("model", {}).get("name"), str(manifest.inputs), stage == "prepare")
                state = "superseded" if kind in seen else "current"
                seen.add(kind)
                holds = f"made {manifest.created}; {_summary(manifest)}"
            elif manifest is None:
                lock = workspace.lock(f"{stage}-{path.name.removesuffix('.partial')}")
                state = "in use" if is_held(lock) else "partial"
                holds = (train.progress_text(path) if stage == train.NAME else None) or "begun"
            else:
                state, holds = "damaged", str(manifest)
            found.append(Holding(stage, path, size, state, holds))
    return found


def _newest_first(folder: Path) -> list[tuple[Path, Manifest | WorkspaceError | None]]:
    entries: list[tuple[Path, Manifest | WorkspaceError | None]] = []
    for path in folder.glob("*"):
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
