"""The checkpoint store: an actor that keeps the trials' checkpoints in the search folder.

Nodes share nothing but Ray, so a trial sends its files, in chunks that a small object store can hold, to one actor
beside the driver. That actor's process loads this module, which has to stay small (`ray.tune` alone would make it
290 MB): it imports neither Ray nor any other module of ours.

    checkpoints/row-00003/attempt          the number of the newest attempt; older ones may neither read nor write
    checkpoints/row-00003/000002/...       the newest whole checkpoint
    checkpoints/row-00003/000003.partial/  one that is being received
"""

import os
import shutil
from pathlib import Path
from typing import Literal

CHUNK_BYTES = 1_000_000
"""The size of one message; with larger ones each trial worker grows by 70 MB."""
_PARTIAL = ".partial"


class OutdatedAttemptError(Exception):
    """A newer attempt at the row has started, or the row is finished: this attempt may not write."""


class CheckpointStore:
    """Keeps the newest checkpoint of each row, serves the shared files, and passes orders on to the trials.

    Its state is on disk, so it can be restarted at any time; a request to stop has to be repeated then, and what was
    sent before is no longer counted. `node` is the name of the node that sends or gets something; empty for the
    store's own, of which nothing is counted.
    """

    def __init__(self, folder: str, shared_folder: str = "") -> None:
        self._folder = Path(folder)
        self._shared_folder = Path(shared_folder)
        self._stop_asked = False
        self._has_other_nodes = False
        self._sent: dict[str, list[int]] = {}

    def begin_attempt(self, row: int) -> int:
        """Number a new attempt at a row; no earlier one may write from now on.

        The driver calls this in its own process: were it for the trial workers to ask for a number, one that was
        frozen and thought dead could wake, get a higher one, and shut the attempt that took its place.
        """
        home = self._home(row)
        home.mkdir(parents=True, exist_ok=True)
        attempt = self._attempt(row) + 1
        _write_durably(home / "attempt", str(attempt).encode())
        return attempt

    def newest(self, row: int, attempt: int) -> tuple[int, list[tuple[str, int]]] | None:
        """A row's newest checkpoint: its version, and the names and sizes of its files."""
        self._refuse_outdated(row, attempt)
        versions = self._versions(row)
        if not versions:
            return None
        folder = self._home(row) / _name(versions[-1])
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return versions[-1], [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]

    def read(self, row: int, attempt: int, version: int, name: str, offset: int, node: str = "") -> bytes:
        """The next chunk of a checkpoint's file."""
        self._refuse_outdated(row, attempt)
        chunk = chunk_of(self._home(row) / _name(version) / name, offset)
        self._count(node, 1, chunk)
        return chunk

    def read_shared(self, name: str, offset: int, node: str = "") -> bytes:
        """The next chunk of a shared file."""
        chunk = chunk_of(self._shared_folder / name, offset)
        self._count(node, 0, chunk)
        return chunk

    def sent(self) -> dict[str, list[int]]:
        """For each other node the bytes of shared files sent to it, of checkpoints sent to it, and received of it."""
        return self._sent

    def open(self, row: int, attempt: int) -> int:
        """Start to receive a checkpoint; its version."""
        self._refuse_outdated(row, attempt)
        for left_by_another in self._home(row).glob(f"*{_PARTIAL}"):
            shutil.rmtree(left_by_another)
        version = max(self._versions(row), default=0) + 1
        self._partial(row, version).mkdir()
        return version

    def write(
        self, row: int, attempt: int, version: int, name: str, offset: int, chunk: bytes, node: str = ""
    ) -> None:
        """Receive a chunk of a file; Ray may send the same one twice."""
        self._refuse_outdated(row, attempt)
        self._count(node, 2, chunk)
        path = self._partial(row, version) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(offset)
            file.write(chunk)

    def commit(self, row: int, attempt: int, version: int) -> None:
        """The checkpoint is whole: make it durable, then delete the one before it."""
        self._refuse_outdated(row, attempt)
        if version in self._versions(row):
            return  # Ray repeated the call
        partial = self._partial(row, version)
        for path in sorted(partial.rglob("*")):
            sync(path)
        sync(partial)
        partial.rename(self._home(row) / _name(version))
        sync(self._home(row))
        for older in self._versions(row)[:-1]:
            shutil.rmtree(self._home(row) / _name(older))

    def abandon(self, row: int, attempt: int, version: int) -> None:
        """A checkpoint could not be received whole: free its space. A newer attempt may be sending that version."""
        self._refuse_outdated(row, attempt)
        shutil.rmtree(self._partial(row, version), ignore_errors=True)

    def drop(self, row: int) -> int:
        """Delete a row's checkpoints and refuse new ones; the bytes that this freed."""
        home = self._home(row)
        if not home.is_dir():
            return 0
        freed = 0
        for path in home.iterdir():
            if path.is_dir():
                freed += sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
                shutil.rmtree(path)
        _write_durably(home / "attempt", str(self._attempt(row) + 1).encode())
        return freed

    def ask_to_stop(self) -> None:
        """Ask the trials to leave: they poll `order`."""
        self._stop_asked = True

    def order(self, row: int, attempt: int) -> Literal["stay", "leave", "end"]:
        """What a trial is to do: save and leave for the search, or end at once, since it has no say any more."""
        if attempt != self._attempt(row):
            return "end"
        return "leave" if self._stop_asked else "stay"

    def stop_asked(self) -> bool:
        return self._stop_asked

    def nodes_are(self, has_others: bool) -> None:
        """Whether the search has other nodes now than the store's."""
        self._has_other_nodes = has_others

    def has_other_nodes(self) -> bool:
        return self._has_other_nodes

    def _count(self, node: str, kind: int, chunk: bytes) -> None:
        if node:
            self._sent.setdefault(node, [0, 0, 0])[kind] += len(chunk)

    def _refuse_outdated(self, row: int, attempt: int) -> None:
        if attempt != self._attempt(row):
            raise OutdatedAttemptError(f"attempt {attempt} of row {row} is outdated")

    def _attempt(self, row: int) -> int:
        try:
            return int((self._home(row) / "attempt").read_bytes())
        except FileNotFoundError:
            return 0

    def _versions(self, row: int) -> list[int]:
        home = self._home(row)
        if not home.is_dir():
            return []
        return sorted(int(path.name) for path in home.iterdir() if path.name.isdigit())

    def _home(self, row: int) -> Path:
        return self._folder / f"row-{row:05d}"

    def _partial(self, row: int, version: int) -> Path:
        return self._home(row) / f"{_name(version)}{_PARTIAL}"


def chunk_of(path: Path, offset: int) -> bytes:
    """The bytes of a file from an offset on, as many as one message may hold."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)


def _name(version: int) -> str:
    return f"{version:06d}"


def _write_durably(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.write_bytes(content)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
