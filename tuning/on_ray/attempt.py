"""One attempt at a row, as its trial worker sees it: checkpoints to and from the store, messages to the driver."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune

from tuning.cluster.node_folder import NAME_VARIABLE
from tuning.errors import CheckpointTransferError
from tuning.on_ray import messages
from tuning.on_ray.checkpoint_store import CHUNK_BYTES
from tuning.on_ray.shared_files import SharedFiles
from tuning.trial import WORK


class NotWantedError(Exception):
    """What was being copied is not wanted any more."""


class Attempt:
    """An attempt, by the number that the driver gave it: of an outdated one the store refuses everything."""

    def __init__(self, store: Any, row: int, number: int, drivers_node: str) -> None:
        self._store = store
        self._row = row
        self._number = number
        self._is_drivers_node = ray.get_runtime_context().get_node_id() == drivers_node
        self.node = node_name()
        """The name of the node that it is on."""
        self._counted_for = "" if self._is_drivers_node else self.node

    def report(self, message: messages.Message) -> None:
        """Send a message to the driver."""
        tune.report(messages.as_result(message, self._number))

    def order(self) -> Literal["stay", "leave", "end"]:
        """What the search wants the trial to do: "end" if another attempt has taken its place."""
        order: Literal["stay", "leave", "end"] = self._call("order", self._row, self._number)
        return order

    def search_leaves(self) -> bool:
        """Whether the search leaves, also for a trial without a row."""
        return bool(self._call("stop_asked"))

    def has_other_nodes(self) -> bool:
        """Whether the search has other nodes than the driver's now."""
        return bool(self._call("has_other_nodes"))

    def fetch_checkpoint(self, scratch: Path, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Copy the row's newest checkpoint into `scratch`; without one, an empty work folder.

        Raises:
            NotWantedError: `is_wanted` said so.
        """
        (scratch / WORK).mkdir()
        newest = self._call("newest", self._row, self._number)
        if newest is None:
            return
        version, files = newest
        for name, size in files:
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while file.tell() < size:
                    offset = file.tell()
                    _go_on_if(is_wanted)
                    chunk = self._call("read", self._row, self._number, version, name, offset, self._counted_for)
                    if not chunk:
                        raise CheckpointTransferError(f"{name} of row {self._row} ends before its size")
                    file.write(chunk)

    def send_checkpoint(self, folder: Path, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Copy a checkpoint to the store; if that fails, the one before it stays.

        Raises:
            NotWantedError: `is_wanted` said so.
        """
        version = self._call("open", self._row, self._number)
        try:
            for path in sorted(each for each in folder.rglob("*") if each.is_file()):
                name = path.relative_to(folder).as_posix()
                for offset, chunk in _chunks(path):
                    _go_on_if(is_wanted)
                    self._call("write", self._row, self._number, version, name, offset, chunk, self._counted_for)
            self._call("commit", self._row, self._number, version)
        except Exception:
            with contextlib.suppress(ray.exceptions.RayTaskError):  # the first error is the one to tell of
                self._call("abandon", self._row, self._number, version)
            raise

    def shared_folder(self, files: SharedFiles, is_wanted: Callable[[], bool] = lambda: True) -> Path | None:
        """The folder of the shared files on this node; None if the search has none.

        Raises:
            NotWantedError: `is_wanted` said so.
        """
        if not files.files:
            return None
        if self._is_drivers_node:
            return Path(files.folder)

        def read(name: str, offset: int) -> bytes:
            _go_on_if(is_wanted)
            return bytes(self._call("read_shared", name, offset, self._counted_for))

        return files.fetch(read)

    def _call(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._store, method).remote(*arguments))


def _go_on_if(is_wanted: Callable[[], bool]) -> None:
    if not is_wanted():
        raise NotWantedError


def node_name() -> str:
    """The name of this node, as the driver shows it too."""
    return os.environ.get(NAME_VARIABLE) or socket.gethostname()


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offsets and contents; an empty file has one chunk, so that it arrives too."""
    with path.open("rb") as file:
        for offset in range(0, max(path.stat().st_size, 1), CHUNK_BYTES):
            yield offset, file.read(CHUNK_BYTES)
