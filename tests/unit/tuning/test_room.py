"""When a trial may start, and when it has to leave: for a reserve of 800 MB."""

from dataclasses import replace

import pytest

from tuning.memory_pressure import MemoryReading
from tuning.promises import Promise
from tuning.room import LEAVE_S, SHORT_S, VERY_SHORT_S, Shortage, Shortfall, reserve_mb, shortfall

RESERVE = 800
PLENTY, SHORT, VERY_SHORT = 500, 390, 190
OLD, YOUNG = Promise(1.0, 1000, 900), Promise(2.0, 1000, 900)


def reading(available_mb, pressure=False):
    return MemoryReading(8000, available_mb, pressure)


@pytest.mark.parametrize(
    ("total_mb", "asked_mb", "reserve"), [(24_000, None, 2400), (4000, None, 512), (24_000, 100, 100)]
)
def test_the_reserve_is_a_tenth_and_at_least_512_mb_unless_asked_for(total_mb, asked_mb, reserve):
    assert reserve_mb(total_mb, asked_mb) == reserve


@pytest.mark.parametrize(("available_mb", "starts"), [(1600, True), (1599, False)])
def test_a_trial_starts_where_its_cap_and_three_quarters_of_the_reserve_are_free(available_mb, starts):
    missing = shortfall(1000, RESERVE, reading(available_mb), [])
    assert missing is None if starts else missing == Shortfall(1000, 600, available_mb)


def test_what_running_trials_may_still_take_is_not_free():
    promises = [Promise(0.0, 1000, 400), Promise(0.0, 500, 0), Promise(0.0, 500, 700)]
    assert shortfall(1000, RESERVE, reading(1600 + 600 + 500), promises) is None
    assert shortfall(1000, RESERVE, reading(1600 + 600 + 499), promises).free_mb == 1599


def test_a_shortfall_in_words():
    assert Shortfall(1240, 609, 900.4).in_words("laptop") == (
        "waits for room on laptop: 1240 MB and 609 to spare, 900 are free"
    )
    assert Shortfall(1240, 609, -5).in_words("laptop").endswith(", 0 are free")


class Node:
    """Decides for one trial, a quarter of a second after another."""

    def __init__(self, own=YOUNG, others=(OLD,)):
        self.shortage = Shortage(RESERVE)
        self.own, self.others = own, others
        self.now = 100.0

    def decide(self, available_mb, pressure=False):
        self.now += 0.25
        return self.shortage.decide(self.own, self.others, reading(available_mb, pressure), self.now)

    def verdicts(self, available_mb, seconds, pressure=False):
        """What is decided until something follows, and after how many seconds."""
        for step in range(int(seconds / 0.25) + 1):
            verdict = self.decide(available_mb, pressure)
            if verdict != "stay":
                return verdict, step * 0.25
        return "stay", seconds


def test_the_youngest_leaves_after_memory_was_short_for_two_seconds():
    assert Node().verdicts(SHORT, 10) == ("leave", SHORT_S)
    assert Node(OLD, [YOUNG]).verdicts(SHORT, 10)[0] == "stay"
    assert Node(OLD, []).verdicts(SHORT, 10) == ("leave", SHORT_S), "the last one leaves too"


@pytest.mark.parametrize("available_mb", [RESERVE / 2, PLENTY, 5000])
def test_half_of_the_reserve_is_enough(available_mb):
    assert Node().verdicts(available_mb, 10)[0] == "stay"


def test_a_shortage_that_passes_starts_anew():
    node = Node()
    assert node.verdicts(SHORT, SHORT_S - 0.25)[0] == "stay"
    assert node.shortage.is_on
    assert node.decide(PLENTY) == "stay"
    assert not node.shortage.is_on
    assert node.verdicts(SHORT, 10) == ("leave", SHORT_S)


def test_under_a_quarter_it_is_killed_and_sooner():
    assert Node().verdicts(VERY_SHORT, 10) == ("kill", VERY_SHORT_S)
    assert Node(OLD, [YOUNG]).verdicts(VERY_SHORT, 10)[0] == "stay"
    assert Node().verdicts(RESERVE / 4, 10) == ("leave", SHORT_S)


@pytest.mark.parametrize(("available_mb", "verdict"), [(599, "leave"), (600, "stay")])
def test_under_pressure_three_quarters_of_the_reserve_are_short(available_mb, verdict):
    assert Node().verdicts(available_mb, 10, pressure=True)[0] == verdict
    assert Node().verdicts(available_mb, 10)[0] == "stay"


def test_after_a_trial_left_for_pressure_none_starts_with_what_it_freed():
    for pressure, threshold in ((True, 599), (False, 399)):
        assert Node().verdicts(threshold, 10, pressure)[0] == "leave"
        assert shortfall(1000, RESERVE, reading(threshold + 1000), []) is not None


def test_one_that_leaves_is_killed_when_its_time_is_over_or_memory_very_short():
    leaving = replace(YOUNG, leaving_since=100.0)
    for available_mb in (SHORT, 5000):
        assert Node(leaving).verdicts(available_mb, 10) == ("kill", LEAVE_S - 0.25)
    node = Node(leaving)
    assert node.verdicts(SHORT, 1)[0] == "stay"
    assert node.decide(VERY_SHORT) == "kill"


def test_the_next_leaves_only_after_the_one_before_has_gone_and_two_seconds_more():
    node = Node(OLD, [replace(YOUNG, leaving_since=100.0)])
    assert node.verdicts(SHORT, 4)[0] == "stay"
    node.others = []
    assert node.verdicts(SHORT, 10) == ("leave", SHORT_S - 0.25)


def test_one_that_does_not_go_is_waited_for_no_longer():
    node = Node(OLD, [replace(YOUNG, leaving_since=100.0)])
    verdict, after_s = node.verdicts(SHORT, 30)
    assert verdict == "leave"
    assert LEAVE_S + SHORT_S <= after_s <= LEAVE_S + SHORT_S + 2.5
