"""The wait for room, under a clock that its sleep moves."""

from types import SimpleNamespace

import pytest

from tuning.on_ray import messages
from tuning.on_ray.room_wait import ASK_S, GIVE_BACK_S, LOOK_S, REPORT_S, SILENT_S, RoomWait
from tuning.room import Shortfall


class Wait:
    """There is room after `until` seconds; the search leaves after `leaves`, another node is there after `other`,
    and the node leaves from `node_leaves` to `node_stays`."""

    def __init__(self):
        self.now = 0.0
        self.until = self.leaves = self.node_leaves = self.node_stays = 1e9
        self.other = 0.0
        self.said = []
        self.asked = 0

    def take(self):
        return None if self.now >= self.until else Shortfall(1000, 600, 1500 - self.now)

    def order(self):
        assert "gives_row_back" not in [text for _, text in self.said], "of its row another attempt is the newest"
        self.asked += 1
        return "leave" if self.now >= self.leaves else "stay"

    def search_leaves(self):
        self.asked += 1
        return self.now >= self.leaves

    def leaving(self):
        return "it is switched off" if self.node_leaves <= self.now < self.node_stays else None

    def sleep(self, seconds):
        self.now += seconds

    def run(self, may_move=False):
        room = SimpleNamespace(take=self.take)
        attempt = SimpleNamespace(
            node="laptop",
            order=self.order,
            search_leaves=self.search_leaves,
            has_other_nodes=lambda: self.now >= self.other,
            report=lambda message: self.said.append((self.now, message.get("text", message["kind"]))),
        )
        return RoomWait(room, attempt, self if may_move else None, may_move, lambda: self.now, self.sleep).is_over()


@pytest.fixture
def wait():
    return Wait()


def test_with_room_it_starts_at_once(wait):
    wait.until = 0.0
    assert wait.run()
    assert (wait.now, wait.said) == (0.0, [])


def test_it_starts_as_soon_as_there_is_room_and_a_short_wait_is_not_reported(wait):
    wait.until = SILENT_S - LOOK_S
    assert wait.run()
    assert wait.until <= wait.now <= wait.until + LOOK_S
    assert wait.said == []


def test_what_it_waits_for_is_reported_again_with_new_figures(wait):
    wait.until = SILENT_S + 2 * REPORT_S + LOOK_S
    assert wait.run()
    assert [now for now, _ in wait.said] == [SILENT_S, SILENT_S + REPORT_S, SILENT_S + 2 * REPORT_S]
    assert wait.said[0][1] == "waits for room on laptop: 1000 MB and 600 to spare, 1497 are free"
    assert wait.said[1][1].endswith("1492 are free")


def test_where_its_row_may_go_elsewhere_it_gives_it_back_once_and_keeps_the_place_until_there_is_room(wait):
    wait.until = 3 * GIVE_BACK_S
    assert not wait.run(may_move=True)
    assert wait.now == wait.until
    assert wait.said[-1] == (GIVE_BACK_S, messages.GIVES_ROW_BACK["kind"])
    assert all("waits for room" in text for _, text in wait.said[:-1])


def test_with_room_in_time_it_keeps_its_row(wait):
    wait.until = GIVE_BACK_S - LOOK_S
    assert wait.run(may_move=True)


def test_without_its_row_it_leaves_when_asked_to(wait):
    wait.leaves = 2 * GIVE_BACK_S
    assert not wait.run(may_move=True)
    assert wait.now <= wait.leaves + ASK_S


def test_it_leaves_when_asked_to_soon(wait):
    wait.leaves = 7.1
    assert not wait.run()
    assert wait.leaves <= wait.now <= wait.leaves + ASK_S
    assert wait.asked <= 16, "the store is not asked at each look"


def test_a_search_that_leaves_already_starts_nothing(wait):
    wait.until = wait.leaves = 0.0
    assert not wait.run()


def test_it_keeps_its_row_as_long_as_there_is_no_other_node(wait):
    wait.other = 2.5 * GIVE_BACK_S
    wait.until = 4 * GIVE_BACK_S
    assert not wait.run(may_move=True)
    assert wait.said[-1] == (3 * GIVE_BACK_S, "gives_row_back")


def test_on_a_node_that_leaves_it_gives_its_row_back_at_once_and_keeps_the_place_though_there_is_room(wait):
    wait.node_leaves = wait.until = 0.0
    wait.leaves = 60.0
    assert not wait.run(may_move=True)
    assert wait.said == [(0.0, "gives_row_back")]
    assert wait.now >= wait.leaves


def test_on_a_node_that_stays_after_all_it_gives_its_place_to_another_trial(wait):
    wait.node_leaves = wait.until = 0.0
    wait.node_stays = 20.0
    assert not wait.run(may_move=True)
    assert wait.node_stays <= wait.now <= wait.node_stays + LOOK_S
