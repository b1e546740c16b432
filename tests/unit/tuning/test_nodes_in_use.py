"""What a search says and does as nodes come and go."""

import pytest

from tuning.capacity import WORKER_MB, Node
from tuning.nodes_in_use import NodesInUse

HEAD = Node("desk", 2, 3000, "1")
CAP_MB = 1000
LAPTOP = Node("hp", 4, 3 * (CAP_MB + WORKER_MB), "2")


class Looks:
    def __init__(self, concurrency=None, cpus_per_trial=1.0):
        self.nodes = NodesInUse(CAP_MB, concurrency, cpus_per_trial)
        self.rows = {}

    def look(self, *nodes):
        return self.nodes.look(nodes, lambda name: self.rows.get(name, []))


@pytest.fixture
def looks():
    looks = Looks()
    looks.look(HEAD)
    return looks


def test_the_nodes_that_a_search_begins_with_are_nothing_to_tell():
    change = Looks().look(HEAD, LAPTOP)
    assert (change.capacity.concurrency, change.capacity.fits, change.lines) == (5, (2, 3), ())


def test_as_long_as_nothing_changes_there_is_no_change(looks):
    assert looks.look(HEAD) is None


def test_a_node_that_joins_is_used(looks):
    change = looks.look(HEAD, LAPTOP)
    assert (change.capacity.concurrency, change.gone) == (5, ())
    assert change.lines == ("hp joined: 3 more trials at once",)
    assert looks.look(HEAD, LAPTOP) is None


def test_no_more_trials_run_than_the_user_asked_for():
    looks = Looks(concurrency=2)
    looks.look(HEAD)
    assert looks.look(HEAD, LAPTOP).capacity.concurrency == 2


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (Node("hp", 4, 1159, "2"), "it gives 1159 MB, and one takes 1160"),
        (Node("hp", 1, 9000, "2"), "it has 1 cores, and each is to have 2"),
    ],
)
def test_a_node_with_too_little_gets_no_trial_and_the_user_reads_why(node, why):
    for first in ((), (node,)):
        looks = Looks(cpus_per_trial=2.0)
        lines = looks.look(HEAD, *first).lines
        change = looks.look(HEAD, node)
        assert (change.lines if change else lines) == (f"hp gets no trial: {why}",)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([3, 5], "hp is gone: its trials 3, 5 go on elsewhere"),
        ([3], "hp is gone: its trial 3 goes on elsewhere"),
        ([], "hp is gone: 3 fewer trials at once"),
    ],
)
def test_of_a_node_that_is_gone_the_trials_go_on_elsewhere(looks, rows, line):
    looks.look(HEAD, LAPTOP)
    looks.rows = {"hp": rows}
    change = looks.look(HEAD)
    assert (change.capacity.concurrency, change.gone, change.lines) == (2, ("hp",), (line,))


def test_a_node_that_was_away_and_is_back_at_once_was_gone_all_the_same(looks):
    looks.look(HEAD, LAPTOP)
    change = looks.look(HEAD, Node("hp", 4, LAPTOP.memory_mb, "3"))
    assert (change.gone, change.capacity.concurrency) == (("hp",), 5)
    assert change.lines == ("hp is gone: 3 fewer trials at once", "hp joined: 3 more trials at once")


def test_a_node_that_takes_no_more_work_counts_nothing_and_says_so_once(looks):
    looks.look(HEAD, LAPTOP)
    looks.rows = {"hp": [4]}
    leaving = Node("hp", 4, LAPTOP.memory_mb, "2", why_not="its disk is full")
    change = looks.look(HEAD, leaving)
    assert (change.capacity.concurrency, change.gone) == (2, ())
    assert change.lines == ("hp takes no more trials: its disk is full; its trial 4 goes on elsewhere",)
    assert looks.look(HEAD, leaving) is None
    looks.rows = {}
    assert looks.look(HEAD, LAPTOP).lines == ("hp takes trials again: 3 more trials at once",)


def test_a_node_that_leaves_as_the_search_begins_is_told_of(looks):
    leaving = Node("hp", 4, LAPTOP.memory_mb, "2", why_not="it leaves the cluster")
    change = Looks().look(HEAD, leaving)
    assert (change.capacity.concurrency, change.lines) == (2, ("hp takes no more trials: it leaves the cluster",))
    assert looks.look(HEAD, leaving).lines == change.lines
    assert looks.look(HEAD).lines == ("hp is gone",)


def test_where_no_node_has_room_the_search_waits_and_says_so_once():
    looks, small = Looks(), Node("desk", 2, 900, "1")
    looks.look(small, LAPTOP)
    change = looks.look(small)
    assert change.capacity.concurrency == 0
    assert change.lines[-1].startswith("no node has room for a trial of 1000 MB: the search waits for one that has")
    assert not any("waits" in line for line in looks.look(small, Node("tiny", 1, 500, "9")).lines)
    assert looks.look(small, LAPTOP).capacity.concurrency == 3
    assert "waits" in looks.look(small).lines[-1], "again"
