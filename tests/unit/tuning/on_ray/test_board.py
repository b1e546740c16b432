import sys
import threading
import time
from pathlib import Path

import pytest
from fake_head import Client, FakeHead

from tuning.cluster.node_record import NodeRecord, SearchSummary, TrialOnNode
from tuning.cluster.orders import Order
from tuning.on_ray import board as board_module
from tuning.on_ray.board import Board, BoardError, TokenRefusedError
from tuning.on_ray.board_child import Store, answer

RECORD = NodeRecord("b", "10.0.0.2", node_id="ab", trials=(TrialOnNode("search", 3),))


def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Have boards start this instead of what talks to Ray."""
    script = tmp_path / "child.py"
    script.write_text(
        f"import json, sys, time\nsys.path[:0] = {sys.path!r}\nfrom tuning.on_ray.board_child import *\n{lines}\n"
    )
    monkeypatch.setattr(board_module, "_CHILD", script)


ANSWERING = """
from fake_head import Client
token = sys.stdin.readline().strip()
if token != "right":
    class AuthenticationError(Exception): pass
    say(failure(AuthenticationError("no such token\\nand more")))
    sys.exit()
store = Store(Client())
say({"value": store.session})
for line in sys.stdin:
    say(answer(store, json.loads(line)))
"""


def test_what_is_put_on_the_board_is_read_there():
    board = FakeHead().board()
    board.put_node(RECORD)
    board.put_node(NodeRecord("z-head", "10.0.0.1", is_head=True))
    board.put_node(NodeRecord("a", "10.0.0.3"))
    assert [node.name for node in board.nodes()] == ["z-head", "a", "b"]
    assert board.nodes()[2] == RECORD
    board.put_search(SearchSummary("medium", done=3, target=30))
    assert board.searches() == (SearchSummary("medium", done=3, target=30),)
    board.remove_search("medium")
    assert board.searches() == ()


def test_an_order_is_for_one_node_and_goes_with_it():
    board = FakeHead().board()
    board.put_node(RECORD)
    board.give_order("b", Order.LEAVE)
    assert board.order_for("b") is Order.LEAVE
    assert board.order_for("c") is None
    board.remove_node("b")
    assert board.order_for("b") is None
    assert board.nodes() == ()
    board.give_order("b", Order.DOWN)
    board.take_order_back("b")
    assert board.order_for("b") is None


def test_a_node_learns_which_of_its_ports_the_head_reaches_and_what_time_it_is_there():
    head = FakeHead()

    def answers() -> None:
        board = head.board()
        while not (calls := board.calls()):
            time.sleep(0.01)
        assert calls[0].address == "10.0.0.2"
        board.answer(calls[0], [7])
        assert board.calls() == ()

    answering = threading.Thread(target=answers)
    answering.start()
    reached = head.board().call_back("10.0.0.2", [6, 7])
    answering.join()
    assert reached.unreachable == (7,)
    assert abs(reached.clock_off_s) < 0.2


def test_a_head_that_does_not_call_back_is_not_waited_for():
    with pytest.raises(BoardError, match="called back"):
        FakeHead().board().call_back("10.0.0.2", [6], limit_s=0.2)


def test_a_board_talks_to_the_head_by_a_child(tmp_path, monkeypatch):
    child(tmp_path, monkeypatch, ANSWERING)
    with Board("host:1", "right") as board:
        assert board.session == "5e55"
        board.put_node(RECORD)
        assert board.nodes() == (RECORD,)
        assert board.live_nodes() == frozenset()


def test_a_token_that_is_refused_is_told_from_other_failures(tmp_path, monkeypatch):
    child(tmp_path, monkeypatch, ANSWERING)
    with pytest.raises(TokenRefusedError, match=r"no such token$"):
        Board("host:1", "wrong")
    child(tmp_path, monkeypatch, "sys.stdin.readline(); say(failure(OSError('no such host')))")
    with pytest.raises(BoardError, match="no such host") as caught:
        Board("host:1", "right")
    assert not isinstance(caught.value, TokenRefusedError)


@pytest.mark.parametrize("hangs", ["time.sleep(60)", "sys.stdin.readline(); say({'value': '1'}); time.sleep(60)"])
def test_a_child_that_hangs_is_given_up_and_ended(tmp_path, monkeypatch, hangs):
    monkeypatch.setattr(board_module, "CONNECT_S", 1.0)
    monkeypatch.setattr(board_module, "LIMIT_S", 0.3)
    child(tmp_path, monkeypatch, hangs)
    began = time.monotonic()
    with pytest.raises(BoardError, match="in time"):
        Board("host:1", "right").nodes()
    assert time.monotonic() - began < 5


def test_a_child_that_dies_is_an_error_and_the_board_stays_of_no_use(tmp_path, monkeypatch):
    child(tmp_path, monkeypatch, "sys.stdin.readline(); say({'value': '1'})")
    board = Board("host:1", "right")
    for _ in range(2):
        with pytest.raises(BoardError, match="does not answer"):
            board.nodes()


def test_the_token_is_no_argument_and_not_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of somebody else")
    child(
        tmp_path,
        monkeypatch,
        "sys.stdin.readline(); import os\n"
        "say({'value': repr([sys.argv[1:], [name for name in os.environ if name.startswith('RAY_')]])})",
    )
    with Board("host:1", "right") as board:
        assert board.session == "[['host:1'], []]"


def test_a_failed_request_is_one_line():
    class Failing(Client):
        def internal_kv_get(self, *_):
            raise TimeoutError("too\nlate")

    reply = answer(Store(Failing()), {"call": "get", "arguments": ["node", "b"]})
    assert reply == {"error": "too", "refused": False}
