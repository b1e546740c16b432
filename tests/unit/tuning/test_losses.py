import pytest

from tuning.losses import Losses


@pytest.fixture
def losses():
    losses = Losses()
    losses.begun(3, 10.0)
    losses.started(3, "hp")
    return losses


def test_a_process_that_is_lost_by_itself_counts(losses):
    assert not losses.lost(3)
    assert losses.count(3) == 1
    assert losses.count(4) == 0


@pytest.mark.parametrize(("gone_at", "count"), [(9.9, 1), (10.0, 0), (50.0, 0)])
def test_one_that_is_lost_with_its_node_does_not_whichever_is_known_first(losses, gone_at, count):
    losses.node_gone("hp", gone_at)
    assert losses.lost(3) == (count == 0)
    assert losses.count(3) == count
    later = Losses()
    later.begun(3, 10.0)
    later.started(3, "hp")
    assert not later.lost(3)
    later.node_gone("hp", gone_at)
    assert later.count(3) == count


def test_another_node_that_goes_away_excuses_nothing_once_it_is_known_where_the_trial_ran(losses):
    losses.node_gone("dell", 20.0)
    assert not losses.lost(3)
    assert losses.count(3) == 1


def test_before_a_trial_has_started_any_node_may_have_been_its_own():
    losses = Losses()
    losses.begun(3, 10.0)
    losses.node_gone("dell", 20.0)
    assert losses.lost(3)
    assert losses.count(3) == 0


def test_each_attempt_is_judged_by_its_own_time(losses):
    losses.lost(3)
    losses.node_gone("hp", 20.0)
    losses.begun(3, 30.0)
    losses.started(3, "hp")
    assert not losses.lost(3)
    assert losses.count(3) == 1
