"""The watch over a cluster's nodes, with nodes, a board and a head that answer as the test wants."""

import time

import pytest

from tuning.capacity import Node
from tuning.cluster.node_record import NodeRecord, SearchSummary
from tuning.errors import ClusterError
from tuning.on_ray import node_watch
from tuning.on_ray.node_watch import NodeWatch, known_to_board

DESK, HP = Node("desk", 2, 3000, "1"), Node("hp", 4, 4000, "2")
FACTS = {"precision": "fp32"}


def record(name="hp", node_id="2", **changes):
    return NodeRecord(name, "10.0.0.3", node_id, facts=FACTS, **changes)


def test_of_a_node_without_a_record_nothing_more_is_known():
    assert known_to_board([DESK, HP], [record("other", "9")]) == [DESK, HP]


def test_a_node_has_the_facts_of_its_record():
    [node] = known_to_board([HP], [record()])
    assert (node, node.facts) == (HP, FACTS)


@pytest.mark.parametrize(
    ("changes", "why_not"),
    [
        ({"state": "leaving", "why": "it is switched off"}, "it is switched off"),
        ({"state": "unfit"}, "unfit"),
        ({"state": "ready", "why": "of before"}, ""),
    ],
)
def test_a_node_that_leaves_or_is_unfit_takes_no_work(changes, why_not):
    [node] = known_to_board([HP], [record(**changes)])
    assert node.why_not == why_not


def test_a_node_whose_name_has_another_one_by_now_is_left_out():
    assert known_to_board([DESK, HP], [record(node_id="3")]) == [DESK]
    assert known_to_board([HP], [record(node_id="")]) == [HP], "a record of before it joined says nothing"


class World:
    def __init__(self):
        self.nodes, self.records, self.put, self.removed = [DESK], [], [], []
        self.head, self.error = True, None

    def alive(self):
        return self.nodes

    def is_head_alive(self):
        return self.head


class Board:
    def __init__(self, world):
        self.world = world

    def nodes(self):
        if self.world.error:
            raise self.world.error
        return self.world.records

    def put_search(self, search):
        self.world.put.append(search)

    def remove_search(self, name):
        self.world.removed.append(name)


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(node_watch, "LOOK_S", 0.005)
    monkeypatch.setattr(node_watch, "HEAD_S", 0.005)
    return World()


@pytest.fixture
def watch(world):
    return NodeWatch(world.alive, Board(world), world.is_head_alive)


def until(done):
    limit = time.monotonic() + 5
    while not done() and time.monotonic() < limit:
        time.sleep(0.002)
    assert done()


def test_the_nodes_are_those_of_the_last_look(world, watch):
    assert watch.nodes() is None
    with watch:
        until(lambda: watch.nodes() == [DESK])
        world.nodes = [DESK, HP]
        until(lambda: watch.nodes() == [DESK, HP])
        world.records = [record(state="leaving", why="it leaves")]
        until(lambda: watch.nodes()[1].why_not == "it leaves")


def test_a_board_that_does_not_answer_leaves_what_it_said_before(world, watch):
    world.nodes, world.records = [HP], [record(state="leaving", why="it leaves")]
    watch.look()
    world.error = ClusterError("no answer")
    assert watch.look()[0].why_not == "it leaves"


def test_what_the_search_says_of_itself_is_shown_now_and_then_and_removed_with_it(world, watch):
    summary = SearchSummary("abc", 3, 5)
    watch.say(summary)
    for _ in range(3):
        watch.look()
    assert world.put == [summary]
    with watch:
        pass
    until(lambda: world.removed == ["abc"])


def test_a_head_that_is_gone_ends_the_search(world, watch):
    with watch:
        until(lambda: watch.nodes() is not None)
        world.head = False
        with pytest.raises(ClusterError, match="head is gone"):
            watch.while_head_lives(lambda: time.sleep(1))
        with pytest.raises(ClusterError, match="head is gone"):
            watch.nodes()


def test_as_long_as_the_head_lives_a_call_is_made(watch):
    with watch:
        assert watch.while_head_lives(lambda: 7) == 7
