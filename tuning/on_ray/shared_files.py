"""Files that every trial reads, on every node: where they lie, or carried there once through Ray.

Nodes share nothing but Ray. On the driver's own node a trial reads the files where they are; on another they are
fetched from the keeper into the user's cache folder, by the first trial that needs them, and stay for the next ones.
They are told by their content, so a stale copy is never read. This module must stay small: the keeper loads it.

    ~/.cache/seqpipe/inputs/<hash>/...
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

KEPT_S = 30 * 86400
"""For how long what no trial has used is kept."""


@dataclass(frozen=True)
class InputFile:
    """A file by its name and content."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Inputs:
    """Files of one folder on the driver's node."""

    folder: str
    files: tuple[InputFile, ...]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "Inputs":
        """Describe them; they have to be in one folder, and stay as they are while the search runs."""
        folders = {str(path.parent.absolute()) for path in paths}
        if len(folders) > 1:
            raise ValueError(f"inputs lie in {len(folders)} folders, not in one: {', '.join(sorted(folders))}")
        files = tuple(InputFile(path.name, path.stat().st_size, _sha256(path)) for path in paths)
        return cls(next(iter(folders), ""), files)

    @property
    def key(self) -> str:
        """The hash of names and contents."""
        told = "\n".join(f"{file.sha256} {file.name}" for file in self.files)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def fetch(self, read: Callable[[str, int], bytes]) -> Path:
        """The folder of the files on this node, which is not the driver's; `read` gives a file's next bytes.

        Raises:
            OSError: they cannot be kept here, or came otherwise than described.
        """
        home = _cache()
        there = home / self.key
        if not there.is_dir():
            home.mkdir(parents=True, exist_ok=True)
            _remove_unused(home)
            draft = home / f".{self.key}-{uuid.uuid4().hex}"
            draft.mkdir()  # its permissions follow the umask
            try:
                for file in self.files:
                    _write(file, draft / file.name, read)
                with contextlib.suppress(OSError):  # another trial was quicker
                    draft.rename(there)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        os.utime(there)
        return there


def _write(file: InputFile, path: Path, read: Callable[[str, int], bytes]) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as written:
        while written.tell() < file.size:
            chunk = read(file.name, written.tell())
            if not chunk:
                break
            digest.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    if digest.hexdigest() != file.sha256:
        raise OSError(f"{file.name} is not what the search began with; was it changed since?")


def _remove_unused(home: Path) -> None:
    """Give back what was not used for long, and drafts of processes that were killed."""
    for folder in home.iterdir():
        if time.time() - folder.stat().st_mtime > KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)


def _cache() -> Path:
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        home = Path(tempfile.gettempdir()) / f"seqpipe-{os.getuid()}"
    return home / "seqpipe" / "inputs"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
