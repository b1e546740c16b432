"""Shared files: what every trial reads, made available on every node.

Nodes share nothing but Ray. On the driver's node a trial reads the files where they are. On another node the first
trial that needs them fetches them from the checkpoint store into a cache folder, where the next ones find them. They
are identified by their contents, so a stale copy is never read.

    CACHE/inputs/<hash>/...
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEPT_S = 30 * 86400
"""How long files are kept that no trial uses."""


def temporary_folder() -> Path:
    """A cache folder of this user for nodes that have no other."""
    return Path(tempfile.gettempdir()) / f"seqpipe-{os.getuid()}" / "seqpipe"


@dataclass(frozen=True)
class SharedFile:
    """One file, by name and contents."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class SharedFiles:
    """Files of one folder on the driver's node."""

    folder: str
    files: tuple[SharedFile, ...]
    cache_folder: Callable[[], Path] = temporary_folder
    """Called on the node that fetches them, whose cache folder it gives."""

    @classmethod
    def of(cls, paths: Sequence[Path], cache_folder: Callable[[], Path] = temporary_folder) -> "SharedFiles":
        """Describe files; they have to be in one folder, and must not change while the search runs."""
        folders = {str(path.parent.absolute()) for path in paths}
        if len(folders) > 1:
            raise ValueError(f"shared files are in {len(folders)} folders, not in one: {', '.join(sorted(folders))}")
        files = tuple(SharedFile(path.name, path.stat().st_size, _sha256(path)) for path in paths)
        return cls(next(iter(folders), ""), files, cache_folder)

    @property
    def key(self) -> str:
        """A hash of names and contents."""
        contents = "\n".join(f"{file.sha256} {file.name}" for file in self.files)
        return hashlib.sha256(contents.encode()).hexdigest()[:16]

    def fetch(self, read: Callable[[str, int], bytes]) -> Path:
        """The folder of the files on a node other than the driver's; `read` gives a file's bytes from an offset on.

        Raises:
            OSError: they cannot be stored here, or have changed since they were described.
        """
        cache = self._cache()
        folder = cache / self.key
        if not folder.is_dir():
            with _alone(cache.with_suffix(".lock")):
                if not folder.is_dir():
                    _remove_unused(cache)
                    self._fetch_into(folder, read)
        os.utime(folder)
        return folder

    def _fetch_into(self, folder: Path, read: Callable[[str, int], bytes]) -> None:
        for left_over in folder.parent.glob(f".{self.key}-*"):  # of a process that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        draft = folder.with_name(f".{self.key}-{uuid.uuid4().hex}")
        draft.mkdir()  # not by tempfile: permissions follow the umask
        try:
            for file in self.files:
                _write(file, draft / file.name, read)
            with contextlib.suppress(OSError):  # another trial was faster
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _cache(self) -> Path:
        cache = self.cache_folder() / "inputs"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except NotADirectoryError:  # a user without a home
            cache = temporary_folder() / "inputs"
            cache.mkdir(parents=True, exist_ok=True)
        return cache


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this node at a time, so that the files are sent to it once."""
    with path.open("a") as file:
        with contextlib.suppress(OSError):  # a disk without locks: then they may be sent twice
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(file: SharedFile, path: Path, read: Callable[[str, int], bytes]) -> None:
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
        raise OSError(f"{file.name} is not what the search started with; was it changed since?")


def _remove_unused(cache: Path) -> None:
    """Delete files not used for long, and drafts of processes that were killed."""
    for folder in cache.iterdir():
        if time.time() - folder.stat().st_mtime > KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
