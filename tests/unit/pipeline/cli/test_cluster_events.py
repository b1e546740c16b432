import pytest

from pipeline.cli.cluster_events import NodeView, at_this_time, in_words
from tuning.cluster.node_events import (
    Beat,
    FitAgain,
    Joined,
    Leaving,
    Left,
    Lost,
    OtherGone,
    OtherJoined,
    Starting,
    Unfit,
    Waiting,
)
from tuning.cluster.node_record import NodeRecord, TrialOnNode

B = NodeRecord("b", "10.0.0.2")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Starting(), "starting Ray"),
        (Joined(B, 3.2), "in the cluster, after 3 s"),
        (Joined(B, 3.2, again=True), "in the cluster again, after 3 s"),
        (OtherJoined("c", "10.0.0.3"), "c (10.0.0.3) has joined"),
        (OtherGone("c", "left"), "c is gone: left"),
        (Lost("no head answers"), "out of the cluster: no head answers; joins again by itself"),
        (Unfit("its disk is full"), "takes no more trials: its disk is full"),
        (FitAgain(), "takes trials again"),
        (Leaving("Ctrl-C", 0), "leaving: Ctrl-C"),
        (Leaving("Ctrl-C", 1), "leaving: Ctrl-C; 1 trial saves"),
        (Leaving("told to", 2), "leaving: told to; 2 trials save"),
        (Left("Ctrl-C"), None),
        (Beat((), ()), None),
    ],
)
def test_every_event_has_its_line_or_none(event, words):
    assert in_words(event) == words


def test_a_line_begins_with_the_time_of_day():
    time, _, words = at_this_time("b has joined").partition("  ")
    assert words == "b has joined"
    assert [len(part) for part in time.split(":")] == [2, 2, 2]


def test_the_laptop_is_kept_awake_by_its_own_trials_alone():
    view = NodeView()
    assert not view.has_joined
    view.heard(Joined(B, 1.0))
    assert (view.name, view.has_joined) == ("b", True)
    busy = (TrialOnNode("s", 1),)
    view.heard(Beat((NodeRecord("a", "x", trials=busy), B), ()))
    assert not view.has_trials
    view.heard(Beat((NodeRecord("b", "x", trials=busy),), ()))
    assert view.has_trials
    view.heard(Lost("no head answers"))
    assert not view.has_trials


def test_attempts_that_end_alike_are_one_line_which_says_what_to_type():
    view = NodeView()
    away = [Lost("its Ray processes have ended"), *[Waiting("no head answers", 1.0), Starting()] * 5]
    lines = [line for event in away if (line := view.line(event))]
    assert len(lines) == 2
    assert lines[1].startswith("no head answers; tries again")
    assert "`seqpipe cluster join`" in lines[1]
    assert view.line(Waiting("Ray could not be started", 5.0))
    assert view.line(Waiting("no head answers", 5.0))
    assert view.line(Joined(B, 1.0, again=True))
    assert view.line(Waiting("no head answers", 5.0)), "of another loss"
