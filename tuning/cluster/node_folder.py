"""The node folder: local files by which the processes of one node know each other.

Every process that a node starts finds it by an environment variable. Whoever runs the node asks its trials to leave
there, and each trial worker says what it is doing, in a file that it keeps locked while it lives.
"""

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

from tuning.cluster.node_record import TrialOnNode

VARIABLE = "TUNING_NODE_FOLDER"
NAME_VARIABLE = "TUNING_NODE_NAME"
"""The node's name, for its processes."""
RESERVE_VARIABLE = "TUNING_NODE_RESERVE_MB"
"""What its owner wants to be kept free there, for its processes."""
_LEAVE, _SPARE = "leave", "spare"
_REASON_BYTES = 500
_TRIES = 3


class NodeFolder:
    """The folder of a node that runs on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own: int | None = None
        """Descriptor of this process' trial file: open, and locked, until it has none."""
        self._own_path = path / f"trial-{os.getpid()}-{id(self)}"

    @classmethod
    def of_environment(cls) -> "NodeFolder | None":
        """The folder of the node that this process is part of; None outside of any."""
        path = os.environ.get(VARIABLE)
        return cls(Path(path)) if path else None

    @staticmethod
    def reserve_mb(asked_mb: int | None) -> int | None:
        """What is to be kept free on this node: what its owner or the caller asks for; None if nobody does."""
        owners = os.environ.get(RESERVE_VARIABLE)
        return max((int(each) for each in (owners, asked_mb) if each is not None), default=None)

    def create(self) -> None:
        """Make the folder, for this user alone, with nobody asked to leave."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self.call_off()
        (self.path / _SPARE).write_bytes(_padded(""))

    def ask_to_leave(self, why: str) -> None:
        """Ask every trial of the node to leave, and those that start to give their row back.

        The file for it is there already, since a full disk is one of the reasons.
        """
        spare, leave = self.path / _SPARE, self.path / _LEAVE
        with (spare if spare.exists() else leave).open("r+b") as file:
            file.write(_padded(why))
        if spare.exists():
            spare.replace(leave)

    def call_off(self) -> None:
        """Trials may stay, and start again."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / _LEAVE).replace(self.path / _SPARE)

    def leaving(self) -> str | None:
        """Why the node's trials are to leave; None if they may stay."""
        with contextlib.suppress(OSError):
            return (self.path / _LEAVE).read_bytes().decode(errors="replace").rstrip()
        return None

    def write_trial(self, trial: TrialOnNode) -> None:
        """Say what this process is doing; replaces what it said before.

        Raises:
            OSError: the folder cannot be written; the trial is none the worse for it.
        """
        if self._own is None:
            unlocked = self.path / f".new-{self._own_path.name}"
            self._own = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._own, fcntl.LOCK_EX)
            unlocked.rename(self._own_path)  # only now it can be seen, and taken for a dead process' file
        content = json.dumps(trial.to_json()).encode()
        os.pwrite(self._own, content, 0)
        os.truncate(self._own, len(content))

    def remove_trial(self) -> None:
        """Say that this process runs no trial now."""
        if self._own is not None:
            self._own_path.unlink(missing_ok=True)
            os.close(self._own)
        self._own = None

    def trials(self) -> tuple[TrialOnNode, ...]:
        """What the node's trials do now, by row; files of dead processes are removed."""
        found = [_read(path) for path in self.path.glob("trial-*")]
        return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.search, one.row)))


def _padded(why: str) -> bytes:
    return why.encode()[:_REASON_BYTES].ljust(_REASON_BYTES)


def _read(path: Path) -> TrialOnNode | None:
    """The trial in a file; None if who wrote it is dead."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            for _ in range(_TRIES):  # it may be written right now
                file.seek(0)
                with contextlib.suppress(ValueError, TypeError):
                    return TrialOnNode.from_json(json.loads(file.read()))
                time.sleep(0.001)
        else:
            path.unlink(missing_ok=True)
    return None
