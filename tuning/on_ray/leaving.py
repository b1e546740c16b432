"""What makes a running trial leave: the search asks it to, or its node is short of memory. Watched by two threads."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Self

import ray

from tuning.capped.run_capped import tree_memory_mb
from tuning.on_ray.attempt import Attempt
from tuning.trial_room import TrialRoom

ASK_S = 0.5
"""How often a trial asks whether to leave."""
LOOK_S = 0.25
"""How often it looks at the memory of its node."""
MEASURE_S = 1.0
"""How often it measures what it holds itself, which takes some milliseconds."""
SEARCH_LEAVES, NO_ROOM = "the search leaves", "memory is short"


class Leaving:
    """Watches while the context lasts; the trial worker's process goes on with another trial afterwards."""

    def __init__(self, attempt: Attempt, room: TrialRoom) -> None:
        self._attempt = attempt
        self._room = room
        self._search_leaves, self._is_short, self._over = (threading.Event() for _ in range(3))
        self._kill: Callable[[str], None] | None = None
        self.pid: int | None = None
        """The child's, once its objective runs."""

    def __enter__(self) -> Self:
        for name, watch in (("stop", self._watch_search), ("room", self._watch_room)):
            threading.Thread(target=watch, name=name, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def on_start(self, kill: Callable[[str], None]) -> None:
        """Take what ends the child at once."""
        self._kill = kill

    def should_stop(self) -> str | None:
        """Why the child is to leave."""
        return SEARCH_LEAVES if self._search_leaves.is_set() else NO_ROOM if self._is_short.is_set() else None

    @property
    def is_for_room(self) -> bool:
        """Whether the trial left, or was killed, because its node is short of memory, and not for the search."""
        return not self._search_leaves.is_set() and (self._is_short.is_set() or self._room.was_short)

    def _watch_search(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # the search has ended, and this process is about to
            while not self._attempt.stop_asked():
                if self._over.wait(ASK_S):
                    return
            self._search_leaves.set()

    def _watch_room(self) -> None:
        held_mb, measure_at = 0.0, 0.0
        while not self._over.wait(LOOK_S):
            if self.pid is not None and time.monotonic() >= measure_at:
                held_mb, measure_at = tree_memory_mb(self.pid), time.monotonic() + MEASURE_S
            verdict = self._room.check(held_mb)
            if verdict == "stay":
                continue
            self._is_short.set()
            if verdict == "kill" and self._kill is not None:
                self._kill(NO_ROOM)
