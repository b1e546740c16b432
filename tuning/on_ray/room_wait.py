"""A trial's wait for room on its node: the search is told what it waits for, and may ask it to leave meanwhile."""

import time
from collections.abc import Callable

from tuning.on_ray import messages
from tuning.on_ray.attempt import Attempt
from tuning.trial_room import TrialRoom

LOOK_S = 0.25
ASK_S = 1.0
"""How often it asks whether to leave."""
SILENT_S = 2.0
"""A shorter wait is not reported: the memory of the trial before is being freed."""
REPORT_S = 5.0
"""How often the figures are reported again."""


def wait_for_room(
    room: TrialRoom,
    attempt: Attempt,
    node: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until the trial may start; False if the search asked it to leave first."""
    ask_at, report_at = clock(), clock() + SILENT_S
    while True:
        if clock() >= ask_at:
            if attempt.stop_asked():
                return False
            ask_at = clock() + ASK_S
        missing = room.take()
        if missing is None:
            return True
        if clock() >= report_at:
            attempt.report(messages.waiting(missing.in_words(node)))
            report_at = clock() + REPORT_S
        sleep(LOOK_S)
