"""The home folder: an actor beside the driver that takes in the files and messages of work on another node.

What is being received has a hidden name; when all of it is there and durable it takes the place of the files from
before, in the order given. So the folder is always one that the work has left, however it ends.

Its process loads this module, which has to stay small: see `checkpoint_store`.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tuning.on_ray.checkpoint_store import chunk_of, sync


class Taken(NamedTuple):
    """What has come since it was asked last."""

    has_begun: bool
    """Whether the work has a worker on its node."""
    has_files: bool
    """Whether the folder has other files than before."""
    messages: list[bytes]


class HomeFolder:
    """Serves the files that the work begins with and reads, takes in those that it makes, and passes on messages."""

    def __init__(self, folder: str, shared_folder: str = "") -> None:
        self._folder = Path(folder)
        self._shared_folder = Path(shared_folder)
        self._messages: list[bytes] = []
        self._has_begun = self._has_files = False
        self._stop_reason = ""

    def begin(self) -> list[tuple[str, int]]:
        """A worker has the work; the names and sizes of the files that it begins with."""
        self._has_begun = True
        files = sorted(path for path in self._folder.iterdir() if path.is_file() and path.name[0] != ".")
        return [(path.name, path.stat().st_size) for path in files]

    def read(self, name: str, offset: int) -> bytes:
        """The next chunk of a file."""
        return chunk_of(self._folder / name, offset)

    def read_shared(self, name: str, offset: int) -> bytes:
        """The next chunk of a file that the work reads."""
        return chunk_of(self._shared_folder / name, offset)

    def write(self, name: str, offset: int, chunk: bytes) -> None:
        """Receive a chunk of a file; Ray may send the same one twice."""
        with self._coming(name).open("wb" if offset == 0 else "r+b") as file:
            file.seek(offset)
            file.write(chunk)

    def take_in(self, names: Sequence[str], gone: Sequence[str]) -> None:
        """The files with these names are whole: put them in place, in this order, then delete those that are gone."""
        coming = [self._coming(name) for name in names]
        for path in coming:
            if path.exists():  # else Ray repeats the call
                sync(path)
        for name, path in zip(names, coming, strict=True):
            with contextlib.suppress(FileNotFoundError):
                path.rename(self._folder / name)
        sync(self._folder)
        for name in gone:
            (self._folder / name).unlink(missing_ok=True)
        self._has_files = True

    def abandon(self) -> None:
        """Files could not be received whole: free their space."""
        for path in self._folder.glob(".*.home.tmp"):
            path.unlink(missing_ok=True)

    def post(self, messages: Sequence[bytes]) -> None:
        """Receive messages."""
        self._messages.extend(messages)

    def taken(self) -> Taken:
        """What has come since the last call."""
        taken = Taken(self._has_begun, self._has_files, self._messages)
        self._messages, self._has_files = [], False
        return taken

    def ask_to_stop(self, reason: str) -> None:
        """Ask the work to leave; to be repeated, since a process that was started again has forgotten it."""
        self._stop_reason = reason

    def stop_reason(self) -> str:
        """Why the work is to leave; empty if it is not."""
        return self._stop_reason

    def _coming(self, name: str) -> Path:
        return self._folder / f".{name}.home.tmp"
