"""The head: what `cluster up` runs until it is asked to end."""

import contextlib
import socket
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from tuning.cluster.addresses import with_port
from tuning.cluster.join_code import JoinCode
from tuning.cluster.member_decisions import LEAVE_S
from tuning.cluster.node_events import (
    Beat,
    FitAgain,
    Joined,
    Leaving,
    Left,
    NodeEvent,
    OtherGone,
    OtherJoined,
    Starting,
    Unfit,
)
from tuning.cluster.node_record import NodeRecord
from tuning.cluster.orders import Order
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray.board import Board, BoardError, Call
from tuning.on_ray.node_plan import NodePlan
from tuning.on_ray.node_processes import NodeProcesses
from tuning.on_ray.own_node import OwnNode

LOOK_S = 0.25
BEAT_S = 2.0
OTHERS_END_S = 8.0
"""How long nodes without trials may take to end."""
_CALL_S = 1.0
_CALLS_AT_ONCE = 128


def run(
    plan: NodePlan,
    address: str,
    code: JoinCode,
    on_event: Callable[[NodeEvent], None],
    should_stop: Callable[[], bool],
    comes_back: Callable[[], bool] = lambda: False,
) -> str:
    """Start a head that binds `address`, and keep it until `should_stop`, an order to end, or a loss.

    When `Joined` has been told, the head answers. At the end all nodes are told to end, unless the head `comes_back`,
    for which they wait; nothing is left here.

    Returns:
        Why it ended, in words.

    Raises:
        ClusterError: it could not be started, or its processes were lost.
    """
    on_event(Starting())
    began = time.monotonic()
    try:
        processes = NodeProcesses(plan, address, code.token, None, should_stop)
    except AskedToLeaveError:
        return "asked to end"
    try:
        head = _Head(OwnNode(plan, address, processes, is_head=True), code.token, on_event)
        on_event(Joined(head.put_record(), time.monotonic() - began))
        why = head.watch(should_stop)
        if comes_back():
            why = "asked to end; the other laptops wait until it is started again, with the same join code"
            head.close()
        else:
            head.take_down(why)
    finally:
        processes.end()
    on_event(Left(why))
    return why


class _Head:
    """Keeps the head's record, answers calls, and says who joins and who goes."""

    def __init__(self, node: OwnNode, token: str, on_event: Callable[[NodeEvent], None]) -> None:
        self._node = node
        self._token = token
        self._on_event = on_event
        self._board = self._opened()
        self._others = Others()
        self._unfit: str | None = None

    def put_record(self) -> NodeRecord:
        record = self._node.record()
        self._board.put_node(record)
        return record

    def watch(self, should_stop: Callable[[], bool]) -> str:
        """Until the head is to end; why.

        Raises:
            ClusterError: a process of the head was lost.
        """
        beat_at = 0.0
        while not should_stop():
            if (dead := self._node.processes.dead()) is not None:
                raise ClusterError(
                    f"the cluster's head was lost ({dead} has ended); start it again, and the other laptops come back"
                )
            try:
                self._answer_calls()
                if self._board.order_for(self._node.plan.name) is not None:
                    return "the cluster was taken down"
                if time.monotonic() >= beat_at:
                    self._beat()
                    beat_at = time.monotonic() + BEAT_S
            except BoardError:
                if self._node.processes.dead() is None:
                    self._board = self._opened()
            time.sleep(LOOK_S)
        return "asked to end"

    def take_down(self, why: str) -> None:
        """Tell the other nodes to end, send the trials here away, and wait for both as long as that takes."""
        with contextlib.suppress(BoardError):
            others = [node.name for node in self._board.nodes() if not node.is_head]
            self._on_event(Leaving(why, self._node.trials()))
            self._node.send_trials_away("leaving", why)
            self.put_record()
            for name in others:
                self._board.give_order(name, Order.DOWN)
            began = time.monotonic()
            while self._node.processes.dead() is None:
                left = [node for node in self._live_others() if node.name in others]
                trials = self._node.trials() + sum(len(node.trials) for node in left)
                if not left and not trials:
                    break
                if time.monotonic() - began >= (LEAVE_S if trials else OTHERS_END_S):
                    break
                time.sleep(LOOK_S)
        self.close()

    def close(self) -> None:
        self._board.close()

    def _beat(self) -> None:
        self._look_at_fitness()
        self.put_record()
        nodes, live = self._board.nodes(), self._board.live_nodes()
        for event in self._others.look(nodes, live):
            self._on_event(event)
        for node in nodes:
            if node.node_id not in live:  # it cannot do so itself
                self._board.remove_node(node.name)
        self._on_event(Beat(nodes, self._board.searches()))

    def _look_at_fitness(self) -> None:
        unfit = self._node.unfit()
        if unfit == self._unfit:
            return
        self._unfit = unfit
        if unfit is None:
            self._node.take_work()
            self._on_event(FitAgain())
        else:
            self._node.send_trials_away("unfit", unfit)
            self._on_event(Unfit(unfit))

    def _live_others(self) -> list[NodeRecord]:
        live = self._board.live_nodes()
        return [node for node in self._board.nodes() if not node.is_head and node.node_id in live]

    def _answer_calls(self) -> None:
        for call in self._board.calls():
            self._board.answer(call, unreachable(call))

    def _opened(self) -> Board:
        return Board(with_port(self._node.address, self._node.plan.ports.gcs), self._token)


class Others:
    """The other nodes, from the board's records and from what Ray counts as alive."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        """Ray's id of each node, by name."""

    def look(self, nodes: Sequence[NodeRecord], live: Collection[str]) -> list[OtherJoined | OtherGone]:
        """Who has joined and who has gone since the last look."""
        now = {node.name: node for node in nodes if not node.is_head}
        events: list[OtherJoined | OtherGone] = []
        for name in [name for name in self._known if name not in now or now[name].node_id not in live]:
            del self._known[name]
            events.append(OtherGone(name, "lost; it comes back by itself" if name in now else "it has left"))
        for name, node in now.items():
            if node.node_id in live and self._known.get(name) != node.node_id:
                self._known[name] = node.node_id
                events.append(OtherJoined(name, node.address))
        return events


def unreachable(call: Call) -> list[int]:
    """The ports of a node that this machine cannot connect to."""

    def is_reached(port: int) -> bool:
        try:
            socket.create_connection((call.address, port), _CALL_S).close()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        return [
            port for port, reached in zip(call.ports, pool.map(is_reached, call.ports), strict=True) if not reached
        ]
