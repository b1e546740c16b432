"""Whether the head that this machine's driver depends on still lives.

A driver whose head is gone is not told: its calls wait, and after 60 s Ray ends the process. So it has to look
itself, and leave first. The head is on the driver's machine, so a connection is made at once or not at all.
"""

import time
from collections.abc import Callable

from tuning.on_ray.probe import Nothing, listens

GONE_S = 0.5
"""How long nothing may listen before the head counts as gone."""


class HeadWatch:
    """`is_alive` is to be called some times a second; it takes as long as a connection does."""

    def __init__(
        self,
        address: str,
        listens: Callable[[str], Nothing | None] = listens,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._listens = listens
        self._clock = clock
        self._silent_since: float | None = None

    def is_alive(self) -> bool:
        """False once nothing has listened at the head's address for half a second."""
        if self._listens(self._address) is None:
            self._silent_since = None
            return True
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        return now - self._silent_since < GONE_S
