"""The address that a head has bound: whether this laptop still has it, and which one its interface has instead."""

import ipaddress
import time
from collections.abc import Callable, Sequence

from tuning.cluster import addresses
from tuning.cluster.addresses import InterfaceAddress, is_of_one_link

SETTLED_S = 10.0
"""How long another address has to be there in its place: Wi-Fi that comes back may have none, or an interim one."""
_LOOK_S = 2.0


class BoundAddress:
    """Follows one address of this laptop."""

    def __init__(
        self,
        host: str,
        read: Callable[[], Sequence[InterfaceAddress]] = lambda: addresses.of_this_machine(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        self._read = read
        self._clock = clock
        self._sleep = sleep
        self._interface = next((one.interface for one in read() if one.address == host), "")
        self._look_at = 0.0
        self._other: tuple[str, float] | None = None
        """What the interface has instead, and since when."""
        self._has_moved = False

    def is_here(self) -> bool:
        """Whether this laptop has it now."""
        return any(one.address == self.host for one in self._read())

    def has_moved(self) -> bool:
        """Whether its interface has had another one in its place for a while; to be asked as often as one likes."""
        now = self._clock()
        if now < self._look_at or self._has_moved:
            return self._has_moved
        self._look_at = now + _LOOK_S
        other = self.now()
        if other in (None, self.host):
            self._other = None
        elif self._other is None or self._other[0] != other:
            self._other = str(other), now
        self._has_moved = self._other is not None and now - self._other[1] >= SETTLED_S
        return self._has_moved

    def now(self) -> str | None:
        """The address, if it is here; else the one that its interface has instead, of the same kind."""
        found = self._read()
        if any(one.address == self.host for one in found):
            return self.host
        kind = ipaddress.ip_address(self.host).version
        others = (
            one.address for one in found if one.interface == self._interface and not is_of_one_link(one.address)
        )
        return next((other for other in others if ipaddress.ip_address(other).version == kind), None)

    def wait(self, should_stop: Callable[[], bool]) -> str | None:
        """Wait until the interface has an address, the same or another; None if asked to stop meanwhile."""
        while not should_stop():
            if (address := self.now()) is not None:
                return address
            self._sleep(_LOOK_S / 10)
        return None
