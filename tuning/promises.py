"""Promises: the memory that running trials may still take on this machine, known to all searches of this user.

Within a control group with a limit the machine is the group: its trials have a folder of their own, since they run
short of memory when nobody else does.

Each running trial has a file in a folder of the user's, which its trial worker keeps locked: the operating system
releases the lock if the worker dies, and a file that nobody has locked is deleted. All reading and writing is done
under one more lock, that of the folder.
"""

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tuning import held_file
from tuning.held_file import HeldFile

_LOCK = "lock"
_LOCK_S = 1.0
"""How long to try for the folder's lock, which is held for milliseconds: its holder may have been suspended."""


@dataclass(frozen=True)
class Promise:
    """What a running trial was promised, and what it has taken of that."""

    started_at: float
    """By `time.monotonic`, which all processes of a machine share."""
    cap_mb: float
    held_mb: float = 0.0
    leaving_since: float | None = None
    """When it was asked to leave for want of memory, or killed."""

    @property
    def untaken_mb(self) -> float:
        return max(self.cap_mb - self.held_mb, 0.0)


class Promises:
    """The promises of this machine, read and changed by one trial; its own is not among the others'."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = HeldFile(folder / f"trial-{os.getpid()}-{id(self)}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Around everything else.

        Raises:
            OSError: the folder cannot be used.
        """
        _make_private(self._folder)
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def others(self) -> list[Promise]:
        """What other trials were promised; files of dead ones are deleted."""
        promises = [_read(path) for path in self._folder.glob("trial-*") if path != self._own.path]
        return [promise for promise in promises if promise is not None]

    def write(self, promise: Promise) -> None:
        """Make or change the trial's own promise."""
        self._own.write(json.dumps(asdict(promise)).encode())

    def withdraw(self) -> None:
        """Delete the trial's own promise."""
        self._own.remove()


def shared_folder(total_mb: float) -> Path:
    """The folder that all searches of this user share on a machine, or in a control group, of that much memory."""
    return Path(tempfile.gettempdir()) / f"tuning-promises-{os.getuid()}-{total_mb:.0f}-mb"


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone")


def _lock(descriptor: int) -> None:
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.005)
        else:
            return


def _read(path: Path) -> Promise | None:
    content = held_file.read(path)
    if content is not None:
        with contextlib.suppress(ValueError, TypeError):
            return Promise(**json.loads(content))
    return None
