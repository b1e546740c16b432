"""Where things lie on disk, and how they get there: whole or not at all.

    mlflow.yaml                   marks the workspace
    mlflow.db, mlartifacts/       the default MLflow store, where plain `mlflow ui` finds it
    .seqpipe/data/                verified arrays of the official data set
    .seqpipe/stages/<stage>/<fingerprint>[.partial]/    a stage's work; `.partial` until it is whole
    .seqpipe/predictions/<run key>/                     a trained model's predictions of the test split
    .seqpipe/runs/                what each MLflow store was told of each run
    .seqpipe/last_runs.json       with which settings each model was run last
    .seqpipe/locks/               one lock per stage folder

A stage works in `<fingerprint>.partial/`, which survives a crash; its manifest is written last, then the folder is
renamed. So a folder without the suffix is whole.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import WorkspaceError

MARKER = "mlflow.yaml"
MANIFEST = "manifest.json"
WAIT_S = 0.5


@dataclass(frozen=True)
class Workspace:
    """The folder that a user's runs live in."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Workspace":
        """The nearest folder at or above `start` with an `mlflow.yaml`, else `start` (the working directory)."""
        try:
            start = (start or Path.cwd()).absolute()
        except FileNotFoundError:
            raise WorkspaceError("the working directory no longer exists; change to another one") from None
        for folder in (start, *start.parents):
            if (folder / MARKER).is_file():
                return cls(folder)
        return cls(start)

    @property
    def hidden(self) -> Path:
        """The folder that holds everything but the MLflow store."""
        return self.root / ".seqpipe"

    @property
    def data(self) -> Path:
        """The verified arrays of the official data set."""
        return self.hidden / "data"

    @property
    def predictions(self) -> Path:
        """One folder of predictions per trained model."""
        return self.hidden / "predictions"

    def stage(self, stage: str) -> Path:
        """All folders of one stage."""
        return self.hidden / "stages" / stage

    def lock(self, name: str) -> Path:
        """The lock file of a name."""
        return self.hidden / "locks" / f"{name}.lock"

    def create(self) -> None:
        """Make the workspace's own folder.

        Raises:
            WorkspaceError: the place cannot be written, or its name is of a kind that libraries refuse.
        """
        try:
            str(self.root).encode("utf-8")
        except UnicodeEncodeError:
            raise WorkspaceError(
                f"the workspace {self.root} has a name that is not valid UTF-8, which MLflow and safetensors refuse; "
                "rename the folder (or set a UTF-8 locale, such as LANG=C.UTF-8)"
            ) from None
        with writing(self.hidden):
            self.hidden.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class Manifest:
    """What a whole stage folder says of itself."""

    stage: str
    version: int
    fingerprint: str
    reads: Mapping[str, Any]
    inputs: Mapping[str, str]
    result: Mapping[str, Any]
    seconds: float = 0.0
    created: str = ""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def fingerprint(stage: str, version: int, reads: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The identity of a stage's result: what it reads of the config, what it stands on, and what it means."""
    content = {"stage": stage, "version": version, "reads": reads, "inputs": inputs}
    return hashlib.sha256(canonical_json(content)).hexdigest()[:16]


def canonical_json(content: object) -> bytes:
    """The same bytes for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into one clear line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = (
            "free some space (`seqpipe gc` says what can go) and run the same command again"
            if error.errno in (28, 122)  # ENOSPC, EDQUOT
            else "make it writable, or work in another folder"
        )
        raise WorkspaceError(f"{error.filename or path}: cannot be written: {reason}; {advice}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by `content`: written beside it, synced, renamed, the folder synced."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_json(path: Path, content: object) -> None:
    """Replace a file by readable JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network and FUSE file systems refuse; the rename itself is still atomic
        return
    finally:
        os.close(descriptor)


class StageFolder:
    """One stage's folder under one fingerprint: `.partial` while it is made, renamed when it is whole."""

    def __init__(self, workspace: Workspace, stage: str, fingerprint: str) -> None:
        self.stage = stage
        self.fingerprint = fingerprint
        self.whole = workspace.stage(stage) / fingerprint
        self.partial = workspace.stage(stage) / f"{fingerprint}.partial"
        self.lock_path = workspace.lock(f"{stage}-{fingerprint}")

    def manifest(self) -> Manifest | None:
        """The manifest if the folder is whole, else None.

        Raises:
            WorkspaceError: the manifest is there and damaged.
        """
        return read_manifest(self.whole)

    def begin(self, *, fresh: bool = False) -> Path:
        """The partial folder, kept as it is if it exists; `fresh` empties it. A whole folder stays until `finish`."""
        with writing(self.partial):
            if fresh and self.partial.exists():
                remove_folder(self.partial)
            self.partial.mkdir(parents=True, exist_ok=True)
            (self.partial / MANIFEST).unlink(missing_ok=True)
            for torn in self.partial.glob(".*.tmp"):  # what a killed command was writing
                torn.unlink()
        return self.partial

    def finish(self, manifest: Manifest, scratch: Sequence[str] = ()) -> Path:
        """Write the manifest, give the folder its final name, and only then drop what a resume would have needed.

        `scratch` are patterns of such files.
        """
        dropped = {path for pattern in scratch for path in self.partial.glob(pattern)}
        files = {
            path.relative_to(self.partial).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(self.partial.rglob("*"))
            if path.is_file() and path.name != MANIFEST and path not in dropped
        }
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(self.partial / MANIFEST, asdict(manifest) | {"files": files, "created": stamp})
        with writing(self.whole):
            if self.whole.exists():  # damaged, or made anew
                remove_folder(self.whole)
            self.partial.rename(self.whole)
            sync_folder(self.whole.parent)
            for path in dropped:
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
        """Hold the folder alone, as `exclusive` does."""
        with exclusive(self.lock_path, on_wait, what=f"{self.stage} {self.fingerprint}", while_waiting=while_waiting):
            yield


def remove_folder(folder: Path) -> None:
    """Remove a stage folder, its manifest first: what a kill leaves of it is then never taken for whole."""
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
    """One line for each file of a stage folder that is no longer what its manifest says."""
    problems = []
    for name, recorded in manifest.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif path.stat().st_size != recorded["bytes"] or file_sha256(path) != recorded["sha256"]:
            problems.append(f"{path}: altered")
    return problems


@contextmanager
def exclusive(
    path: Path, on_wait: Callable[[str], None], *, what: str, while_waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold a lock that the operating system releases when its holder dies.

    `on_wait` is told once who holds it if somebody else does; `while_waiting` may raise to give up.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".holder.json")
    lock = FileLock(path)
    with writing(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(f"waiting for {what}: {_holder_text(holder)}")
            while not lock.is_locked:
                while_waiting()
                with suppress(Timeout):
                    lock.acquire(timeout=WAIT_S)
    try:
        write_json(holder, {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_held(path: Path) -> bool:
    """Whether another process (or this one) holds the lock now."""
    if not path.exists():
        return False
    try:
        with if_free(path) as free:
            return not free
    except OSError:  # a read-only place: nobody works there
        return False


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Hold a lock if nobody else does; yields whether it is held now."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _holder_text(holder: Path) -> str:
    try:
        content = json.loads(holder.read_bytes())
        return f"held by process {content['pid']} since {content['since']}"
    except (OSError, ValueError, KeyError):
        return "held by another process"
