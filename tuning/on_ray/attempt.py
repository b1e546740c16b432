"""One attempt at a row, as its trial worker sees it: checkpoints to and from the store, messages to the driver."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tuning.errors import CheckpointTransferError
from tuning.on_ray import messages
from tuning.on_ray.checkpoint_store import CHUNK_BYTES
from tuning.on_ray.shared_files import SharedFiles
from tuning.trial import WORK


class Attempt:
    """A new attempt; from here on the store refuses checkpoints of earlier ones."""

    def __init__(self, store: Any, row: int) -> None:
        self._store = store
        self._row = row
        self._number: int = self._call("begin_attempt", row)

    def report(self, message: messages.Message) -> None:
        """Send a message to the driver."""
        tune.report(messages.as_result(message, self._number))

    def stop_asked(self) -> bool:
        """Whether the search wants its trials to leave."""
        return bool(self._call("stop_asked"))

    def fetch_checkpoint(self, scratch: Path) -> None:
        """Copy the row's newest checkpoint into `scratch`; without one, an empty work folder."""
        (scratch / WORK).mkdir()
        newest = self._call("newest", self._row)
        if newest is None:
            return
        version, files = newest
        for name, size in files:
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while file.tell() < size:
                    chunk = self._call("read", self._row, version, name, file.tell())
                    if not chunk:
                        raise CheckpointTransferError(f"{name} of row {self._row} ends before its size")
                    file.write(chunk)

    def send_checkpoint(self, folder: Path) -> None:
        """Copy a checkpoint to the store; if that fails, the one before it stays."""
        version = self._call("open", self._row, self._number)
        try:
            for path in sorted(each for each in folder.rglob("*") if each.is_file()):
                name = path.relative_to(folder).as_posix()
                for offset, chunk in _chunks(path):
                    self._call("write", self._row, self._number, version, name, offset, chunk)
            self._call("commit", self._row, self._number, version)
        except Exception:
            self._call("abandon", self._row, version)
            raise

    def shared_folder(self, files: SharedFiles, drivers_node: str) -> Path | None:
        """The folder of the shared files on this node; None if the search has none."""
        if not files.files:
            return None
        if ray.get_runtime_context().get_node_id() == drivers_node:
            return Path(files.folder)
        return files.fetch(lambda name, offset: bytes(self._call("read_shared", name, offset)))

    def _call(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._store, method).remote(*arguments))


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offsets and contents; an empty file has one chunk, so that it arrives too."""
    with path.open("rb") as file:
        for offset in range(0, max(path.stat().st_size, 1), CHUNK_BYTES):
            yield offset, file.read(CHUNK_BYTES)
