"""Whether the head can call this laptop, as it has to: tried on the ports of a node before there is one."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tuning.on_ray.board import Board, Reached


def reached(board: Board, address: str, ports: Sequence[int]) -> Reached:
    """Listen on these ports for a moment, and have the head connect to each.

    Raises:
        BoardError: the head does not answer.
        OSError: one of the ports is taken.
    """
    with _listening(address, ports):
        return board.call_back(address, ports)


@contextmanager
def _listening(address: str, ports: Sequence[int]) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as servers:
        for port in ports:
            servers.enter_context(socket.create_server((address, port), family=family))
        yield
