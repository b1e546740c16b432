"""Whether a node may take work: its disk, its clock, and the code that it runs."""

LEAST_DISK_MB = 500
"""A trial's scratch folder and Ray's logs; Ray itself refuses work on a disk that is 95 % full."""
CLOCK_SAID_S = 2.0
CLOCK_REFUSED_S = 300.0
"""No clock of a laptop that asks a time server is so wrong; records would be in the wrong order."""


def unfit_because(disk_free_mb: int, clock_off_s: float, code_is_the_same: bool) -> str | None:
    """Why a node takes no work now, in one line with what to do; None if it may."""
    if disk_free_mb < LEAST_DISK_MB:
        return f"its disk has {disk_free_mb} MB left; free {LEAST_DISK_MB - disk_free_mb} MB more"
    if abs(clock_off_s) > CLOCK_REFUSED_S:
        behind = "behind" if clock_off_s > 0 else "ahead"
        return f"its clock is {_duration(abs(clock_off_s))} {behind} the head's; set it right"
    if not code_is_the_same:
        return "its seqpipe has changed since it joined; leave, and join again"
    return None


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
