"""How a command starts on the search that it finds."""

import pytest
from few_images import config_with
from ledgers import end, write_ledger

from pipeline.errors import ConfigError
from pipeline.search.request import Request
from pipeline.search.start import check_extension, closest_other, decide, will_run_trials
from pipeline.search.store import SearchFolder, SearchStatus
from pipeline.workspace.locks import exclusive

UNFINISHED = SearchStatus(target=20, proposed=12, finished=10, best=0.5)
FINISHED = SearchStatus(target=20, proposed=20, finished=20, best=0.5)
EXHAUSTED = SearchStatus(target=20, proposed=6, finished=6, best=None, is_exhausted=True)
LOWER = "it aims for 20 trials, which --trials 5 does not lower"
FIRST = "--extend is for a search that has all of its trials; this one goes on to them first"


@pytest.fixture
def asked(base, space):
    return lambda **words: Request(base, space, **words)


@pytest.fixture
def finished(search):
    search.create()
    write_ledger(search.path, [end(value=0.5), end("memory_cap")], target=2)
    return search


@pytest.mark.parametrize(
    ("words", "status", "kind", "why", "notes"),
    [
        ({}, None, "new", "not started yet", []),
        ({}, UNFINISHED, "continue", "going on: 10 of 20 trials, best 50.00 %", []),
        ({"extend": 3}, UNFINISHED, "continue", "going on: 10 of 20 trials, best 50.00 %", [FIRST]),
        (
            {"extend": 3, "trials": 5},
            UNFINISHED,
            "continue",
            "going on: 10 of 20 trials, best 50.00 %",
            [FIRST, LOWER],
        ),
        ({}, FINISHED, "done", "up to date", []),
        ({"trials": 5}, FINISHED, "done", "up to date", [LOWER]),
        ({"extend": 3}, EXHAUSTED, "done", "up to date", []),
        ({"extend": 3}, FINISHED, "extend", "3 more: 20 of 20 trials, best 50.00 %", []),
        ({"trials": 24}, FINISHED, "extend", "4 more: 20 of 20 trials, best 50.00 %", []),
        ({"fresh": True}, FINISHED, "replace", "--fresh, in place of 20 of 20 trials, best 50.00 %", []),
    ],
)
def test_a_command_starts_continues_extends_replaces_or_has_nothing_to_do(asked, words, status, kind, why, notes):
    start = decide(asked(**words), status, is_there=status is not None)
    assert (start.kind, start.why, list(start.notes)) == (kind, why, notes)


def test_fresh_replaces_a_damaged_search_and_is_a_new_one_where_there_is_none(asked):
    assert decide(asked(fresh=True), None, is_there=True).why == "--fresh, in place of a damaged one"
    assert decide(asked(fresh=True), None, is_there=False).kind == "new"


def test_a_damaged_search_without_fresh_is_a_new_one(asked):
    assert decide(asked(), None, is_there=True).kind == "new"


@pytest.mark.parametrize(
    ("words", "runs"), [({}, False), ({"trials": 2}, False), ({"extend": 1}, True), ({"fresh": True}, True)]
)
def test_trials_run_unless_there_is_nothing_to_do(asked, finished, words, runs):
    assert will_run_trials(asked(**words), finished) == runs


def test_trials_run_where_no_search_has_started(asked, search):
    assert will_run_trials(asked(), search)


def test_while_another_command_runs_the_search_this_one_may_have_nothing_to_do(asked, finished):
    with exclusive(finished.lock, print, what="it"):
        assert not will_run_trials(asked(extend=1), finished)


def test_only_a_search_that_started_can_be_extended(asked, search):
    check_extension(asked(), search)
    with pytest.raises(ConfigError, match=r"^there is no search with these settings to extend$"):
        check_extension(asked(extend=1), search)
    search.create()
    write_ledger(search.path, [None], target=3)
    check_extension(asked(extend=1), search)
    with pytest.raises(ConfigError, match="give one of them"):
        check_extension(asked(extend=1, fresh=True), search)


def test_where_there_is_nothing_to_extend_the_search_before_is_named(workspace, space, asked, finished):
    changed = SearchFolder.of(
        workspace, config_with("train.epochs=3", "model.layers=2", "seed=4", "train.ema_decay=0.5"), space
    )
    with pytest.raises(ConfigError) as caught:
        check_extension(asked(extend=1), changed)
    text = str(caught.value)
    assert text.startswith(
        f"there is no search with these settings to extend; the one before, {finished.fingerprint} ("
    )
    assert "2 of 2 trials, best 50.00 %" in text
    assert str(finished.path) in text
    assert "other settings: " in text
    assert text.endswith(" and 1 more")
    assert closest_other(finished) is None, "it is not another one than itself"
