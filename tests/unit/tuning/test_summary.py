import pytest
from ledgers import end, row

from tuning.observer import Snapshot
from tuning.summary import summary

ROWS = (row(0, {}, end(value=0.5)), row(1, {}, end(value=0.7)), row(2, {}))


def snapshot(**changes):
    known = {
        "rows": ROWS, "running": frozenset({2}), "target": 5, "concurrency": 2, "cap_mb": 900, "overhead_mb": 0.0,
        "elapsed_s": 1800.0, "best": ROWS[1], "leaving": False,
    }  # fmt: skip
    return Snapshot(**known | changes)


def test_how_far_a_search_is():
    found = summary("abc", snapshot())
    assert (found.name, found.done, found.target, found.best, found.trials_per_hour) == ("abc", 2, 5, 0.7, 4.0)


@pytest.mark.parametrize(
    ("changes", "rate"), [({"done_before": 1}, 2.0), ({"done_before": 2}, None), ({"elapsed_s": 0.0}, None)]
)
def test_the_rate_is_that_of_the_trials_of_this_run(changes, rate):
    assert summary("abc", snapshot(**changes)).trials_per_hour == rate


def test_without_a_completed_trial_there_is_no_best():
    assert summary("abc", snapshot(best=None)).best is None
