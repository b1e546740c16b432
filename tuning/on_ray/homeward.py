"""What a remote worker sends home in the background: messages in one thread, files in another.

Neither waits for the other, so a large checkpoint on a slow line holds up no message. Where the line is slower than
the work, only the newest of what waits is sent.
"""

import contextlib
import pickle
import shutil
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import ray

from tuning.on_ray.checkpoint_store import CHUNK_BYTES
from tuning.remote_work import Said, plain_files

Stamp = tuple[int, int, int]
"""Tells one file from another that took its name: inode, time of change, size."""


_END = Said(b"")


def stamp_of(path: Path) -> Stamp:
    """That of a file now."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def newest(waiting: Sequence[Said]) -> list[bytes]:
    """What is sent of the messages that wait: all, but of passing ones in a row the last."""
    pairs = pairwise([*waiting, _END])
    return [said.body for said, following in pairs if not (said.passing and following.passing)]


class MessagesHome:
    """Sends messages in order; leaving the context waits until they are home."""

    def __init__(self, home: Any) -> None:
        self._home = home
        self._changed = threading.Condition()
        self._waiting: list[Said] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="messages", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join()

    def send(self, said: Said) -> None:
        """Send a message; returns at once."""
        with self._changed:
            self._waiting.append(said)
            self._changed.notify()

    def send_object(self, message: object, *, passing: bool = False) -> None:
        """Send one of this worker's own."""
        self.send(Said(pickle.dumps(message), passing))

    def _work(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # home is gone, and this process is about to be
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_over or self._waiting)
                    waiting, self._waiting = self._waiting, []
                    if not waiting:
                        return
                ray.get(self._home.post.remote(newest(waiting)))


class SnapshotsHome:
    """Sends snapshots of a folder, of each the files that home has not got.

    `known` are the stamps of the files that home has.
    """

    def __init__(self, home: Any, known: dict[str, Stamp]) -> None:
        self.error: OSError | None = None
        """Why files could not be kept at home: its disk is full, or its folder gone."""
        self._home = home
        self._known = known
        self._changed = threading.Condition()
        self._next: Path | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)
        self._thread.start()

    def offer(self, snapshot: Path) -> None:
        """Send a snapshot, and delete it; it replaces one that still waits."""
        with self._changed:
            replaced, self._next = self._next, snapshot
            self._changed.notify()
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)

    def close(self) -> None:
        """Wait until the last one is home."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or self._next)
                snapshot, self._next = self._next, None
            if snapshot is None:
                return
            try:
                self._send(snapshot)
            except OSError as error:
                self.error = error
            except ray.exceptions.RayTaskError as error:
                self.error = error.cause if isinstance(error.cause, OSError) else OSError(str(error.cause))
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.get(self._home.abandon.remote())
            except ray.exceptions.RayError as error:  # home is gone
                self.error = OSError(str(error))
            finally:
                shutil.rmtree(snapshot, ignore_errors=True)
            if self.error is not None:
                return

    def _send(self, snapshot: Path) -> None:
        files = {path.name: (path, stamp_of(path)) for path in plain_files(snapshot)}
        changed = [name for name, (_, stamp) in files.items() if self._known.get(name) != stamp]
        for name in changed:
            path, (_, _, size) = files[name]
            with path.open("rb") as file:  # one that is appended to meanwhile is read up to the size that it had
                for offset in range(0, max(size, 1), CHUNK_BYTES):
                    ray.get(self._home.write.remote(name, offset, file.read(min(CHUNK_BYTES, size - offset))))
        gone = sorted(self._known.keys() - files.keys())
        ray.get(self._home.take_in.remote(changed, gone))
        self._known = {name: stamp for name, (_, stamp) in files.items()}
