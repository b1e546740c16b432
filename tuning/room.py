"""Room on a machine: whether one more trial may start there, and whether one has to leave because memory is short.

A part of the machine's memory, the reserve, is for everything else. A search is planned with all of it free. While
trials run it may shrink: a trial starts only where three quarters of it stay free beside its whole cap, so that a
few MB less than at the time of planning do not make a planned trial wait; under a half the youngest trial leaves in
order; under a quarter it is killed. What a trial frees by leaving is never enough for it to start again.

Where the operating system reports pressure, a trial leaves under three quarters already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.memory_pressure import MemoryReading
from tuning.promises import Promise

STARTS_ABOVE, LEAVES_BELOW, KILLED_BELOW = 0.75, 0.5, 0.25
"""Shares of the reserve."""
SHORT_S = 2.0
"""How long memory has to be short before a trial leaves, and before the next one does."""
VERY_SHORT_S = 1.0
"""The same under a quarter of the reserve."""
LEAVE_S = 5.0
"""How long a trial may take to save and leave; then it is killed."""
_KILL_S = 2.0
"""How long after that another trial may be asked: the worker of the first one hangs."""

Verdict = Literal["stay", "leave", "kill"]


def reserve_mb(total_mb: float, asked_mb: float | None = None) -> float:
    """What a machine keeps free for everything else: a tenth of its memory and at least 512 MB, unless asked for."""
    return max(512, total_mb // 10) if asked_mb is None else asked_mb


@dataclass(frozen=True)
class Shortfall:
    """Why a trial cannot start now."""

    cap_mb: float
    spare_mb: float
    """What has to stay free beside it."""
    free_mb: float
    """Available memory, less what running trials were promised and have not taken yet."""

    def in_words(self, node: str) -> str:
        return (
            f"waits for room on {node}: {self.cap_mb:.0f} MB and {self.spare_mb:.0f} to spare, "
            f"{max(self.free_mb, 0):.0f} are free"
        )


def shortfall(
    cap_mb: float, reserve_mb: float, reading: MemoryReading, promises: Sequence[Promise]
) -> Shortfall | None:
    """None if a trial of that cap may start now, beside the trials with these promises."""
    free_mb = reading.available_mb - sum(promise.untaken_mb for promise in promises)
    spare_mb = STARTS_ABOVE * reserve_mb
    return None if free_mb >= cap_mb + spare_mb else Shortfall(cap_mb, spare_mb, free_mb)


class Shortage:
    """Follows the readings of one machine for one of its trials, and decides when that trial has to leave."""

    def __init__(self, reserve_mb: float) -> None:
        self._reserve_mb = reserve_mb
        self._since: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether memory was short at the last reading."""
        return self._since is not None

    def decide(self, own: Promise, others: Sequence[Promise], reading: MemoryReading, now: float) -> Verdict:
        """What the trial has to do now. One trial leaves at a time; the wait for the next begins when it is gone."""
        very_short = reading.available_mb < KILLED_BELOW * self._reserve_mb
        share = STARTS_ABOVE if reading.pressure else LEAVES_BELOW
        if reading.available_mb >= share * self._reserve_mb:
            self._since = None
        elif self._since is None or any(_is_leaving(other, now) for other in others):
            self._since = now
        if own.leaving_since is not None:
            return "kill" if very_short or now - own.leaving_since >= LEAVE_S else "stay"
        if self._since is None or now - self._since < (VERY_SHORT_S if very_short else SHORT_S):
            return "stay"
        if any(other.started_at > own.started_at for other in others if other.leaving_since is None):
            return "stay"
        return "kill" if very_short else "leave"


def _is_leaving(promise: Promise, now: float) -> bool:
    return promise.leaving_since is not None and now - promise.leaving_since < LEAVE_S + _KILL_S
