"""A trial's wait for room on its node: the search is told what it waits for, and may ask it to leave meanwhile.

In a cluster another node may have room, and a node that is leaving has none for good. Ray cannot be told which node
to start a trial on, and would choose this one again. So after a while, or at once where the node is leaving, the
trial gives its row back, for a new trial elsewhere, and keeps this place occupied until there is room: then it ends,
and Ray starts the next trial here.
"""

import time
from collections.abc import Callable

from tuning.cluster.node_folder import NodeFolder
from tuning.on_ray import messages
from tuning.on_ray.attempt import Attempt
from tuning.trial_room import TrialRoom

LOOK_S = 0.25
ASK_S = 0.5
"""How often it asks whether to leave."""
SILENT_S = 3.0
"""A shorter wait is not reported: the memory of the trial before is being freed."""
REPORT_S = 5.0
"""How often the figures are reported again."""
GIVE_BACK_S = 10.0
"""How long a trial waits before its row may go to another node, if there is one; how often that is asked then."""


class RoomWait:
    """The wait of one trial."""

    def __init__(
        self,
        room: TrialRoom,
        attempt: Attempt,
        node: NodeFolder | None,
        may_move: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._room = room
        self._attempt = attempt
        self._node = node
        self._may_move = may_move
        self._clock = clock
        self._sleep = sleep
        self._has_row = True
        self._ask_at, self._report_at = clock(), clock() + SILENT_S
        self._give_back_at = clock() + GIVE_BACK_S

    def is_over(self) -> bool:
        """Wait until there is room; whether the trial may start: it was not asked to leave, and still has its row."""
        while not self._has_to_leave():
            if self._node is not None and self._node.leaving() is not None:
                self._give_row_back()
            elif (missing := self._room.take()) is None:
                return self._has_row
            elif self._has_row and self._may_go_elsewhere():
                self._give_row_back()
            elif self._has_row and self._clock() >= self._report_at:
                self._attempt.report(messages.waiting(missing.in_words(self._attempt.node)))
                self._report_at = self._clock() + REPORT_S
            self._sleep(LOOK_S)
        return False

    def _has_to_leave(self) -> bool:
        if self._clock() < self._ask_at:
            return False
        self._ask_at = self._clock() + ASK_S
        if self._has_row:
            return self._attempt.order() != "stay"
        return self._attempt.search_leaves()  # its row's newest attempt is another one by now

    def _may_go_elsewhere(self) -> bool:
        if not self._may_move or self._clock() < self._give_back_at:
            return False
        self._give_back_at = self._clock() + GIVE_BACK_S
        return self._attempt.has_other_nodes()

    def _give_row_back(self) -> None:
        if self._has_row:
            self._attempt.report(messages.GIVES_ROW_BACK)
        self._has_row = False
