import pytest

from tuning.rows_without_room import RowsWithoutRoom

LEFT = "left laptop, which is short of memory (310 MB free)"


@pytest.fixture
def notes():
    return []


@pytest.fixture
def rows(notes):
    return RowsWithoutRoom(notes.append)


def test_what_rows_wait_for_is_known_for_those_that_run(rows):
    rows.waits(3, "waits for room on laptop")
    rows.waits(4, "waits for room on desktop")
    rows.waits(4, "waits for less")
    assert rows.waiting({4, 5}) == {4: "waits for less"}
    rows.started(4)
    assert rows.waiting({3, 4}) == {3: "waits for room on laptop"}
    assert not rows.gone(3), "it waited, and did not leave"
    assert rows.waiting({3, 4}) == {}


def test_a_row_that_left_its_node_is_leaving_until_its_process_is_gone(rows):
    assert not rows.is_leaving(3)
    rows.leaves(3, LEFT)
    assert rows.is_leaving(3)
    assert rows.gone(3)
    assert not rows.is_leaving(3)
    assert not rows.gone(3)


def test_the_user_reads_of_a_row_once_until_it_runs_again(rows, notes):
    rows.leaves(3, LEFT)
    rows.gone(3)
    rows.waits(3, "waits for room on laptop")
    assert notes == ["trial 3 left laptop, which is short of memory (310 MB free); it goes on when there is room"]
    rows.waits(4, "waits for room on laptop")
    assert notes[1:] == ["trial 4 waits for room on laptop"]
    rows.started(3)
    rows.leaves(3, LEFT)
    assert len(notes) == 3
