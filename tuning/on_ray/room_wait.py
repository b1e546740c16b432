"""A trial's wait for room on its node: the search is told what it waits for, and may ask it to leave meanwhile.

In a cluster another node may have room. Ray cannot be told which node to start a trial on, and would choose this one
again. So after a while the trial gives its row back, for a new trial elsewhere, and keeps this place occupied until
there is room: then it ends, and Ray starts the next trial here.
"""

import math
import time
from collections.abc import Callable

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
"""How long a trial waits before its row may go to another node."""


def wait_for_room(
    room: TrialRoom,
    attempt: Attempt,
    node: str,
    may_move: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until there is room; whether the trial may start: it was not asked to leave, and still has its row."""
    ask_at, report_at = clock(), clock() + SILENT_S
    give_back_at = clock() + GIVE_BACK_S if may_move else math.inf
    has_row = True
    while True:
        if clock() >= ask_at:
            if attempt.stop_asked():
                return False
            ask_at = clock() + ASK_S
        missing = room.take()
        if missing is None:
            return has_row
        if has_row and clock() >= give_back_at:
            attempt.report(messages.GIVES_ROW_BACK)
            has_row = False
        elif has_row and clock() >= report_at:
            attempt.report(messages.waiting(missing.in_words(node)))
            report_at = clock() + REPORT_S
        sleep(LOOK_S)
