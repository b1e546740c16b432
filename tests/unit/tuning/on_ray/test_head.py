import socket
import time
from dataclasses import replace

import pytest
from fake_head import FakeHead, Starts, plan

from tuning.cluster.join_code import JoinCode
from tuning.cluster.node_events import Beat, FitAgain, Joined, Leaving, Left, OtherGone, OtherJoined, Starting, Unfit
from tuning.cluster.node_record import NodeRecord, SearchSummary, TrialOnNode
from tuning.cluster.orders import Order
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray import head
from tuning.on_ray.board import Call
from tuning.on_ray.head import Others, unreachable
from tuning.on_ray.reach import reached

CODE = JoinCode("0" * 21, "ABCDE")
B = NodeRecord("b", "10.0.0.2", node_id="b1")


class Up:
    """Runs a head in this thread; `then` says what happens when an event of a kind has come for the nth time."""

    def __init__(self, tmp_path, monkeypatch):
        self.head = FakeHead(token=CODE.token)
        self.starts = Starts(self.head, tmp_path / "nodes")
        self.events = []
        self.stop = False
        self.then = {}
        self.comes_back = False
        self.code_on_disk = "same"
        self.plan = plan(tmp_path, "a", lambda: self.code_on_disk)
        for name in ("LOOK_S", "BEAT_S"):
            monkeypatch.setattr(head, name, 0.0)
        monkeypatch.setattr(head, "LEAVE_S", 0.3)
        monkeypatch.setattr(head, "OTHERS_END_S", 0.3)
        monkeypatch.setattr("tuning.on_ray.own_node.CODE_S", 0.0)
        monkeypatch.setattr(head, "NodeProcesses", self.starts)
        monkeypatch.setattr(head, "Board", self.head.board)

    def run(self):
        until = time.monotonic() + 10

        def on_event(event):
            self.events.append(event)
            count = sum(isinstance(each, type(event)) for each in self.events)
            if (type(event), count) in self.then:
                self.then[type(event), count]()

        def should_stop():
            assert time.monotonic() < until, self.events[-3:]
            return self.stop

        return head.run(self.plan, "10.0.0.1", CODE, on_event, should_stop, lambda: self.comes_back)

    def ask_to_stop(self):
        self.stop = True

    def put(self, record):
        self.head.client.alive.add(record.node_id)
        self.board.put_node(record)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def node(self):
        return self.starts.started[-1]

    @property
    def board(self):
        return self.head.board(token=CODE.token)


@pytest.fixture
def up(tmp_path, monkeypatch):
    return Up(tmp_path, monkeypatch)


def test_a_head_answers_once_it_has_said_so_and_leaves_nothing(up):
    seen = []
    up.then = {(Joined, 1): lambda: seen.extend(up.board.nodes()), (Beat, 2): up.ask_to_stop}
    assert up.run() == "asked to end"
    assert [type(event) for event in up.events if not isinstance(event, Beat)] == [Starting, Joined, Leaving, Left]
    (record,) = seen
    assert record.is_head
    assert (record.name, record.address, record.node_id) == ("a", "10.0.0.1", "0001")
    assert up.node.ended == [True]


def test_at_the_end_every_node_is_told_and_waited_for(up):
    up.then[Joined, 1] = lambda: up.put(B)
    up.then[OtherJoined, 1] = up.ask_to_stop
    began = time.monotonic()
    up.run()
    assert up.board.order_for("b") is Order.DOWN
    assert time.monotonic() - began >= 0.3, "b did not answer, and was waited for no longer than that"


def test_a_head_that_comes_back_tells_nobody_to_end(up):
    up.comes_back = True
    up.then[Joined, 1] = lambda: up.put(B)
    up.then[OtherJoined, 1] = up.ask_to_stop
    assert "same join code" in up.run()
    assert up.board.order_for("b") is None
    assert up.node.ended == [True]


def test_trials_here_are_sent_away_first(up):
    why = []

    def start_trial():
        up.node.node_folder.write_trial(TrialOnNode("search", 3))

    def end_trial():
        up.node.node_folder.remove_trial()

    up.then = {(Joined, 1): start_trial, (Beat, 2): up.ask_to_stop}
    up.then[Leaving, 1] = lambda: why.append(up.of(Leaving)[0].trials)
    up.then[Left, 1] = end_trial
    up.run()
    assert why == [1]
    assert up.node.node_folder.leaving() == "asked to end"


def test_an_order_ends_it(up):
    up.then[Joined, 1] = lambda: up.board.give_order("a", Order.DOWN)
    assert up.run() == "the cluster was taken down"


def test_a_lost_process_ends_it_with_one_line(up):
    def lose():
        up.node.lost = "gcs_server"

    up.then[Beat, 2] = lose
    with pytest.raises(ClusterError, match=r"was lost .*start it again"):
        up.run()
    assert len(up.node.ended) == 1


def test_a_board_that_fails_for_a_moment_is_opened_again(up):
    up.then[Beat, 2] = up.head.start_anew
    up.then[Beat, 5] = up.ask_to_stop
    assert up.run() == "asked to end"


def test_a_start_that_was_interrupted_is_no_error(up, monkeypatch):
    def interrupted(*_):
        raise AskedToLeaveError

    monkeypatch.setattr(head, "NodeProcesses", interrupted)
    assert up.run() == "asked to end"


def test_it_says_who_joins_and_who_is_lost_and_takes_the_lost_off_the_board(up):
    up.then = {
        (Beat, 1): lambda: up.put(B),
        (OtherJoined, 1): lambda: up.head.client.alive.discard("b1"),
        (OtherGone, 1): lambda: up.then.update({(Beat, len(up.of(Beat)) + 2): up.ask_to_stop}),
    }
    up.run()
    assert up.of(OtherJoined) == [OtherJoined("b", "10.0.0.2")]
    assert [event.name for event in up.of(OtherGone)] == ["b"]
    assert [node.name for node in up.board.nodes()] == ["a"]


def test_beats_tell_the_searches_too(up):
    up.then = {(Joined, 1): lambda: up.board.put_search(SearchSummary("medium", 3, 30)), (Beat, 2): up.ask_to_stop}
    up.run()
    assert up.of(Beat)[-1].searches == (SearchSummary("medium", 3, 30),)


def test_an_unfit_head_takes_no_work_until_it_is_fit_again(up):
    states = []

    def change():
        up.code_on_disk = "changed"

    def mend():
        states.append(up.node.node_folder.leaving())
        up.code_on_disk = "same"

    def look_again():
        states.append(up.node.node_folder.leaving())
        up.ask_to_stop()

    up.then = {(Joined, 1): change, (Unfit, 1): mend, (FitAgain, 1): look_again}
    up.run()
    assert "has changed since" in states[0]
    assert states[1] is None


def test_others_are_told_once_by_the_node_that_they_are_now():
    others = Others()
    assert others.look([B], {"b1"}) == [OtherJoined("b", "10.0.0.2")]
    assert others.look([B], {"b1"}) == []
    back = replace(B, node_id="b2")
    assert [type(event) for event in others.look([back], {"b2"})] == [OtherJoined]
    assert others.look([], {"b2"}) == [OtherGone("b", "it has left")]
    assert others.look([B], frozenset()) == [], "a node that was never seen alive is not lost"


def test_ports_of_a_node_that_do_not_answer_are_named():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        open_port, closed_port = server.getsockname()[1], silent.getsockname()[1]
        assert unreachable(Call("1", "127.0.0.1", (open_port, closed_port))) == [closed_port]


def test_a_node_listens_while_the_head_calls_it(up):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []
    calling = {}

    def call():
        import threading

        def ask():
            found.append(reached(up.board, "127.0.0.1", [port]))
            up.ask_to_stop()

        calling["thread"] = threading.Thread(target=ask)
        calling["thread"].start()

    up.then[Joined, 1] = call
    up.run()
    calling["thread"].join()
    assert found[0].unreachable == ()
    assert abs(found[0].clock_off_s) < 1
