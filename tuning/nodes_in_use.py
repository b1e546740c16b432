"""The nodes that a search uses: they come and go while it runs, and the user reads a line about each that does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuning.capacity import WORKER_MB, Capacity, Node, at_cap


@dataclass(frozen=True)
class Change:
    """What has changed since the nodes were looked at last."""

    capacity: Capacity
    gone: tuple[str, ...]
    """Names of nodes that went away, with all of their processes; one may be back already."""
    lines: tuple[str, ...]


class NodesInUse:
    """Follows the nodes of one search, whose cap is decided. `rows_on` gives the rows that train on a node."""

    def __init__(self, cap_mb: int, concurrency: int | None, cpus_per_trial: float) -> None:
        self._cap_mb = cap_mb
        self._concurrency = concurrency
        self._cpus_per_trial = cpus_per_trial
        self._known: dict[str, Node] | None = None
        """The nodes of the last look, by id."""
        self._had_room = True

    def look(self, nodes: Sequence[Node], rows_on: Callable[[str], Sequence[int]]) -> Change | None:
        """What follows from the nodes that are there now; None if nothing has changed."""
        now = {node.id or node.name: node for node in nodes}
        before = self._known
        if now == before:
            return None
        self._known = now
        capacity = at_cap(list(now.values()), self._cap_mb, self._concurrency, self._cpus_per_trial)
        lines, gone = [], []
        for key, node in (before or {}).items():
            if key not in now:
                gone.append(node.name)
                lines.append(self._gone(node, rows_on(node.name)))
        for (key, node), fits in zip(now.items(), capacity.fits, strict=True):
            earlier = before.get(key) if before is not None else node
            lines.append(self._seen(node, earlier, fits, rows_on(node.name), is_first=before is None))
        lines.append(self._room(capacity))
        return Change(capacity, tuple(gone), tuple(line for line in lines if line))

    def _gone(self, node: Node, rows: Sequence[int]) -> str:
        fits = at_cap([node], self._cap_mb, None, self._cpus_per_trial).concurrency
        if rows:
            return f"{node.name} is gone: {_its_trials(rows)} elsewhere"
        return f"{node.name} is gone: {_trials(fits, 'fewer')}" if fits else f"{node.name} is gone"

    def _seen(self, node: Node, earlier: Node | None, fits: int, rows: Sequence[int], *, is_first: bool) -> str:
        """What there is to say of a node that is there: nothing, if it is as it was."""
        if node.why_not:
            if earlier is not None and earlier.why_not == node.why_not and not is_first:
                return ""
            goes_on = f"; {_its_trials(rows)} elsewhere" if rows else ""
            return f"{node.name} takes no more trials: {node.why_not}{goes_on}"
        if not fits and (is_first or earlier is None):
            return f"{node.name} gets no trial: {self._too_little(node)}"
        if earlier is None:
            return f"{node.name} joined: {_trials(fits, 'more')}"
        if earlier.why_not:
            return f"{node.name} takes trials again: {_trials(fits, 'more')}"
        return ""

    def _too_little(self, node: Node) -> str:
        if node.cpus < self._cpus_per_trial:
            return f"it has {node.cpus:g} cores, and each is to have {self._cpus_per_trial:g}"
        return f"it gives {node.memory_mb} MB, and one takes {self._cap_mb + WORKER_MB}"

    def _room(self, capacity: Capacity) -> str:
        had_room, self._had_room = self._had_room, capacity.concurrency > 0
        if had_room and not self._had_room:
            return (
                f"no node has room for a trial of {self._cap_mb} MB: the search waits for one that has; "
                "left and begun again, it may go on with less for each"
            )
        return ""


def _trials(count: int, which: str) -> str:
    return f"{count} {which} trial{'s' if count != 1 else ''} at once"


def _its_trials(rows: Sequence[int]) -> str:
    if len(rows) == 1:
        return f"its trial {rows[0]} goes on"
    return f"its trials {', '.join(map(str, rows))} go on"
