"""Whether a node that has joined may still take work: its disk, its clock, and the code that it runs."""

from tuning.cluster.comparison import CLOCKS_TOO_FAR_S, LEAST_DISK_MB


def unfit_because(disk_free_mb: float, clock_off_s: float, code_is_the_same: bool) -> str | None:
    """Why a node takes no work now, in one line with what to do; None if it may take some.

    The head's clock is `clock_off_s` ahead.
    """
    if disk_free_mb < LEAST_DISK_MB:
        return f"its disk is full, with {disk_free_mb:.0f} MB left; free {LEAST_DISK_MB} MB"
    if abs(clock_off_s) > CLOCKS_TOO_FAR_S:
        way = "behind" if clock_off_s > 0 else "ahead of"
        return f"its clock is {_duration(abs(clock_off_s))} {way} the head's; set it right"
    if not code_is_the_same:
        return "its seqpipe has changed since it joined; leave, and join again"
    return None


class HeadClock:
    """How far the head's clock is ahead, from what its record says again and again."""

    def __init__(self) -> None:
        self._last = 0.0
        self.off_s = 0.0

    def read(self, head_says: float, now: float) -> None:
        """A record was read now; one that was read before says nothing, since its head may be busy or asleep."""
        if head_says != self._last:
            self._last, self.off_s = head_says, head_says - now


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
