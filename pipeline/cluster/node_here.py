"""The node that this user's laptop is now: one at a time, of one cluster, whichever workspace it belongs to."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import MachineUnfitError
from pipeline.workspace import locks
from pipeline.workspace.durable_files import write_json, writing
from sequencer_models.cache_folder import cache_folder

_LOCK_S = 0.5


@dataclass(frozen=True)
class NodeHere:
    """What this laptop is in a cluster."""

    kind: Literal["head", "member"]
    of: str
    """The workspace of a head; the address that a member joined."""
    pid: int

    def in_words(self) -> str:
        if self.kind == "head":
            return (
                f"this laptop runs the cluster of the workspace {self.of} already (process {self.pid}); "
                "`seqpipe cluster down` there ends it"
            )
        return f"this laptop is in the cluster of {self.of} already (process {self.pid}); Ctrl-C there leaves it"


def find() -> NodeHere | None:
    """What this laptop is now; None if it is in no cluster."""
    return _read() if locks.is_held(_lock()) else None


@contextmanager
def only_one(kind: Literal["head", "member"], of: str) -> Iterator[None]:
    """Within this, this process keeps the node of this laptop.

    Raises:
        MachineUnfitError: another process does.
    """
    path = _path()
    with ExitStack() as stack:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            is_free = stack.enter_context(locks.if_free(_lock(), _LOCK_S))
        if not is_free:
            other = _read()
            raise MachineUnfitError(
                other.in_words() if other else "this laptop is in a cluster already; leave it first"
            )
        write_json(path, asdict(NodeHere(kind, of, os.getpid())))
        stack.callback(path.unlink, missing_ok=True)
        yield


def _path() -> Path:
    return cache_folder() / "cluster-node.json"


def _lock() -> Path:
    return _path().with_suffix(".lock")


def _read() -> NodeHere | None:
    try:
        return NodeHere(**json.loads(_path().read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
