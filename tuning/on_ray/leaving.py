"""What makes a running trial leave: the search, its node, or a shortage of memory. Watched by two threads."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Self

import ray

from tuning.capped.run_capped import tree_memory_mb
from tuning.cluster.node_folder import NodeFolder
from tuning.on_ray.attempt import Attempt
from tuning.room import LEAVE_S
from tuning.trial_room import TrialRoom

ASK_S = 0.5
"""How often a trial asks whether to leave."""
LOOK_S = 0.25
"""How often it looks at its node: whether that is leaving, and its memory."""
MEASURE_S = 1.0
"""How often it measures what it holds itself, which takes some milliseconds."""
SEARCH_LEAVES, NODE_LEAVES, NO_ROOM = "the search leaves", "the node leaves", "memory is short"
OUTDATED, SEARCH_IS_GONE = "another attempt has taken its place", "its search is gone"


class Leaving:
    """Watches while the context lasts; the trial worker's process goes on with another trial afterwards."""

    def __init__(self, attempt: Attempt, room: TrialRoom, node: NodeFolder | None) -> None:
        self._attempt = attempt
        self._room = room
        self._node = node
        self._search_leaves, self._is_short, self._over = (threading.Event() for _ in range(3))
        self._node_leaves: str | None = None
        """Why the node leaves."""
        self._kill: Callable[[str], None] | None = None
        self.pid: int | None = None
        """The child's, once its objective runs."""

    def __enter__(self) -> Self:
        for name, watch in (("stop", self._watch_search), ("room", self._watch_node)):
            threading.Thread(target=watch, name=name, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def on_start(self, kill: Callable[[str], None]) -> None:
        """Take what ends the child at once."""
        self._kill = kill

    def should_stop(self) -> str | None:
        """Why the child is to leave."""
        if self._search_leaves.is_set():
            return SEARCH_LEAVES
        return NODE_LEAVES if self._node_leaves is not None else NO_ROOM if self._is_short.is_set() else None

    def may_stay(self) -> bool:
        return self.should_stop() is None

    def left_for_another_node(self) -> str | None:
        """In words, if the trial left or was killed for its node's sake and not the search's: its row goes on."""
        node = self._attempt.node
        if self._search_leaves.is_set():
            return None
        if self._node_leaves is not None:
            return f"left {node} ({self._node_leaves})"
        if self._is_short.is_set() or self._room.was_short:
            return f"left {node}, which is short of memory ({self._room.free_mb:.0f} MB free)"
        return None

    def _watch_search(self) -> None:
        reason = SEARCH_LEAVES
        try:
            while (order := self._attempt.order()) == "stay":
                if self._over.wait(ASK_S):
                    return
            if order == "end":
                reason = OUTDATED
        except ray.exceptions.RayError:  # nobody is left to hear of the trial
            reason = SEARCH_IS_GONE
        self._search_leaves.set()
        if reason != SEARCH_LEAVES and not self._over.is_set():
            self._end_child(reason)

    def _watch_node(self) -> None:
        held_mb, measure_at, kill_at = 0.0, 0.0, 0.0
        while not self._over.wait(LOOK_S):
            now = time.monotonic()
            if self._node_leaves is None and self._node is not None:
                self._node_leaves, kill_at = self._node.leaving(), now + LEAVE_S
            if self._node_leaves is not None and now >= kill_at:
                self._end_child(NODE_LEAVES)
            if self.pid is not None and now >= measure_at:
                held_mb, measure_at = tree_memory_mb(self.pid), now + MEASURE_S
            verdict = self._room.check(held_mb)
            if verdict != "stay":
                self._is_short.set()
            if verdict == "kill":
                self._end_child(NO_ROOM)

    def _end_child(self, reason: str) -> None:
        if self._kill is not None:
            with contextlib.suppress(OSError):
                self._kill(reason)
