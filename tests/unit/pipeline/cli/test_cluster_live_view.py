import io
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.cli.cluster_live_view import JoinView
from pipeline.cli.console import Watcher
from pipeline.cluster.joining import Comparison
from tuning.cluster.comparison import compare
from tuning.cluster.node_events import Beat, Joined, Left, Lost, Unfit
from tuning.cluster.node_record import NodeRecord, SearchSummary, TrialOnNode
from tuning.cluster.versions import Versions

HEAD = NodeRecord(
    "a", "10.0.0.1", is_head=True, gives_mb=5000, versions=Versions("3.12.3", "2.60.0", "2.13.0", "cafe")
)
HERE = Versions("3.12.9", "2.60.1", "2.13.0", "cafe")
B = NodeRecord("b", "10.0.0.2", cores=2, gives_mb=3000, reserve_mb=600, free_mb=4000, versions=HERE)
TRIAL = TrialOnNode("medium-ab", 7, 2, 5, 0.5, 700, 900)
SEARCH = SearchSummary("medium-ab", 3, 30, 0.812, 61.2)


def beat(*trials, **changes):
    return Beat((HEAD, replace(B, trials=trials, **changes)), (SEARCH,))


@pytest.fixture
def view():
    view = JoinView(Watcher(), "10.0.0.1")
    view.heard(Joined(B, 1.0))
    return view


def told(capsys):
    return [line.split("  ", 2)[-1].strip() for line in capsys.readouterr().err.splitlines()]


def test_the_comparison_is_one_table_with_what_to_do(view, capsys):
    lines = compare(B, HEAD, clock_off_s=0.0, disk_free_mb=9000.0, reach=None)
    view.sleep = "stays awake"
    view.compared(Comparison(B, HEAD, lines))
    out = capsys.readouterr().out
    assert "here (b)" in out
    assert "there (a)" in out
    (ray,) = [line for line in out.splitlines() if line.startswith("Ray ")]
    assert ray.split() == ["Ray", "2.60.1", "2.60.0", "does", "not", "fit", "install", "ray==2.60.0", "here"]
    (python,) = [line for line in out.splitlines() if line.startswith("Python ")]
    assert "may differ" in python
    assert out.endswith("gives 2 cores and 3000 MB to trials; 600 MB stay free\nstays awake\n")


def test_where_nothing_differs_there_is_nothing_to_do(view, capsys):
    alike = replace(B, versions=HEAD.versions)
    view.compared(Comparison(alike, HEAD, compare(alike, HEAD, clock_off_s=0.0, disk_free_mb=9000.0, reach=None)))
    assert "what to do" not in capsys.readouterr().out


def test_in_a_pipe_trials_are_lines_as_they_begin_get_on_and_end(view, capsys):
    capsys.readouterr()
    view.heard(beat(TRIAL))
    assert told(capsys) == ["trial 7 of medium-ab runs here"]
    view.heard(beat(replace(TRIAL, held_mb=800)))
    assert told(capsys) == []
    view.heard(beat(replace(TRIAL, epoch=3, value=0.625), replace(TRIAL, row=8)))
    assert told(capsys) == [
        "trial 7 of medium-ab: epoch 3/5, 62.50 %, 700 of 900 MB",
        "trial 8 of medium-ab runs here",
    ]
    view.heard(beat(replace(TRIAL, row=8)))
    assert told(capsys) == ["trial 7 of medium-ab runs here no more"]
    view.heard(Lost("no head answers"))
    assert told(capsys) == [
        "trial 8 of medium-ab runs here no more", "out of the cluster: no head answers; joins again by itself",
    ]  # fmt: skip


def test_what_the_board_says_before_this_laptop_is_on_it_shows_nothing(view, capsys):
    capsys.readouterr()
    view.heard(Beat((HEAD,), ()))
    assert told(capsys) == []


def test_in_a_terminal_trials_memory_and_search_are_drawn_and_removed_at_the_end(view, monkeypatch):
    drawn = io.StringIO()
    view._watcher.is_live = True
    monkeypatch.setattr(view._watcher, "console", lambda: Console(file=drawn, width=120, force_terminal=True))
    view.heard(beat(TRIAL))
    text = drawn.getvalue()
    assert "b in the cluster of 10.0.0.1 (2 laptops): 1 trial, 700 of 3000 MB held, 4000 MB free" in text
    assert "3 of 30 trials, best 81.20 %, 61 trials an hour" in text
    for cell in ("2/5", "50.00 %", "700 of 900 MB"):
        assert cell in text
    view.heard(Unfit("its disk is full"))
    assert "takes no more trials: its disk is full" in drawn.getvalue()
    live = view._live
    view.heard(Left("Ctrl-C"))
    assert view._live is None
    assert not live.is_started


def test_the_headline_says_why_no_more_trials_are_taken(view):
    assert "takes no more trials: its disk is full" in view.headline(replace(B, why="its disk is full"), 2)
    assert "0 trials" in view.headline(B, 2)
