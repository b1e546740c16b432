"""Watches the nodes of a cluster in a thread of its own, since its head may be slow to answer, or gone."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, Self, TypeVar

from tuning.capacity import Node
from tuning.cluster.node_record import NodeRecord, SearchSummary
from tuning.errors import ClusterError
from tuning.waiting import Helper, result_of

T = TypeVar("T")
LOOK_S = 1.0
HEAD_S = 0.25
SUMMARY_S = 2.0
"""How often the search's progress is put on the board."""


class BoardOfSearch(Protocol):
    """What of the board a search needs."""

    def nodes(self) -> Sequence[NodeRecord]: ...

    def put_search(self, search: SearchSummary) -> None: ...

    def remove_search(self, name: str) -> None: ...


def known_to_board(nodes: Sequence[Node], records: Sequence[NodeRecord]) -> list[Node]:
    """Ray's nodes with what their records say: one that leaves or is unfit takes no work.

    A node that is counted as alive, while its record is of another one that has taken its place, is left out.
    """
    by_name = {record.name: record for record in records if record.node_id}
    found = []
    for node in nodes:
        record = by_name.get(node.name)
        if record is None:
            found.append(node)
        elif record.node_id == node.id:
            why_not = "" if record.takes_work else record.why or record.state
            found.append(replace(node, why_not=why_not, facts=record.facts))
    return found


class NodeWatch:
    """`alive` gives Ray's live nodes; without a board nothing else is known of them."""

    def __init__(
        self,
        alive: Callable[[], Sequence[Node]],
        board: BoardOfSearch | None = None,
        is_head_alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._alive = alive
        self._board = board
        self._is_head_alive = is_head_alive
        self._records: Sequence[NodeRecord] = ()
        self._over, self._head_is_gone = threading.Event(), threading.Event()
        self._nodes: Sequence[Node] | None = None
        self._summary: SearchSummary | None = None
        self._said: SearchSummary | None = None
        self._summary_at = 0.0

    def __enter__(self) -> Self:
        for watch in (self._watch, self._watch_head):
            threading.Thread(target=watch, name="nodes", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def nodes(self) -> Sequence[Node] | None:
        """The nodes as they were seen last; None before the first look.

        Raises:
            ClusterError: the cluster's head is gone.
        """
        self.require_head()
        return self._nodes

    def require_head(self) -> None:
        """Raise `ClusterError` if the cluster's head is gone."""
        if self._head_is_gone.is_set():
            raise ClusterError("the cluster's head is gone; start it again, and the same command goes on")

    def while_head_lives(self, call: Callable[[], T]) -> T:
        """Make a call that would hang without the head, in a thread of its own, so that this one can leave then.

        Raises:
            ClusterError: the cluster's head is gone; the call hangs on, so this process has to end by `os._exit`.
        """

        def go_on() -> bool:
            self.require_head()
            return False

        with Helper("search") as helper:
            return result_of(helper.begin(call), should_stop=go_on)

    def say(self, summary: SearchSummary) -> None:
        """Have the board show this of the search."""
        self._summary = summary

    def look(self) -> Sequence[Node]:
        """Look once, and give what is seen.

        Raises:
            ClusterError: the cluster's head is gone.
        """
        self.require_head()
        nodes = self._alive()
        if self._board is not None:
            with contextlib.suppress(ClusterError):  # a head that is slow to answer: the records of before count
                self._records = self._board.nodes()
                self._put_summary(self._board)
        self._nodes = known_to_board(nodes, self._records)
        return self._nodes

    def _put_summary(self, board: BoardOfSearch) -> None:
        summary = self._summary
        if summary is not None and time.monotonic() >= self._summary_at:
            board.put_search(summary)
            self._said, self._summary_at = summary, time.monotonic() + SUMMARY_S

    def _watch(self) -> None:
        while not self._head_is_gone.is_set():
            with contextlib.suppress(Exception):  # Ray's, of a head that does not answer; see `_watch_head`
                self.look()
            if self._over.wait(LOOK_S):
                break
        if self._board is not None and self._said is not None:
            with contextlib.suppress(ClusterError):
                self._board.remove_search(self._said.name)

    def _watch_head(self) -> None:
        """Apart from the nodes: Ray's answer about them may never come once the head is gone."""
        while not self._over.wait(HEAD_S):
            if not self._is_head_alive():
                self._head_is_gone.set()
                return
