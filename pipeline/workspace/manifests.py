"""Stage folders and their manifests: `.partial` while in progress, then renamed."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import WorkspaceError
from pipeline.workspace.durable_files import sync_folder, write_json, writing
from pipeline.workspace.fingerprints import file_sha256
from pipeline.workspace.locks import exclusive
from pipeline.workspace.paths import Workspace

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Contents of `manifest.json`, which a whole stage folder has."""

    stage: str
    version: int
    fingerprint: str
    reads: Mapping[str, Any]
    inputs: Mapping[str, str]
    result: Mapping[str, Any]
    seconds: float = 0.0
    created: str = ""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class StageResult(BaseModel):
    """The result of a stage, and the folder with its files."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    folder: Path = Field(exclude=True)
    """Not part of the manifest, since the folder may move."""


def stage_lock(stage: str, fingerprint: str) -> str:
    """The name of the lock that is held while a stage folder is made."""
    return f"{stage}-{fingerprint}"


class StageFolder:
    """The folder of one stage under one fingerprint: `.partial` while in progress, renamed when it is whole."""

    def __init__(self, workspace: Workspace, stage: str, fingerprint: str) -> None:
        self.stage = stage
        self.fingerprint = fingerprint
        self.whole = workspace.stage(stage) / fingerprint
        self.partial = workspace.stage(stage) / f"{fingerprint}.partial"
        self.lock_path = workspace.lock(stage_lock(stage, fingerprint))

    def manifest(self) -> Manifest | None:
        """The manifest if the folder is whole, else None.

        Raises:
            WorkspaceError: the manifest is there and damaged.
        """
        return read_manifest(self.whole)

    def begin(self, *, fresh: bool = False) -> Path:
        """Create the partial folder, or go on with it; `fresh` empties it. A whole folder stays until `finish`."""
        with writing(self.partial):
            if fresh and self.partial.exists():
                remove_folder(self.partial)
            self.partial.mkdir(parents=True, exist_ok=True)
            (self.partial / MANIFEST).unlink(missing_ok=True)
            for torn in self.partial.glob(".*.tmp"):  # what a killed command was writing
                torn.unlink()
        return self.partial

    def finish(self, manifest: Manifest, scratch: Sequence[str] = ()) -> Path:
        """Write the manifest, rename the folder, and only then remove the files that a resume would have needed.

        `scratch` are patterns of those files.
        """
        removed = {path for pattern in scratch for path in self.partial.glob(pattern)}
        files = {
            path.relative_to(self.partial).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(self.partial.rglob("*"))
            if path.is_file() and path.name != MANIFEST and path not in removed
        }
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(self.partial / MANIFEST, asdict(manifest) | {"files": files, "created": stamp})
        with writing(self.whole):
            if self.whole.exists():  # damaged, or replaced by this one
                remove_folder(self.whole)
            self.partial.rename(self.whole)
            sync_folder(self.whole.parent)
            for path in removed:
                (self.whole / path.name).unlink(missing_ok=True)
        return self.whole

    def discard(self) -> None:
        """Remove the partial and the whole folder."""
        for folder in (self.partial, self.whole):
            if folder.exists():
                with writing(folder):
                    remove_folder(folder)

    @contextmanager
    def locked(
        self, on_wait: Callable[[str], None], while_waiting: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Hold the folder's lock, as `exclusive` does."""
        with exclusive(self.lock_path, on_wait, what=f"{self.stage} {self.fingerprint}", while_waiting=while_waiting):
            yield


def remove_folder(folder: Path) -> None:
    """Remove a stage folder, its manifest first, so that what a kill leaves does not look whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a stage folder, or None if there is none.

    Raises:
        WorkspaceError: it is there and damaged.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        return Manifest(**content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WorkspaceError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError):
        raise WorkspaceError(
            f"{path}: damaged manifest; remove the folder {folder}, and the next run makes it again"
        ) from None


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """One line for each file of a stage folder that is missing or differs from its manifest."""
    problems = []
    for name, recorded in manifest.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif path.stat().st_size != recorded["bytes"] or file_sha256(path) != recorded["sha256"]:
            problems.append(f"{path}: altered")
    return problems
