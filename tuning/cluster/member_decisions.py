"""What a member does next, decided from what it has observed: start its node, end it, wait, or leave.

A short silence of the head means nothing. What ends a node is that its processes have ended, that the head counts it
as dead, that the head is another one, that nothing listens at the head's address although its machine answers, or
that the head has been silent for so long that it must have given this node up.
"""

from dataclasses import dataclass
from enum import Enum

from tuning.cluster.orders import Order

RETRY_S = (1.0, 2.0, 3.0)
"""Between attempts to join; the last one repeats."""
REFUSED_S = 3.0
"""How long a head may refuse connections before it counts as ended."""
SILENT_S = 75.0
"""How long a head may be silent: it gives a node up after 60 s. Ray's processes here would hang on."""
LEAVE_S = 30.0
"""How long trials may take to save and to send their checkpoint. They stop within seconds; a slow link sends on."""


class HeadState(Enum):
    """How the head looks from here."""

    ANSWERS = "answers"
    SILENT = "does not answer"
    REFUSES = "has nothing listening"
    OTHER = "is not the same one any more"
    LOCKED = "does not accept the join code"


@dataclass(frozen=True)
class Seen:
    """What a member observes, some times a second."""

    now: float
    head: HeadState
    runs: bool = False
    """Whether the processes of this node live."""
    counted_dead: bool = False
    """Whether the head has given this node up."""
    address_changed: bool = False
    """Whether this laptop has got another address since the node started."""
    order: Order | None = None
    stop_asked: bool = False
    trials: int = 0
    unfit: str | None = None


@dataclass(frozen=True)
class Begin:
    """Start the node."""


@dataclass(frozen=True)
class End:
    """End the node's processes: it is lost. It is joined again after a while."""

    why: str


@dataclass(frozen=True)
class Wait:
    """The head cannot be joined now; try again after so long."""

    why: str
    retry_s: float


@dataclass(frozen=True)
class RefuseWork:
    """Ask the trials to leave, and let none start; the node stays."""

    why: str


@dataclass(frozen=True)
class TakeWork:
    """Trials may start again."""


@dataclass(frozen=True)
class SendTrialsAway:
    """The node leaves: ask its trials to go first."""

    why: str


@dataclass(frozen=True)
class Finish:
    """End everything, for good."""

    why: str
    locked_out: bool = False


Step = Begin | End | Wait | RefuseWork | TakeWork | SendTrialsAway | Finish

_ORDERED = {Order.LEAVE: "asked to leave from another laptop", Order.DOWN: "the cluster was taken down"}


class Member:
    """Decides. `next` is called with each observation; the step that it returns is carried out before the next."""

    def __init__(self) -> None:
        self._is_up = False
        self._attempts = 0
        self._next_attempt = 0.0
        self._refused_since: float | None = None
        self._silent_since: float | None = None
        self._unfit: str | None = None
        self._leaving: tuple[str, float] | None = None
        """Why it leaves, and until when its trials may take."""

    def next(self, seen: Seen) -> Step | None:
        """What to do now; None if nothing."""
        if self._leaving is not None:
            return self._while_leaving(seen)
        why = "asked to leave" if seen.stop_asked else _ORDERED[seen.order] if seen.order is not None else None
        if not self._is_up:
            return Finish(why) if why else self._while_away(seen)
        if why:
            self._leaving = why, seen.now + LEAVE_S
            return SendTrialsAway(why) if seen.runs and seen.trials else Finish(why)
        if (lost := self._lost(seen)) is not None:
            self._is_up, self._unfit, self._attempts, self._next_attempt = False, None, 0, seen.now
            return End(lost)
        return self._change_of_fitness(seen)

    def begun(self, now: float, failed: str | None = None) -> Wait | None:
        """What came of `Begin`: None, or why it failed."""
        self._refused_since = self._silent_since = None
        if failed is None:
            self._is_up, self._attempts = True, 0
            return None
        return self._wait(failed, now)

    def _while_leaving(self, seen: Seen) -> Step | None:
        assert self._leaving is not None
        why, until = self._leaving
        return Finish(why) if not seen.trials or not seen.runs or seen.now >= until else None

    def _while_away(self, seen: Seen) -> Step | None:
        if seen.now < self._next_attempt:
            return None
        match seen.head:
            case HeadState.ANSWERS | HeadState.OTHER:
                return Begin()
            case HeadState.LOCKED:
                return Finish("the head does not accept this join code", locked_out=True)
            case _:
                return self._wait(f"the head {seen.head.value}", seen.now)

    def _wait(self, why: str, now: float) -> Wait:
        retry_s = RETRY_S[min(self._attempts, len(RETRY_S) - 1)]
        self._attempts += 1
        self._next_attempt = now + retry_s
        return Wait(why, retry_s)

    def _lost(self, seen: Seen) -> str | None:
        """Why the node is no part of the cluster any more; None if it is, or may be."""
        self._refused_since = _since(self._refused_since, seen.head is HeadState.REFUSES, seen.now)
        self._silent_since = _since(self._silent_since, seen.head is HeadState.SILENT, seen.now)
        if not seen.runs:
            return "its Ray processes have ended"
        if seen.address_changed:
            return "this laptop has another address now"
        if seen.head in (HeadState.OTHER, HeadState.LOCKED):
            return "the head was started anew"
        if seen.counted_dead:
            return "the head had given it up"
        if self._refused_since is not None and seen.now - self._refused_since >= REFUSED_S:
            return "the head has ended"
        if self._silent_since is not None and seen.now - self._silent_since >= SILENT_S:
            return f"the head has not answered for {SILENT_S:.0f} s"
        return None

    def _change_of_fitness(self, seen: Seen) -> Step | None:
        if seen.unfit == self._unfit:
            return None
        self._unfit = seen.unfit
        return TakeWork() if seen.unfit is None else RefuseWork(seen.unfit)


def _since(before: float | None, is_so: bool, now: float) -> float | None:
    """Since when something is so, which was so since `before`."""
    if not is_so:
        return None
    return now if before is None else before
