"""Lost processes of trials: how often each row was lost by itself, and which losses were its node's."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class _Attempt:
    """The last attempt at a row; where it runs is known once it has started."""

    begun_at: float
    node: str = ""


class Losses:
    """A loss is the node's if that node went away at any time after the attempt began, also if it is known later.

    So a row is not given up because laptops come and go. Of an attempt that never started the node is unknown: any
    that went away meanwhile may have been it.
    """

    def __init__(self) -> None:
        self._attempts: dict[int, _Attempt] = {}
        self._lost: dict[int, list[_Attempt]] = {}
        self._gone_at: dict[str, float] = {}

    def begun(self, row: int, now: float) -> None:
        """An attempt at a row was handed out."""
        self._attempts[row] = _Attempt(now)

    def started(self, row: int, node: str) -> None:
        """The attempt runs on that node."""
        self._attempts[row] = _Attempt(self._attempts[row].begun_at, node)

    def node_gone(self, node: str, now: float) -> None:
        """A node went away, and all of its processes with it."""
        self._gone_at[node] = now

    def lost(self, row: int) -> bool:
        """The attempt's process was lost; whether that is known to be its node's loss."""
        attempt = self._attempts[row]
        self._lost.setdefault(row, []).append(attempt)
        return self._is_nodes(attempt)

    def count(self, row: int) -> int:
        """How often the row was lost by itself."""
        return sum(not self._is_nodes(attempt) for attempt in self._lost.get(row, ()))

    def _is_nodes(self, attempt: _Attempt) -> bool:
        gone_at = self._gone_at.get(attempt.node) if attempt.node else max(self._gone_at.values(), default=None)
        return (-math.inf if gone_at is None else gone_at) >= attempt.begun_at
