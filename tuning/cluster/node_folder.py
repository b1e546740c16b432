"""The node folder: local files by which the processes of one node know each other.

Every process that a node starts finds it by an environment variable. Whoever runs the node asks its trials to leave
there, and each trial worker says what it is doing, in a file that it keeps locked while it lives.
"""

import contextlib
import json
import os
import time
from pathlib import Path

from tuning import held_file
from tuning.cluster.node_record import TrialOnNode
from tuning.held_file import HeldFile

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
        self._own = HeldFile(path / f"trial-{os.getpid()}-{id(self)}")
        """Of the trial that this process runs."""

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
        self._own.write(json.dumps(trial.to_json()).encode())

    def remove_trial(self) -> None:
        """Say that this process runs no trial now."""
        self._own.remove()

    def trials(self) -> tuple[TrialOnNode, ...]:
        """What the node's trials do now, by row; files of dead processes are removed."""
        found = [_read(path) for path in self.path.glob("trial-*")]
        return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.search, one.row)))


def _padded(why: str) -> bytes:
    return why.encode()[:_REASON_BYTES].ljust(_REASON_BYTES)


def _read(path: Path) -> TrialOnNode | None:
    """The trial in a file; None if who wrote it is dead."""
    for _ in range(_TRIES):  # it may be written right now
        content = held_file.read(path)
        if content is None:
            return None
        with contextlib.suppress(ValueError, TypeError):
            return TrialOnNode.from_json(json.loads(content))
        time.sleep(0.001)
    return None
