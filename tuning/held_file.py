"""A file that its process keeps locked while it lives: the operating system releases the lock of one that dies.

So whoever reads it knows whether its writer is still there; the file of a dead process is removed by its next reader.
"""

import contextlib
import fcntl
import os
from pathlib import Path


class HeldFile:
    """The file of this process; it is there from the first `write` to `remove`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def write(self, content: bytes) -> None:
        """Replace what it holds; a reader may see a part of that.

        Raises:
            OSError: it cannot be written.
        """
        if self._descriptor is None:
            unlocked = self.path.with_name(f".new-{self.path.name}")
            self._descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            unlocked.rename(self.path)  # only now it can be seen, and taken for a dead process' file
        os.pwrite(self._descriptor, content, 0)
        os.truncate(self._descriptor, len(content))

    def remove(self) -> None:
        """Delete it, if it is there."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
        self._descriptor = None


def read(path: Path) -> bytes | None:
    """What a living process has written; None if it is dead, and then the file is deleted."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return None
