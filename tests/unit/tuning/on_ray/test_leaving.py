"""What makes a running trial leave, with a room and a search that answer as the test wants."""

import time
from types import SimpleNamespace

import pytest
import ray

from tuning.on_ray import leaving
from tuning.on_ray.leaving import NO_ROOM, NODE_LEAVES, OUTDATED, SEARCH_IS_GONE, SEARCH_LEAVES, Leaving


class World:
    def __init__(self):
        self.verdict = "stay"
        self.was_short = False
        self.free_mb = 310.0
        self.order_now = "stay"
        self.why = None
        self.node = "laptop"
        self.held = []
        self.kills = []

    def check(self, held_mb):
        self.held.append(held_mb)
        return self.verdict

    def order(self):
        if isinstance(self.order_now, Exception):
            raise self.order_now
        return self.order_now

    def leaving(self):
        return self.why

    def wait_until(self, done):
        until = time.monotonic() + 5
        while not done() and time.monotonic() < until:
            time.sleep(0.002)
        assert done()


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(leaving, "ASK_S", 0.005)
    monkeypatch.setattr(leaving, "LOOK_S", 0.005)
    monkeypatch.setattr(leaving, "LEAVE_S", 0.1)
    monkeypatch.setattr(leaving, "tree_memory_mb", lambda pid: 60.0 if pid == 42 else 0.0)
    return World()


@pytest.fixture
def watching(world):
    with Leaving(world, world, world) as made:
        made.on_start(world.kills.append)
        yield made


def test_without_a_cause_it_stays(world, watching):
    world.wait_until(lambda: len(world.held) > 3)
    assert (watching.should_stop(), watching.left_for_another_node(), world.kills) == (None, None, [])
    assert watching.may_stay()


def test_what_the_trial_holds_is_measured_once_its_process_is_known(world, watching):
    world.wait_until(lambda: world.held)
    assert world.held[0] == 0.0
    watching.pid = 42
    world.wait_until(lambda: world.held[-1] == 60.0)


def test_short_memory_asks_it_to_leave_and_then_kills_it(world, watching):
    world.verdict = "leave"
    world.wait_until(lambda: watching.should_stop() == NO_ROOM)
    assert watching.left_for_another_node() == "left laptop, which is short of memory (310 MB free)"
    assert world.kills == []
    world.verdict = "kill"
    world.wait_until(lambda: world.kills)
    assert world.kills[0] == NO_ROOM


def test_it_has_to_leave_even_if_memory_is_free_again(world, watching):
    world.verdict = "leave"
    world.wait_until(lambda: watching.should_stop() == NO_ROOM)
    world.verdict = "stay"
    count = len(world.held)
    world.wait_until(lambda: len(world.held) > count + 2)
    assert watching.should_stop() == NO_ROOM


def test_the_search_s_wish_comes_first(world, watching):
    world.verdict, world.order_now, world.why = "leave", "leave", "it is switched off"
    world.wait_until(lambda: watching.should_stop() == SEARCH_LEAVES)
    assert watching.left_for_another_node() is None


def test_a_node_that_leaves_asks_it_to_leave_and_kills_it_after_a_while(world, watching):
    world.why = "it is switched off"
    world.wait_until(lambda: watching.should_stop() == NODE_LEAVES)
    assert watching.left_for_another_node() == "left laptop (it is switched off)"
    assert world.kills == []
    world.wait_until(lambda: world.kills)
    assert world.kills[0] == NODE_LEAVES


def test_it_has_left_its_node_even_if_that_stays_after_all(world, watching):
    world.why = "its disk is full"
    world.wait_until(lambda: watching.should_stop() == NODE_LEAVES)
    world.why = None
    count = len(world.held)
    world.wait_until(lambda: len(world.held) > count + 2)
    assert watching.left_for_another_node() == "left laptop (its disk is full)"


@pytest.mark.parametrize(
    ("order", "reason"), [("end", OUTDATED), (ray.exceptions.RayError("the actor died"), SEARCH_IS_GONE)]
)
def test_one_that_nobody_listens_to_any_more_is_ended_at_once(world, watching, order, reason):
    world.order_now = order
    world.wait_until(lambda: world.kills)
    assert world.kills == [reason]
    assert watching.left_for_another_node() is None


def test_one_that_the_search_asks_to_leave_may_save(world, watching):
    world.order_now = "leave"
    world.wait_until(lambda: not watching.may_stay())
    time.sleep(0.05)
    assert world.kills == []


def test_a_kill_by_the_kernel_is_for_room_where_memory_was_short(world, watching):
    world.was_short = True
    assert "short of memory" in watching.left_for_another_node()


def test_a_kill_before_the_child_was_started_is_no_error(world):
    with Leaving(world, SimpleNamespace(check=world.check, was_short=False), None) as early:
        world.verdict = "kill"
        world.wait_until(lambda: early.should_stop() == NO_ROOM)


def test_nothing_is_watched_after_the_trial(world, watching):
    watching.__exit__()
    time.sleep(0.05)
    count = len(world.held)
    time.sleep(0.05)
    assert len(world.held) == count
