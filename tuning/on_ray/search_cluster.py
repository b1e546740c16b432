"""The cluster that a search runs on, as the search sees it: its nodes, now and as they come and go."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tuning.capacity import Node
from tuning.cluster.node_record import NodeRecord
from tuning.on_ray import cluster
from tuning.on_ray.board import Board
from tuning.on_ray.head_watch import HeadWatch
from tuning.on_ray.node_watch import NodeWatch


def survey(address: str, token: str | None) -> list[Node]:
    """The nodes of a cluster now. Of one with a board this process becomes no part.

    Raises:
        ClusterError: as `cluster.joined`, or no head answers.
    """
    if token is None:
        with cluster.joined(address):
            return cluster.nodes()
    with Board(address, token) as board:
        return [_node(record) for record in board.nodes() if record.node_id]


@contextmanager
def watched(address: str, token: str | None, should_stop: Callable[[], bool] = lambda: False) -> Iterator[NodeWatch]:
    """The cluster at `address`, joined for a search, and watched meanwhile.

    Raises:
        ClusterError, AskedToLeaveError: as `cluster.joined`.
    """
    with ExitStack() as stack:
        board = None if token is None else stack.enter_context(Board(address, token))
        stack.enter_context(cluster.joined(address, should_stop, token))
        # the head of a cluster built by hand may be anywhere, and a network that is down for a moment is no end
        is_head_alive = HeadWatch(address).is_alive if board else lambda: True
        yield stack.enter_context(NodeWatch(cluster.nodes, board, is_head_alive))


def _node(record: NodeRecord) -> Node:
    why_not = "" if record.takes_work else record.why or record.state
    return Node(record.name, record.cores, record.gives_mb, record.node_id, why_not, record.facts)
