"""A member: what `cluster join` runs. It keeps a node of this laptop in the cluster until it is asked to leave.

`tuning.cluster.member_decisions` decides; this observes, and carries out.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from tuning.cluster.fitness import HeadClock
from tuning.cluster.join_code import JoinCode
from tuning.cluster.member_decisions import (
    Begin,
    End,
    Finish,
    HeadState,
    Member,
    RefuseWork,
    Seen,
    SendTrialsAway,
    Step,
    TakeWork,
    Wait,
)
from tuning.cluster.node_events import (
    Beat,
    FitAgain,
    Joined,
    Leaving,
    Left,
    Lost,
    NodeEvent,
    Starting,
    Unfit,
    Waiting,
)
from tuning.cluster.node_record import NodeRecord, NodeState
from tuning.cluster.orders import Order
from tuning.cluster.route import address_towards
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray.board import Board, BoardError, TokenRefusedError
from tuning.on_ray.node_plan import NodePlan
from tuning.on_ray.node_processes import NodeProcesses
from tuning.on_ray.own_node import OwnNode
from tuning.on_ray.probe import listens

LOOK_S = 0.25
ASK_HEAD_S = 1.0
BEAT_S = 2.0


def run(
    plan: NodePlan,
    head_address: str,
    code: JoinCode,
    on_event: Callable[[NodeEvent], None],
    should_stop: Callable[[], bool],
) -> str:
    """Join the head at HOST:PORT, and join again whenever the node is lost; until `should_stop` or an order.

    The caller has compared the two machines. Which address this laptop has is looked up with every attempt.

    Returns:
        Why it left, in words.

    Raises:
        ClusterError: the head refuses the code, or Ray cannot be started here at all.
    """
    joining = _Joining(plan, head_address, code.token, on_event, should_stop)
    try:
        why = joining.run()
    finally:
        joining.close()
    on_event(Left(why))
    return why


def free_name(
    wanted: str, address: str, nodes: Sequence[NodeRecord], live: Collection[str], own: Collection[str]
) -> str:
    """The name that was wanted, or that with a number where another laptop has it.

    This laptop has had the nodes in `own`; one at its address was another `join` of it.
    """
    others = [node for node in nodes if node.address != address and node.node_id not in own]
    taken = {node.name for node in others if node.node_id in live}
    return next(name for name in (wanted, *(f"{wanted}-{number}" for number in range(2, 1000))) if name not in taken)


class _Joining:
    """Observes what `Member` decides by, and does what it decides."""

    def __init__(
        self,
        plan: NodePlan,
        head: str,
        token: str,
        on_event: Callable[[NodeEvent], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._plan = plan
        self._head = head
        self._token = token
        self._on_event = on_event
        self._should_stop = should_stop
        self._member = Member()
        self._board: Board | None = None
        self._node: OwnNode | None = None
        self._own: list[str] = []
        """Ray's ids of the nodes that were started so far; the head may count one as alive for a while."""
        self._session = ""
        self._clock = HeadClock()
        self._joined_before = False
        self._ask_at = self._beat_at = 0.0
        self._seen_of_head = HeadState.SILENT, False
        self._order: Order | None = None

    def run(self) -> str:
        """Until it is decided to end; why."""
        while True:
            step = self._member.next(self._look())
            if isinstance(step, Finish):
                return self._finish(step)
            if step is not None:
                self._carry_out(step)
            time.sleep(LOOK_S)

    def close(self) -> None:
        """Leave nothing behind."""
        self._end_node(in_order=True)
        self._close_board()

    def _look(self) -> Seen:
        if time.monotonic() >= self._ask_at:
            self._seen_of_head = self._ask_head()
            self._ask_at = time.monotonic() + ASK_HEAD_S
        head, counted_dead = self._seen_of_head
        seen = Seen(time.monotonic(), head, order=self._order, stop_asked=self._should_stop())
        if self._node is None:
            return seen
        return replace(
            seen,
            runs=self._node.processes.dead() is None,
            counted_dead=counted_dead,
            address_changed=self._own_address() not in (None, self._node.address),
            trials=self._node.trials(),
            unfit=self._node.unfit(self._clock.off_s),
        )

    def _ask_head(self) -> tuple[HeadState, bool]:
        """How the head looks, and whether it counts this node as dead."""
        try:
            if self._board is None:
                if (nothing := listens(self._head)) is not None:
                    return (HeadState.REFUSES if nothing.refused else HeadState.SILENT), False
                self._board = Board(self._head, self._token)
            if self._node is None:
                self._order = None
                return HeadState.ANSWERS, False
            if self._board.session != self._session:
                return HeadState.OTHER, False
            self._order = self._board.order_for(self._node.plan.name)
            if time.monotonic() >= self._beat_at:
                self._beat(self._board, self._node)
            return HeadState.ANSWERS, self._node.node_id not in self._board.live_nodes()
        except TokenRefusedError:
            self._close_board()
            return HeadState.LOCKED, False
        except BoardError:
            self._close_board()
            return HeadState.SILENT, False

    def _beat(self, board: Board, node: OwnNode) -> None:
        self._beat_at = time.monotonic() + BEAT_S
        board.put_node(node.record())
        nodes = board.nodes()
        for record in nodes:
            if record.is_head:
                self._clock.read(record.clock, time.time())
        self._on_event(Beat(nodes, board.searches()))

    def _carry_out(self, step: Step) -> None:
        match step:
            case Begin():
                self._begin()
            case End(why):
                self._on_event(Lost(why))
                self._end_node(in_order=False)
                self._close_board()  # after a change of address its connection leads nowhere
                self._ask_at = 0.0
            case Wait(why, retry_s):
                self._ask_at = time.monotonic() + retry_s
                self._on_event(Waiting(why, retry_s))
            case RefuseWork(why):
                self._send_trials_away("unfit", why)
                self._on_event(Unfit(why))
            case TakeWork():
                assert self._node is not None
                self._node.take_work()
                self._say_state()
                self._on_event(FitAgain())
            case SendTrialsAway(why):
                assert self._node is not None
                self._on_event(Leaving(why, self._node.trials()))
                self._send_trials_away("leaving", why)

    def _begin(self) -> None:
        self._on_event(Starting())
        began = time.monotonic()
        try:
            self._node = self._started()
        except AskedToLeaveError:
            return  # the next look sees it
        except ClusterError as error:
            self._close_board()  # what has failed once fails always; the next try makes another one
            if not self._joined_before:
                raise
            if (wait := self._member.begun(time.monotonic(), failed=str(error))) is not None:
                self._carry_out(wait)
            return
        self._member.begun(time.monotonic())
        self._seen_of_head = HeadState.ANSWERS, False
        self._on_event(Joined(self._node.record(), time.monotonic() - began, again=self._joined_before))
        self._joined_before, self._beat_at, self._ask_at = True, 0.0, 0.0

    def _started(self) -> OwnNode:
        address = self._own_address()
        if address is None:
            raise BoardError("the head does not answer")
        board = self._board = self._board or Board(self._head, self._token)  # none: the last one failed meanwhile
        nodes = board.nodes()
        name = free_name(self._plan.name, address, nodes, board.live_nodes(), self._own)
        board.take_order_back(name)
        plan = replace(self._plan, name=name, ports=replace(self._plan.ports, turn=self._turn(name, nodes)))
        processes = NodeProcesses(plan, address, self._token, self._head, self._should_stop)
        node = OwnNode(plan, address, processes, is_head=False)
        self._own.append(node.node_id)
        self._session = board.session
        with contextlib.suppress(BoardError):  # the next beat says it
            board.put_node(node.record())
        return node

    def _turn(self, name: str, nodes: Sequence[NodeRecord]) -> int:
        """The one after that of the node which had this name last, if the board still has it; see `ports`."""
        before = next((node.turn for node in nodes if node.name == name), None)
        return len(self._own) if before is None else before + 1

    def _send_trials_away(self, state: NodeState, why: str) -> None:
        assert self._node is not None
        self._node.send_trials_away(state, why)
        self._say_state()

    def _say_state(self) -> None:
        """Say it now: the search reads it before it starts the next trial."""
        if self._board is not None and self._node is not None:
            with contextlib.suppress(BoardError):
                self._board.put_node(self._node.record())

    def _finish(self, step: Finish) -> str:
        if step.locked_out:
            raise ClusterError(
                "the head does not accept this join code; a code is good for one `seqpipe cluster up`, which shows it"
            )
        if self._node is not None and self._board is not None:
            with contextlib.suppress(BoardError):
                self._board.remove_node(self._node.plan.name)
        return step.why

    def _own_address(self) -> str | None:
        host, _, port = self._head.rpartition(":")
        return address_towards(host.strip("[]"), int(port))

    def _end_node(self, *, in_order: bool) -> None:
        if self._node is not None:
            self._node.processes.end(in_order=in_order)
        self._node = None

    def _close_board(self) -> None:
        if self._board is not None:
            self._board.close()
        self._board = None
