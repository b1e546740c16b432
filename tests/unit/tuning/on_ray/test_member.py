import math
import time
from dataclasses import replace

import pytest
from fake_head import FakeBoard, FakeHead, Starts, plan

from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_events import (
    Beat,
    FitAgain,
    Joined,
    Leaving,
    Left,
    Lost,
    Starting,
    Unfit,
    Waiting,
)
from tuning.cluster.node_record import NodeRecord, TrialOnNode
from tuning.cluster.orders import Order
from tuning.errors import ClusterError
from tuning.on_ray import member
from tuning.on_ray.member import free_name
from tuning.on_ray.probe import Nothing

CODE = JoinCode("0" * 21, "ABCDE")


class Laptop:
    """Runs a member in this thread; `then` says what happens when an event of a kind has come for the nth time."""

    def __init__(self, tmp_path, monkeypatch):
        self.monkeypatch = monkeypatch
        self.head = FakeHead(token=CODE.token)
        self.starts = Starts(self.head, tmp_path / "nodes")
        self.events = []
        self.address = "10.0.0.2"
        self.stop = False
        self.stop_at = math.inf
        self.then = {}
        self.plan = plan(tmp_path)
        self.code_on_disk = "same"
        for name in ("LOOK_S", "ASK_HEAD_S", "BEAT_S"):
            monkeypatch.setattr(member, name, 0.0)
        monkeypatch.setattr("tuning.cluster.member_decisions.RETRY_S", (0.01,))
        monkeypatch.setattr("tuning.cluster.member_decisions.REFUSED_S", 0.02)
        monkeypatch.setattr("tuning.cluster.member_decisions.LEAVE_S", 0.2)
        monkeypatch.setattr("tuning.on_ray.own_node.CODE_S", 0.0)
        monkeypatch.setattr(member, "NodeProcesses", self.starts)
        monkeypatch.setattr(member, "Board", self.head.board)
        monkeypatch.setattr(member, "listens", lambda _: self.head.listens)
        monkeypatch.setattr(member, "address_towards", lambda *_: self.address)

    def run(self):
        until = time.monotonic() + 10

        def on_event(event):
            self.events.append(event)
            kind = type(event)
            count = sum(isinstance(each, kind) for each in self.events)
            if (kind, count) in self.then:
                self.then[kind, count]()
            assert time.monotonic() < until, self.kinds()

        def should_stop():
            assert time.monotonic() < until, self.kinds()
            return self.stop or time.monotonic() >= self.stop_at

        return member.run(replace(self.plan, code_now=lambda: self.code_on_disk), "h:1", CODE, on_event, should_stop)

    def ask_to_stop(self):
        self.stop = True

    def kinds(self):
        """The kinds of events in order, without beats, repeated ones once."""
        kinds = [type(event) for event in self.events if not isinstance(event, Beat)]
        return [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind is not before]

    @property
    def node(self):
        return self.starts.started[-1]

    @property
    def board(self):
        return self.head.board(token=CODE.token)


@pytest.fixture
def laptop(tmp_path, monkeypatch):
    return Laptop(tmp_path, monkeypatch)


def test_a_member_joins_says_so_on_the_board_and_leaves_when_asked(laptop):
    seen = []
    laptop.then[Beat, 2] = lambda: (seen.extend(laptop.board.nodes()), laptop.ask_to_stop())
    assert laptop.run() == "asked to leave"
    assert laptop.kinds() == [Starting, Joined, Left]
    (record,) = seen
    assert (record.name, record.address, record.node_id, record.state) == ("b", "10.0.0.2", "0001", "ready")
    assert (record.cores, record.gives_mb, record.facts) == (2, 3000, {"precision": "bf16"})
    assert laptop.board.nodes() == ()
    assert laptop.node.ended == [True]


def test_trials_are_sent_away_before_it_leaves(laptop):
    asked = []

    def start_trial():
        laptop.node.node_folder.write_trial(TrialOnNode("search", 3))

    def end_trial():
        asked.append(laptop.node.node_folder.leaving())
        asked.append(laptop.board.nodes()[0].state)
        laptop.node.node_folder.remove_trial()

    laptop.then = {(Joined, 1): start_trial, (Beat, 3): laptop.ask_to_stop}
    laptop.then[Leaving, 1] = lambda: laptop.then.update({(Beat, len(laptop.beats()) + 2): end_trial})
    laptop.beats = lambda: [event for event in laptop.events if isinstance(event, Beat)]
    assert laptop.run() == "asked to leave"
    assert asked == ["asked to leave", "leaving"]
    assert next(event for event in laptop.events if isinstance(event, Leaving)).trials == 1


@pytest.mark.parametrize(("order", "why"), [(Order.LEAVE, "from another laptop"), (Order.DOWN, "taken down")])
def test_an_order_on_the_board_ends_it(laptop, order, why):
    laptop.then[Joined, 1] = lambda: laptop.board.give_order("b", order)
    assert why in laptop.run()
    assert laptop.board.order_for("b") is None


def test_an_order_from_before_it_joined_is_not_for_it(laptop):
    laptop.board.give_order("b", Order.LEAVE)
    laptop.then[Beat, 3] = laptop.ask_to_stop
    assert laptop.run() == "asked to leave"


def test_a_node_whose_processes_end_is_started_again(laptop):
    def lose():
        laptop.node.lost = "raylet"

    laptop.then = {(Joined, 1): lose, (Joined, 2): laptop.ask_to_stop}
    laptop.run()
    assert laptop.kinds() == [Starting, Joined, Lost, Starting, Joined, Left]
    assert [event.again for event in laptop.events if isinstance(event, Joined)] == [False, True]
    assert laptop.starts.started[0].ended == [False], "nobody is there to be told"


def test_a_node_that_the_head_has_given_up_is_started_again(laptop):
    laptop.then = {(Joined, 1): laptop.head.client.alive.clear, (Joined, 2): laptop.ask_to_stop}
    laptop.run()
    assert laptop.kinds() == [Starting, Joined, Lost, Starting, Joined, Left]


def test_a_laptop_with_another_address_joins_again_with_that(laptop):
    def move():
        laptop.address = "10.0.0.9"
        laptop.head.lose_connections()
        laptop.node.end = lambda **_: None  # the head cannot be told, and counts it as alive for a minute

    laptop.then = {(Joined, 1): move, (Joined, 2): laptop.ask_to_stop}
    laptop.run()
    joined = [event.record for event in laptop.events if isinstance(event, Joined)]
    assert [record.address for record in joined] == ["10.0.0.2", "10.0.0.9"]
    assert [record.name for record in joined] == ["b", "b"]


def test_a_node_that_joins_again_listens_on_other_ports_whoever_asks(laptop):
    """The head may still wait for answers from the old ones."""

    def cut():
        laptop.node.end = lambda **_: None  # the record stays on the board
        laptop.head.client.alive.clear()

    laptop.then = {(Joined, 1): cut, (Joined, 2): laptop.ask_to_stop}
    laptop.monkeypatch.setattr(FakeBoard, "remove_node", lambda self, name: None)
    laptop.run()
    first, second = (plan.ports for plan in laptop.starts.plans)
    assert not {first.node_manager, *first.workers} & {second.node_manager, *second.workers}
    assert first.base == second.base
    laptop.stop, laptop.then = False, {(Joined, 1): laptop.ask_to_stop}
    laptop.events.clear()
    laptop.run()
    assert laptop.starts.plans[-1].ports.turn == 2, "another command goes on counting"


def test_a_connection_that_is_lost_while_it_joins_again_is_made_anew(laptop):
    def lose():
        laptop.node.lost = "raylet"
        laptop.monkeypatch.setattr(member, "NodeProcesses", fail_once)

    def fail_once(*_, **__):
        laptop.head.lose_connections()
        laptop.monkeypatch.setattr(member, "NodeProcesses", laptop.starts)
        raise ClusterError("the head does not answer")

    laptop.then = {(Joined, 1): lose, (Joined, 2): laptop.ask_to_stop}
    laptop.run()
    assert laptop.kinds() == [Starting, Joined, Lost, Starting, Waiting, Starting, Joined, Left]


def test_without_any_way_to_the_head_the_node_stays(laptop):
    def cut():
        laptop.address = None
        laptop.head.listens = Nothing("Network is unreachable")
        laptop.stop_at = time.monotonic() + 0.3

    laptop.then[Joined, 1] = cut
    laptop.run()
    assert laptop.kinds() == [Starting, Joined, Left]


def test_a_head_that_ends_is_waited_for_and_one_started_anew_is_joined_by_itself(laptop):
    def end_head():
        laptop.head.listens = Nothing("Connection refused", refused=True)

    def start_head():
        laptop.head.listens = None
        laptop.head.start_anew()

    laptop.then = {(Joined, 1): end_head, (Waiting, 2): start_head, (Joined, 2): laptop.ask_to_stop}
    laptop.run()
    assert laptop.kinds() == [Starting, Joined, Lost, Waiting, Starting, Joined, Left]


def test_a_head_that_was_replaced_between_two_looks_is_noticed(laptop):
    laptop.then = {(Joined, 1): laptop.head.start_anew, (Joined, 2): laptop.ask_to_stop}
    laptop.run()
    assert [event.why for event in laptop.events if isinstance(event, Lost)] == ["the head was started anew"]


def test_a_code_that_the_head_does_not_accept_any_more_ends_it_with_one_line(laptop):
    def change_code():
        laptop.head.token = "of another code"
        laptop.head.start_anew()

    laptop.then[Joined, 1] = change_code
    with pytest.raises(ClusterError, match="does not accept this join code"):
        laptop.run()
    assert laptop.node.ended == [False]


def test_what_fails_at_first_is_said_and_what_fails_later_is_tried_again(laptop):
    laptop.starts.fail = ["a port is taken"]
    with pytest.raises(ClusterError, match="a port is taken"):
        laptop.run()

    def lose():
        laptop.node.lost = "raylet"
        laptop.starts.fail = ["a port is taken"]

    laptop.then = {(Joined, 1): lose, (Joined, 2): laptop.ask_to_stop}
    laptop.events.clear()
    laptop.run()
    assert laptop.kinds() == [Starting, Joined, Lost, Starting, Waiting, Starting, Joined, Left]


def test_an_unfit_laptop_takes_no_work_until_it_is_fit_again(laptop):
    states = []

    def change():
        laptop.code_on_disk = "changed"

    def mend():
        states.append((laptop.board.nodes()[0].state, laptop.node.node_folder.leaving()))
        laptop.code_on_disk = "same"

    def look_again():
        states.append((laptop.board.nodes()[0].state, laptop.node.node_folder.leaving()))
        laptop.ask_to_stop()

    laptop.then = {(Joined, 1): change, (Unfit, 1): mend, (FitAgain, 1): look_again}
    laptop.run()
    (unfit, why), fit = states
    assert unfit == "unfit"
    assert "has changed since it joined" in why
    assert fit == ("ready", None)


def test_a_clock_that_is_an_hour_off_is_seen_by_the_heads_record(laptop):
    def put(clock):
        laptop.head.board(token=CODE.token).put_node(NodeRecord("a", "10.0.0.1", is_head=True, clock=clock))

    laptop.then = {(Joined, 1): lambda: put(time.time() + 7300), (Unfit, 1): laptop.ask_to_stop}
    laptop.run()
    assert "2.0 h behind the head's" in next(event.why for event in laptop.events if isinstance(event, Unfit))


def test_a_name_that_another_laptop_has_gets_a_number():
    nodes = [
        NodeRecord("b", "10.0.0.7", "aa"),
        NodeRecord("b-2", "10.0.0.8", "bb"),
        NodeRecord("c", "10.0.0.9", "cc"),
    ]
    assert free_name("b", "10.0.0.2", nodes, {"aa", "bb"}, ()) == "b-3"
    assert free_name("d", "10.0.0.2", nodes, {"aa", "bb"}, ()) == "d"
    assert free_name("b", "10.0.0.7", nodes, {"aa", "bb"}, ()) == "b", "another `join` of this laptop had it"
    assert free_name("b", "10.0.0.2", nodes, {"bb"}, ()) == "b", "whoever had it is dead"
    assert free_name("b", "10.0.0.2", nodes, {"aa", "bb"}, ("aa",)) == "b", "it had it itself, at another address"
