"""What makes a running trial leave, with a room and a search that answer as the test wants."""

import time
from types import SimpleNamespace

import pytest

from tuning.on_ray import leaving
from tuning.on_ray.leaving import NO_ROOM, SEARCH_LEAVES, Leaving


class World:
    def __init__(self):
        self.verdict = "stay"
        self.was_short = False
        self.asked = False
        self.held = []
        self.kills = []

    def check(self, held_mb):
        self.held.append(held_mb)
        return self.verdict

    def stop_asked(self):
        return self.asked

    def wait_until(self, done):
        until = time.monotonic() + 5
        while not done() and time.monotonic() < until:
            time.sleep(0.002)
        assert done()


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(leaving, "ASK_S", 0.005)
    monkeypatch.setattr(leaving, "LOOK_S", 0.005)
    monkeypatch.setattr(leaving, "tree_memory_mb", lambda pid: 60.0 if pid == 42 else 0.0)
    return World()


@pytest.fixture
def watching(world):
    with Leaving(world, world) as made:
        made.on_start(world.kills.append)
        yield made


def test_without_a_cause_it_stays(world, watching):
    world.wait_until(lambda: len(world.held) > 3)
    assert (watching.should_stop(), watching.is_for_room, world.kills) == (None, False, [])


def test_what_the_trial_holds_is_measured_once_its_process_is_known(world, watching):
    world.wait_until(lambda: world.held)
    assert world.held[0] == 0.0
    watching.pid = 42
    world.wait_until(lambda: world.held[-1] == 60.0)


def test_short_memory_asks_it_to_leave_and_then_kills_it(world, watching):
    world.verdict = "leave"
    world.wait_until(lambda: watching.should_stop() == NO_ROOM)
    assert watching.is_for_room
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
    world.verdict, world.asked = "leave", True
    world.wait_until(lambda: watching.should_stop() == SEARCH_LEAVES)
    assert not watching.is_for_room


def test_a_kill_by_the_kernel_is_for_room_where_memory_was_short(world, watching):
    world.was_short = True
    assert watching.is_for_room


def test_a_kill_before_the_child_was_started_is_no_error(world):
    with Leaving(world, SimpleNamespace(check=world.check, was_short=False)) as early:
        world.verdict = "kill"
        world.wait_until(lambda: early.should_stop() == NO_ROOM)


def test_nothing_is_watched_after_the_trial(world, watching):
    watching.__exit__()
    time.sleep(0.05)
    count = len(world.held)
    time.sleep(0.05)
    assert len(world.held) == count
