"""The board: records of nodes and searches, and orders to nodes, in the head's key-value store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tuning.cluster.node_record import NodeRecord, SearchSummary
from tuning.cluster.orders import Order
from tuning.errors import ClusterError


class BoardError(ClusterError):
    """The head does not answer."""


@dataclass(frozen=True)
class Reached:
    """What the head found when it called a node back."""

    unreachable: tuple[int, ...]
    """Ports of the node that it could not connect to: a firewall there, most likely."""
    clock_off_s: float
    """How far the head's clock is ahead of this machine's."""


class Board:
    """Every call takes 2 s at most, and raises `BoardError` if the head does not answer."""

    session: str
    """Changes with every start of the head."""

    def put_node(self, record: NodeRecord) -> None: ...

    def nodes(self) -> tuple[NodeRecord, ...]: ...

    def remove_node(self, name: str) -> None: ...

    def give_order(self, name: str, order: Order) -> None: ...

    def order_for(self, name: str) -> Order | None: ...

    def take_order_back(self, name: str) -> None: ...

    def put_search(self, search: SearchSummary) -> None: ...

    def searches(self) -> tuple[SearchSummary, ...]: ...

    def remove_search(self, name: str) -> None: ...

    def ask_to_be_reached(self, address: str, ports: Sequence[int]) -> Reached:
        """Have the head connect to these ports of this machine, which listens on them; within 2 s."""
        raise NotImplementedError


@contextmanager
def opened(address: str, token: str) -> Iterator[Board]:
    """The board of the head at HOST:PORT.

    Raises:
        BoardError: no head answers there, or it refuses the token.
    """
    raise NotImplementedError
    yield
