"""The checkpoint store's actor, as the driver sees it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuning.on_ray.checkpoint_store import CheckpointStore

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

    def ask_to_stop(self) -> None:
        """Ask the trials to leave; to be repeated, since a store that was restarted has forgotten it."""
        self.handle.ask_to_stop.remote()

    def drop(self, row: int) -> int | None:
        """Delete a row's checkpoint; the bytes that this freed, or None if the store does not answer in time."""
        answer, asked_at = self.handle.drop.remote(row), self._clock()
        while not ray.wait([answer], timeout=_POLL_S)[0]:
            if self._clock() - asked_at >= (SILENT_LEAVING_S if self._should_stop() else SILENT_S):
                return None
        return int(ray.get(answer))
