"""What ends a remote call's stay, with a home, a node and a room that answer as the test wants."""

import time

import pytest
from fake_ray import Handle

from tuning.cluster.node_folder import NodeFolder
from tuning.on_ray import remote_stay
from tuning.on_ray.remote_stay import NO_ROOM, NODE_LEAVES, Stay
from tuning.room import Shortfall


class World:
    """The room, and the actor at home."""

    def __init__(self):
        self.verdict = "stay"
        self.was_short = False
        self.missing = []
        self.asked = ""
        self.held = []
        self.kills = []
        self.reports = []

    def check(self, held_mb):
        self.held.append(held_mb)
        return self.verdict

    def take(self):
        return self.missing.pop() if self.missing else None

    def stop_reason(self):
        return self.asked

    def wait_until(self, done):
        until = time.monotonic() + 5
        while not done() and time.monotonic() < until:
            time.sleep(0.002)
        assert done()


@pytest.fixture
def world(ray, monkeypatch):
    monkeypatch.setattr(remote_stay, "ray", ray)
    monkeypatch.setattr(remote_stay, "ASK_S", 0.005)
    monkeypatch.setattr(remote_stay, "LOOK_S", 0.005)
    monkeypatch.setattr(remote_stay, "tree_memory_mb", lambda pid: 60.0 if pid == 42 else 0.0)
    return World()


@pytest.fixture
def node(tmp_path):
    folder = NodeFolder(tmp_path / "node")
    folder.create()
    return folder


@pytest.fixture
def stay(world, node):
    with Stay(Handle(world), world, node) as made:
        made.on_start(world.kills.append)
        made.pid = 42
        yield made


def test_without_a_cause_it_stays(world, stay):
    world.wait_until(lambda: len(world.held) > 3)
    assert (stay.why_leave(), stay.is_for_room, world.kills) == (None, False, [])
    assert world.held[-1] == stay.held_mb == 60.0


def test_memory_is_not_watched_before_the_work_has_begun(world, stay, node):
    stay.pid = None
    world.wait_until(lambda: stay.why_leave() is None)
    seen = len(world.held)
    node.ask_to_leave("bye")
    world.wait_until(lambda: stay.why_leave() == NODE_LEAVES)
    assert len(world.held) <= seen + 1


def test_home_s_word_is_passed_on(world, stay):
    world.asked = "enough"
    world.wait_until(lambda: stay.why_leave() == "enough")
    world.asked = "something else"
    time.sleep(0.02)
    assert stay.why_leave() == "enough", "the first word counts"


def test_a_node_that_leaves_ends_the_stay_and_not_for_room(world, stay, node):
    world.was_short = True
    node.ask_to_leave("bye")
    world.wait_until(lambda: stay.why_leave() == NODE_LEAVES)
    assert not stay.is_for_room


def test_short_memory_asks_the_work_to_leave_and_then_kills_it(world, stay):
    world.verdict = "leave"
    world.wait_until(lambda: stay.why_leave() == NO_ROOM)
    assert stay.is_for_room
    assert world.kills == []
    world.verdict = "kill"
    world.wait_until(lambda: world.kills)
    assert world.kills[0] == NO_ROOM


def test_work_that_was_killed_while_memory_was_short_left_for_room(world, stay):
    assert not stay.is_for_room
    world.was_short = True
    assert stay.is_for_room
    world.asked = "enough"
    world.wait_until(lambda: not stay.is_for_room)


def test_outside_of_a_node_there_is_no_node_that_leaves(world):
    with Stay(Handle(world), world, None) as stay:
        time.sleep(0.02)
        assert stay.why_leave() is None


def test_it_waits_for_room_and_says_so_after_a_while(world, stay, monkeypatch):
    monkeypatch.setattr(remote_stay, "SILENT_S", 0.0)
    world.missing = [Shortfall(500, 100, 300)] * 3
    assert stay.wait_for_room(world.reports.append, "B")
    assert world.reports == ["waits for room on B: 500 MB and 100 to spare, 300 are free"]


def test_a_short_wait_is_not_worth_a_word(world, stay):
    world.missing = [Shortfall(500, 100, 300)] * 3
    assert stay.wait_for_room(world.reports.append, "B")
    assert world.reports == []


@pytest.mark.parametrize("missing", [0, 1000])
def test_work_that_is_to_leave_does_not_begin(world, stay, missing):
    world.asked = "enough"
    world.missing = [Shortfall(500, 100, 300)] * missing
    world.wait_until(lambda: stay.why_leave() == "enough")
    assert not stay.wait_for_room(world.reports.append, "B")
