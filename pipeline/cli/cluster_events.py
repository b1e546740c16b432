"""What happens to the node of this laptop while `cluster up` or `cluster join` runs, in lines."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

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

    def heard(self, event: NodeEvent) -> None:
        """Follow an event."""
        if isinstance(event, Joined):
            self.name, self.has_joined = event.record.name, True
        if isinstance(event, Beat):
            self.has_trials = any(record.trials for record in event.nodes if record.name == self.name)

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
        case Waiting(why=why, retry_s=retry_s):
            return f"{why}; tries again in {retry_s:.0f} s"
        case Unfit(why=why):
            return f"takes no more trials: {why}"
        case FitAgain():
            return "takes trials again"
        case Leaving(why=why, trials=trials):
            saving = f"; {trials} {'trial saves' if trials == 1 else 'trials save'}" if trials else ""
            return f"leaving: {why}{saving}"
        case Left() | Beat():
            return None
