"""What a command's flags mean for a search that may have started before."""

import pytest
from few_images import config_with

from pipeline.search.defaults import DEFAULT_TRIALS, LEAST_TRIAL_MB
from pipeline.search.request import Request
from pipeline.search.store import SearchStatus

UNFINISHED = SearchStatus(target=20, proposed=12, finished=10, best=0.5)
FINISHED = SearchStatus(target=20, proposed=20, finished=20, best=0.5)
EXHAUSTED = SearchStatus(target=20, proposed=6, finished=6, best=0.5, is_exhausted=True)


@pytest.fixture
def asked(base, space):
    return lambda **words: Request(base, space, **words)


@pytest.mark.parametrize(
    ("words", "status", "target"),
    [
        ({}, None, DEFAULT_TRIALS),
        ({"trials": 5}, None, 5),
        ({}, UNFINISHED, 20),
        ({"trials": 5}, UNFINISHED, 20),
        ({"trials": 25}, UNFINISHED, 25),
        ({"extend": 5}, UNFINISHED, 20),
        ({"extend": 5}, FINISHED, 25),
        ({"trials": 30, "extend": 5}, FINISHED, 25),
    ],
)
def test_the_target_is_what_is_asked_for_and_never_less_than_before(asked, words, status, target):
    assert asked(**words).target(status) == target


@pytest.mark.parametrize(
    ("words", "status", "is_met"),
    [
        ({}, UNFINISHED, False),
        ({}, FINISHED, True),
        ({"trials": 5}, FINISHED, True),
        ({"trials": 21}, FINISHED, False),
        ({"extend": 1}, FINISHED, False),
        ({"extend": 1}, EXHAUSTED, True),
        ({"trials": 99}, EXHAUSTED, True),
    ],
)
def test_a_search_is_done_with_its_trials_or_with_its_space(asked, words, status, is_met):
    assert asked(**words).is_met(status) == is_met


def test_settings_of_a_new_search_are_the_flags_and_the_defaults(asked):
    words = {"searcher": "random", "scheduler": "none", "address": "a:1"}
    settings = asked(cap_mb=900, reserve_mb=700, concurrency=3, **words).settings(None)
    assert (settings.trials, settings.max_epochs, settings.mode, settings.seed) == (DEFAULT_TRIALS, 2, "max", 0)
    assert (settings.cap_mb, settings.least_cap_mb, settings.concurrency) == (900, LEAST_TRIAL_MB, 3)
    assert settings.reserve_mb == 700
    assert (settings.searcher, settings.scheduler, settings.address) == ("random", "none", "a:1")


def test_a_search_that_continues_keeps_its_target_unless_one_is_asked_for(asked):
    assert asked().settings(UNFINISHED).trials == 20
    assert asked(trials=25).settings(UNFINISHED).trials == 25


@pytest.mark.parametrize(("epochs", "grace"), [(2, 1), (9, 1), (10, 2), (30, 6)])
def test_the_scheduler_spares_the_first_fifth_of_the_epochs(space, epochs, grace):
    assert Request(config_with(f"train.epochs={epochs}"), space).settings(None).grace_epochs == grace


@pytest.mark.parametrize(("threads", "cores"), [("2", 2), ("null", 1)])
def test_a_trial_computes_with_as_many_threads_as_it_has_cores_and_without_a_time_limit(space, threads, cores):
    request = Request(config_with(f"compute.threads={threads}", "compute.max_time_s=9"), space)
    assert request.settings(None).cpus_per_trial == cores
    assert request.base_config().compute.threads == cores
    assert request.base_config().compute.max_time_s is None
