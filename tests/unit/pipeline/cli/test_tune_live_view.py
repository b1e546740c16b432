"""What a search shows while it runs."""

import io

import pytest
from ledgers import end, row
from rich.console import Console

from pipeline.cli.console import Watcher
from pipeline.cli.tune_live_view import SearchView, finished_line, time_left_s
from tuning.observer import Snapshot, best_row

DEFAULT = {"train.learning_rate": 0.002}
ROWS = (
    row(0, DEFAULT, end("completed", 0.8, peak_mb=700.0, epochs=1, duration_s=60), [0.8]),
    row(1, {"train.learning_rate": 0.1}, end("memory_cap", peak_mb=950.0, cap_mb=900.0, epochs=0, duration_s=20)),
    row(2, {"train.learning_rate": 0.01}, curve=[0.5, 0.625]),
    row(3, {"train.learning_rate": 0.02}, starts=0),
)


def snapshot(rows=ROWS, **changes):
    running = frozenset(row.number for row in rows if row.finish is None)
    known = {
        "target": 6, "concurrency": 2, "cap_mb": 900, "overhead_mb": 850.0, "elapsed_s": 100.0, "leaving": False
    } | changes  # fmt: skip
    return Snapshot(rows=rows, running=running, best=best_row(rows, "max"), **known)


@pytest.fixture
def view():
    return SearchView(Watcher(), epochs=5, default=DEFAULT, max_time_s=None)


def test_the_headline_counts_every_kind_and_names_the_best(view):
    assert view.headline(snapshot()) == (
        "2 of 6 trials, best 80.00 % (trial 0), 2 running, 1 completed, 0 stopped, 1 capped, 0 failed, "
        "1 min 20 s left, 850 MB beside the trials"
    )
    assert view.headline(snapshot(leaving=True)).endswith("leaving, 850 MB beside the trials")
    assert view.headline(snapshot(rows=(), overhead_mb=0.0)) == (
        "0 of 6 trials, best -, 0 running, 0 completed, 0 stopped, 0 capped, 0 failed"
    )


def test_time_left_is_that_of_the_trials_or_of_the_limit_whichever_ends_first():
    assert time_left_s(snapshot(), None) == 4 * 40 / 2
    assert time_left_s(snapshot(), 130.0) == 30.0
    assert time_left_s(snapshot(), 99.0) == 0.0
    assert time_left_s(snapshot(rows=()), None) is None, "before the first trial is done"


def test_the_live_table_shows_each_running_trial(view, monkeypatch):
    drawn = io.StringIO()
    view._watcher.is_live = True
    monkeypatch.setattr(view._watcher, "console", lambda: Console(file=drawn, width=120, force_terminal=True))
    view.ticked(snapshot())
    view.close()
    text = drawn.getvalue()
    assert "2 of 6 trials" in text
    line = next(each for each in text.splitlines() if "62.50 %" in each)
    assert "2/5" in line
    assert "302 of 900 MB" in line
    assert "learning_rate 0.01" in line
    assert "0/5" in text
    assert "of 900 MB" in text


def test_where_there_is_more_than_one_node_the_table_shows_whose_each_trial_is(view, monkeypatch):
    drawn = io.StringIO()
    view._watcher.is_live = True
    monkeypatch.setattr(view._watcher, "console", lambda: Console(file=drawn, width=120, force_terminal=True))
    view.ticked(snapshot(nodes=("laptop",)))
    assert "laptop" not in drawn.getvalue()
    both = snapshot(nodes=("laptop", "hp"), waiting={3: "waits"})
    view.ticked(both)
    view.close()
    line = next(each for each in drawn.getvalue().splitlines() if "laptop" in each)
    assert "2/5" in line
    line = next(each for each in drawn.getvalue().splitlines() if "waits" in each and "running" not in each)
    assert "laptop" not in line, "where one waits may change"
    assert "on 2 nodes" in view.headline(both)


def test_without_a_node_that_has_room_no_time_left_is_known():
    assert time_left_s(snapshot(concurrency=0), None) is None


def test_a_trial_that_waits_for_room_says_what_for(view, monkeypatch):
    drawn = io.StringIO()
    view._watcher.is_live = True
    monkeypatch.setattr(view._watcher, "console", lambda: Console(file=drawn, width=120, force_terminal=True))
    waiting = snapshot(waiting={3: "waits for room on laptop: 900 MB and 384 to spare, 700 are free"})
    view.ticked(waiting)
    view.close()
    line = next(each for each in drawn.getvalue().splitlines() if "waits for room" in each)
    assert line.split()[1::2][:2] == ["3", "0/5"]
    assert "900 MB and 384 to spare, 700 are free" in line
    assert "1 running, 1 waiting for room, 1 completed" in view.headline(waiting)
    assert "waiting" not in view.headline(snapshot())


def test_in_a_pipe_nothing_is_drawn(view, capsys):
    view.ticked(snapshot())
    assert capsys.readouterr().err == ""


def test_a_finished_trial_is_one_plain_line(view, capsys):
    for finished in ROWS[:2]:
        view.finished(finished)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "  trial   0  completed   80.00 %  1 epochs  700 MB  1 min 0 s  the default config"
    assert second == f"  {finished_line(ROWS[1], DEFAULT)}"
    assert "memory_cap" in second
    assert "held 950 MB, cap 900 MB" in second


def test_the_error_that_ends_a_search_is_left_to_its_end(view, capsys):
    failed = row(0, DEFAULT, end("failed", error="ValueError: no"))
    view.finished(failed)
    view.noted("trial 0 failed: ValueError: no")
    assert "warning" not in capsys.readouterr().err
    view.reported(ROWS[2], ROWS[2].reports[0])
    view.noted("trial 0 failed: ValueError: no")
    assert "warning: trial 0 failed: ValueError: no" in capsys.readouterr().err


def test_how_a_trial_is_fitted_is_a_line_when_it_starts_first(view, capsys):
    view.fitted(row(2, DEFAULT, fitted="32 images at once"))
    view.fitted(row(3, DEFAULT, fitted="32 images at once", starts=2))
    view.fitted(row(4, DEFAULT))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "trial   2  32 images at once, to stay within its memory" in said


def test_a_trial_that_was_not_started_says_what_it_needs_and_no_time():
    needs = {"peak_mb": 1240.0, "cap_mb": 900.0, "error": "needs 1240 MB, cap 900", "is_forecast": True}
    line = finished_line(row(5, DEFAULT, end("memory_cap", **needs), starts=0), DEFAULT)
    assert line.endswith("memory_cap  needs 1240 MB, cap 900 MB: not started  the default config")
