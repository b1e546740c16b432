"""The board: records of nodes and searches, orders, and requests to be called back, in the head's key-value store.

It is Ray's own store, so nothing more listens on the head, and who lacks the token can neither read nor write it. A
child process talks to it (`board_child`), so this one imports no Ray.
"""

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tuning.cluster.node_record import NodeRecord, SearchSummary
from tuning.cluster.orders import Order
from tuning.errors import ClusterError

CONNECT_S = 10.0
"""Ray's import included, which takes a second on an idle machine."""
LIMIT_S = 2.5
"""How long a call may take; the child has 2 s for it."""
_CHILD = Path(__file__).with_name("board_child.py")
_NODE, _ORDER, _SEARCH, _CALL, _CALLED = "node", "order", "search", "call", "called"
_ASK_S = 0.1


class BoardError(ClusterError):
    """The head does not answer, or not as a head would."""


class TokenRefusedError(BoardError):
    """What answers does not let this process in."""


@dataclass(frozen=True)
class Call:
    """A node's request to the head: connect to these ports of it. It listens on them meanwhile."""

    id: str
    address: str
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Reached:
    """What a node learns from being called back."""

    unreachable: tuple[int, ...]
    """Ports that the head could not connect to: a firewall on the node, most likely."""
    clock_off_s: float
    """How far the head's clock is ahead of this machine's."""


class Board:
    """The board of the head at HOST:PORT. A call takes 2.5 s at most; once one has raised, all do."""

    def __init__(self, address: str, token: str) -> None:
        """Connect to it; `probe.ask` says beforehand whether a head is there at all.

        Raises:
            BoardError: no head answers.
            TokenRefusedError: one does, and refuses the token.
        """
        self._child = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
        self._received = b""
        self._send(token)
        self.session: str = self._reply(CONNECT_S)
        """Changes with every start of the head."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()

    def put_node(self, record: NodeRecord) -> None:
        self._ask("put", _NODE, record.name, record.to_json())

    def nodes(self) -> tuple[NodeRecord, ...]:
        """The records of all nodes: the head's first, then by name."""
        records = [NodeRecord.from_json(content) for content in self._ask("all", _NODE)]
        return tuple(sorted(records, key=lambda record: (not record.is_head, record.name)))

    def remove_node(self, name: str) -> None:
        self._ask("remove", _NODE, name)
        self._ask("remove", _ORDER, name)

    def live_nodes(self) -> frozenset[str]:
        """Ray's ids of the nodes that the head counts as alive."""
        return frozenset(self._ask("live_nodes"))

    def give_order(self, name: str, order: Order) -> None:
        self._ask("put", _ORDER, name, order.value)

    def order_for(self, name: str) -> Order | None:
        order = self._ask("get", _ORDER, name)
        return None if order is None else Order(order)

    def take_order_back(self, name: str) -> None:
        self._ask("remove", _ORDER, name)

    def put_search(self, search: SearchSummary) -> None:
        self._ask("put", _SEARCH, search.name, search.to_json())

    def searches(self) -> tuple[SearchSummary, ...]:
        return tuple(SearchSummary.from_json(content) for content in self._ask("all", _SEARCH))

    def remove_search(self, name: str) -> None:
        self._ask("remove", _SEARCH, name)

    def call_back(self, address: str, ports: Sequence[int], limit_s: float = 4.0) -> Reached:
        """Have the head connect to ports of this machine, which listens on them."""
        call = Call(secrets.token_hex(8), address, tuple(ports))
        until = time.monotonic() + limit_s
        self._ask("put", _CALL, call.id, asdict(call))
        asked_at = time.time()
        while (answer := self._ask("get", _CALLED, call.id)) is None:
            if time.monotonic() >= until:
                raise BoardError("the head has not called back")
            time.sleep(_ASK_S)
            asked_at = time.time() - _ASK_S  # it was answered within this round
        self._ask("remove", _CALLED, call.id)
        return Reached(tuple(answer["unreachable"]), answer["clock"] - (asked_at + time.time()) / 2)

    def calls(self) -> tuple[Call, ...]:
        """The requests that the head has not answered yet."""
        return tuple(
            Call(content["id"], content["address"], tuple(content["ports"])) for content in self._ask("all", _CALL)
        )

    def answer(self, call: Call, unreachable: Sequence[int]) -> None:
        """Answer a request, with the time of day."""
        self._ask("remove", _CALL, call.id)
        self._ask("put", _CALLED, call.id, {"unreachable": list(unreachable), "clock": time.time()})

    def _ask(self, call: str, *arguments: Any) -> Any:
        self._send(json.dumps({"call": call, "arguments": arguments}))
        return self._reply(LIMIT_S)

    def _send(self, line: str) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line.encode() + b"\n")
            self._child.stdin.flush()
        except (OSError, ValueError) as error:
            self.close()
            raise BoardError("the head does not answer") from error

    def _reply(self, limit_s: float) -> Any:
        reply = self._line(time.monotonic() + limit_s)
        if "error" not in reply:
            return reply["value"]
        self.close()
        kind = TokenRefusedError if reply["refused"] else BoardError
        raise kind(f"the head does not answer: {reply['error']}")

    def _line(self, until: float) -> dict[str, Any]:
        assert self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        while b"\n" not in self._received:
            ready = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]
            more = os.read(descriptor, 65536) if ready else b""
            if not more:
                self.close()
                raise BoardError("the head does not answer in time" if not ready else "the head does not answer")
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        return dict(json.loads(line))
