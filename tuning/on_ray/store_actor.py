"""The checkpoint store's actor, as the driver sees it."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuning.errors import LedgerError
from tuning.on_ray.checkpoint_store import CheckpointStore
from tuning.traffic import Sent

SILENT_S = 30.0
"""How long the store may take to answer."""
SILENT_LEAVING_S = 1.0
"""The same while the user waits for the search to leave."""
_POLL_S = 0.2


class StoreActor:
    """Starts the store on the driver's node, whose disk it writes to; Ray restarts it if it is killed."""

    def __init__(
        self,
        folder: Path,
        shared_folder: str,
        node: str,
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._should_stop = should_stop
        self._clock = clock
        self._on_disk = CheckpointStore(str(folder))
        self.handle: Any = (
            ray.remote(CheckpointStore)
            .options(
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote(str(folder), shared_folder)
        )
        """What trial workers call."""

    def begin_attempt(self, row: int) -> int:
        """Number a new attempt at a row. Done here, on the same disk, so that it waits for no other process.

        Raises:
            LedgerError: the disk is full, or cannot be written.
        """
        try:
            return self._on_disk.begin_attempt(row)
        except OSError as error:
            words = f"cannot write {error.filename or 'the search folder'}: {error.strerror}"
            raise LedgerError(f"{words}; the search can go on later") from error

    def ask_to_stop(self) -> None:
        """Ask the trials to leave; to be repeated, since a store that was restarted has forgotten it."""
        self.handle.ask_to_stop.remote()

    def drop(self, row: int) -> int | None:
        """Delete a row's checkpoint; the bytes that this freed, or None if the store does not answer in time."""
        freed: int | None = self._answer(self.handle.drop.remote(row), SILENT_S)
        return freed

    def nodes_are(self, has_others: bool) -> None:
        """Whether the search has other nodes than this one; to be repeated, too."""
        self.handle.nodes_are.remote(has_others)

    def sent(self) -> Mapping[str, Sent]:
        """What was sent to other nodes, and by them; nothing if the store does not answer in time."""
        answer: Mapping[str, Sequence[int]] | None = self._answer(self.handle.sent.remote(), SILENT_LEAVING_S)
        return {node: Sent(*amounts) for node, amounts in (answer or {}).items()}

    def _answer(self, asked: Any, patience_s: float) -> Any:
        asked_at = self._clock()
        while not ray.wait([asked], timeout=_POLL_S)[0]:
            if self._clock() - asked_at >= (SILENT_LEAVING_S if self._should_stop() else patience_s):
                return None
        return ray.get(asked)
