"""How long a remote call may stay on its node: until home asks it to leave, the node leaves, or memory is short."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import ray

from tuning.capped.run_capped import tree_memory_mb
from tuning.cluster.node_folder import NodeFolder
from tuning.trial_room import TrialRoom

ASK_S = 0.5
"""How often home is asked."""
LOOK_S = 0.25
"""How often it looks at its node: whether that is leaving, and its memory."""
MEASURE_S = 1.0
"""How often it measures what the work holds, which takes some milliseconds."""
SILENT_S, REPORT_S = 3.0, 30.0
"""A shorter wait for room is not reported; how often a longer one is."""
NODE_LEAVES, NO_ROOM = "the node leaves", "memory is short"


class Stay:
    """Watched by two threads while the context lasts."""

    def __init__(self, home: Any, room: TrialRoom, node: NodeFolder | None) -> None:
        self._home = home
        self._room = room
        self._node = node
        self._asked = ""
        self._node_leaves = self._is_short = False
        self._over = threading.Event()
        self._kill: Callable[[str], None] | None = None
        self.pid: int | None = None
        """Of the capped process, once the function runs."""
        self.held_mb = 0.0

    def __enter__(self) -> Self:
        for name, watch in (("stop", self._watch_home), ("room", self._watch_node)):
            threading.Thread(target=watch, name=name, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def on_start(self, kill: Callable[[str], None]) -> None:
        """Take what ends the capped process at once."""
        self._kill = kill

    def why_leave(self) -> str | None:
        """Why the work is to leave: home's own word, or one of this module's."""
        return self._asked or (NODE_LEAVES if self._node_leaves else NO_ROOM if self._is_short else None)

    @property
    def is_for_room(self) -> bool:
        """Whether it left, or was killed, because memory is short here, and for nothing else."""
        return not self._asked and not self._node_leaves and (self._is_short or self._room.was_short)

    def wait_for_room(self, report: Callable[[str], None], node: str) -> bool:
        """Wait until there is room; False if the work has to leave first."""
        report_at = time.monotonic() + SILENT_S
        while (missing := self._room.take()) is not None:
            if self.why_leave() is not None:
                return False
            if time.monotonic() >= report_at:
                report(missing.in_words(node))
                report_at = time.monotonic() + REPORT_S
            time.sleep(LOOK_S)
        return self.why_leave() is None

    def _watch_home(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):  # home is gone, and this process is about to be
            while not self._over.is_set():
                self._asked = self._asked or ray.get(self._home.stop_reason.remote())
                self._over.wait(ASK_S)

    def _watch_node(self) -> None:
        measure_at = 0.0
        while not self._over.wait(LOOK_S):
            self._node_leaves = self._node_leaves or (self._node is not None and self._node.leaving() is not None)
            if self.pid is None:
                continue
            if time.monotonic() >= measure_at:
                self.held_mb, measure_at = tree_memory_mb(self.pid), time.monotonic() + MEASURE_S
            verdict = self._room.check(self.held_mb)
            if verdict == "stay":
                continue
            self._is_short = True
            if verdict == "kill" and self._kill is not None:
                self._kill(NO_ROOM)
