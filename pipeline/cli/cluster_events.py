"""What happens to the node of this laptop while `cluster up` or `cluster join` runs, in lines."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.counts import counted
from tuning.cluster.node_events import (
    Beat,
    FitAgain,
    Joined,
    Leaving,
    Left,
    Lost,
    NodeEvent,
    OtherGone,
    OtherJoined,
    Starting,
    Unfit,
    Waiting,
)

if TYPE_CHECKING:
    from tuning.awake import Awake


class NodeView:
    """Follows the events of the node of this laptop; what it shows is up to the kinds of it."""

    sleep = ""
    """Whether the laptop stays awake, in words."""

    def __init__(self) -> None:
        self.name = ""
        self.has_joined = False
        self.has_trials = False
        self._waits_for = ""

    def heard(self, event: NodeEvent) -> None:
        """Follow an event."""
        if isinstance(event, Joined):
            self.name, self.has_joined = event.record.name, True
        if isinstance(event, Beat):
            self.has_trials = any(record.trials for record in event.nodes if record.name == self.name)
        if isinstance(event, (Lost, Left)):
            self.has_trials = False

    def line(self, event: NodeEvent) -> str | None:
        """The event in a line; None if it is not worth one, as an attempt to join that ends like the one before."""
        if isinstance(event, Waiting):
            waits_for, self._waits_for = self._waits_for, event.why
            return None if event.why == waits_for else in_words(event)
        if isinstance(event, Starting) and self._waits_for:
            return None
        if not isinstance(event, Beat):
            self._waits_for = ""
        return in_words(event)

    def keeping(self, awake: "Awake") -> Callable[[NodeEvent], None]:
        """Show events, and keep the laptop awake while it has trials."""

        def heard(event: NodeEvent) -> None:
            self.heard(event)
            awake.keep(self.has_trials)

        return heard


def at_this_time(words: str) -> str:
    """A line with the time of day."""
    return f"{time.strftime('%H:%M:%S')}  {words}"


def in_words(event: NodeEvent) -> str | None:
    """What happened, in a line; None if it is not worth one."""
    match event:
        case Starting():
            return "starting Ray"
        case Joined(took_s=took_s, again=again):
            return f"in the cluster{' again' if again else ''}, after {took_s:.0f} s"
        case OtherJoined(name=name, address=address):
            return f"{name} ({address}) has joined"
        case OtherGone(name=name, why=why):
            return f"{name} is gone: {why}"
        case Lost(why=why):
            return f"out of the cluster: {why}; joins again by itself"
        case Waiting(why=why):
            return (
                f"{why}; tries again every few seconds. Should `seqpipe cluster up` show another address there now: "
                "Ctrl-C here, then `seqpipe cluster join` with that"
            )
        case Unfit(why=why):
            return f"takes no more trials: {why}"
        case FitAgain():
            return "takes trials again"
        case Leaving(why=why, trials=trials):
            saving = f"; {counted(trials, 'trial saves', 'trials save')}" if trials else ""
            return f"leaving: {why}{saving}"
        case Left() | Beat():
            return None
