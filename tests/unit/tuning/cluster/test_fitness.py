import pytest

from tuning.cluster.comparison import CLOCKS_TOO_FAR_S, LEAST_DISK_MB
from tuning.cluster.fitness import HeadClock, unfit_because


def test_a_node_with_disk_clock_and_code_in_order_takes_work():
    assert unfit_because(LEAST_DISK_MB, CLOCKS_TOO_FAR_S, code_is_the_same=True) is None


@pytest.mark.parametrize(
    ("disk", "clock", "same", "words"),
    [
        (LEAST_DISK_MB - 1, 0.0, True, "disk is full"),
        (9e9, 3600.0, True, "1.0 h behind the head's"),
        (9e9, -600.0, True, "10 min ahead of the head's"),
        (9e9, 0.0, False, "has changed since it joined"),
    ],
)
def test_what_makes_a_node_unfit_is_one_line_that_says_what_to_do(disk, clock, same, words):
    why = unfit_because(disk, clock, same)
    assert words in why
    assert "\n" not in why
    assert "; " in why


def test_the_heads_clock_is_read_from_fresh_records_only():
    clock = HeadClock()
    clock.read(1000.0, 990.0)
    assert clock.off_s == 10.0
    clock.read(1000.0, 5000.0)  # the head sleeps, and its record stands still
    assert clock.off_s == 10.0
    clock.read(5012.0, 5001.0)
    assert clock.off_s == 11.0
