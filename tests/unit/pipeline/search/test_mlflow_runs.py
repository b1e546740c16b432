"""The MLflow runs of a search, as far as their journals."""

from dataclasses import replace

import pytest
from ledgers import end, reports, run_trial

from pipeline.search.mlflow_runs import BEST, SearchMethod, SearchRuns
from pipeline.tracking import delivery_state
from pipeline.tracking.journal import read
from tuning.ledger import Ledger
from tuning.observer import Snapshot


@pytest.fixture
def ledger(search):
    search.create()
    with Ledger(search.path, {}) as ledger:
        ledger.raise_target(3)
        yield ledger


@pytest.fixture
def runs(search, base, space, tracker):
    def open_runs(cap_mb=700):
        return SearchRuns(search, search.create(), base, space, SearchMethod("optuna", "asha", cap_mb), tracker)

    return open_runs


def config(number):
    return {"train.learning_rate": 0.001 * (number + 1), "model.hidden": 16}


def trial(ledger, number, values=(0.4, 0.6), outcome="completed", observers=()):
    """A trial from its start to its end, as a driver reports it."""
    value = max(values, default=None) if outcome in ("completed", "stopped") else None
    run_trial(ledger, config(number), end(outcome, value, epochs=len(values)), values, observers)


def events(folder, kind):
    return [event.content for event in read(folder / "journal.jsonl") if event.kind == kind]


def tags(folder):
    return {key: value for event in events(folder, "tags") for key, value in event["values"].items()}


def series(folder, key):
    return {event["step"]: event["values"][key] for event in events(folder, "metrics") if key in event["values"]}


def status(search, key):
    record = delivery_state.read_run(search.workspace, key)
    return record.status, record.parent


def test_a_trials_run_says_what_it_was_how_it_went_and_how_it_ended(search, runs, ledger):
    searched = runs()
    trial(ledger, 0, observers=[searched])
    folder = search.path / "trials" / "000"
    [params] = events(folder, "params")
    assert list(params["values"])[:2] == ["train.learning_rate", "model.hidden"], "what was searched comes first"
    assert params["values"]["model.hidden"] == 16
    assert params["values"]["train.epochs"] == 2
    assert series(folder, "validation/accuracy") == {1: 0.4, 2: 0.6}
    assert series(folder, BEST) == {1: 0.4, 2: 0.6}
    assert series(folder, "train/loss") == {1: 1.0, 2: 0.5}
    assert series(folder, "peak_memory_mb") == {1: 301.0, 2: 302.0, 3: 303.0}
    assert series(folder, "duration_s") == {3: 9.5}
    assert tags(folder)["seqpipe.outcome"] == "completed"
    assert tags(folder)["seqpipe.node"] == "laptop"
    assert tags(folder)["seqpipe.memory_cap_mb"] == "700"
    assert (folder / "config.yaml").is_file()
    key = searched.identity.key
    assert status(search, f"{key}-00000") == ("FINISHED", key)


@pytest.mark.parametrize(
    ("outcome", "expected", "note"),
    [
        ("stopped", "FINISHED", ""),
        ("memory_cap", "KILLED", "**memory_cap**: held 710 MB, cap 700 MB"),
        ("diverged", "FAILED", ""),
        ("failed", "FAILED", "**failed**: no data"),
    ],
)
def test_each_outcome_has_its_status_and_says_why(search, runs, ledger, outcome, expected, note):
    searched = runs()
    trial(ledger, 0, outcome=outcome, observers=[searched])
    assert status(search, f"{searched.identity.key}-00000")[0] == expected
    told = tags(search.path / "trials" / "000")
    assert told["seqpipe.outcome"] == outcome
    assert told["mlflow.note.content"] == note


def test_the_searchs_run_counts_outcomes_and_follows_the_best(search, runs, ledger):
    searched = runs()
    trial(ledger, 0, observers=[searched])
    trial(ledger, 1, values=(0.9,), outcome="memory_cap", observers=[searched])
    trial(ledger, 2, values=(0.2, 0.7), observers=[searched])
    assert series(search.path, BEST) == {1: 0.6, 2: 0.6, 3: 0.7}
    assert series(search.path, "trials/memory_cap") == {1: 0.0, 2: 1.0, 3: 1.0}
    assert tags(search.path)["seqpipe.best_trial"] == "002"
    [params] = events(search.path, "params")
    assert params["values"]["space.model.hidden"] == "8 | 16 | 32"
    assert status(search, searched.identity.key)[0] == "RUNNING"
    searched.end(ledger.rows, "FINISHED", [(search.path / "search.json", "")], "**done**", 0.0)
    assert status(search, searched.identity.key)[0] == "FINISHED"
    assert [event["file"] for event in events(search.path, "artifact")] == ["search.json"]


def test_whatever_a_killed_command_left_unwritten_is_written_by_the_next_and_nothing_twice(search, runs, ledger):
    first = runs()
    trial(ledger, 0, observers=[first])
    trial(ledger, 1, values=(0.3,), outcome="stopped")  # nobody told
    run_trial(ledger, config(2), None, [0.5])
    again = runs()
    snapshot = Snapshot(tuple(ledger.rows), frozenset(), 3, 1, 700, 0.0, 0.0, None, False)
    again.ticked(snapshot)
    again.ticked(snapshot)
    for number in range(3):
        folder = search.path / "trials" / f"{number:03d}"
        assert len(events(folder, "params")) == 1
        told = [(event["step"], key) for event in events(folder, "metrics") for key in event["values"]]
        assert len(told) == len(set(told))
    assert series(search.path / "trials" / "001", BEST) == {1: 0.3}
    key = again.identity.key
    assert key == first.identity.key
    assert status(search, f"{key}-00001") == ("FINISHED", key)
    assert status(search, f"{key}-00002") == ("RUNNING", key)
    again.abort("KILLED", 0.0)
    assert status(search, f"{key}-00002")[0] == "KILLED"
    assert status(search, f"{key}-00001")[0] == "FINISHED"
    assert status(search, key)[0] == "KILLED"


def test_of_a_trial_that_has_ended_nothing_is_kept_and_nothing_written_again(search, runs, ledger):
    searched = runs()
    trial(ledger, 0, observers=[searched])
    journal = search.path / "trials" / "000" / "journal.jsonl"
    written = journal.read_bytes()
    kept = searched._trials[0]
    assert [kept._tags, kept._steps, kept._kinds] == [{}, set(), set()]
    searched.end(ledger.rows, "FINISHED", [], "**done**", 0.0)
    assert journal.read_bytes() == written


def test_an_epoch_that_is_reported_again_after_a_crash_is_told_once(search, runs, ledger):
    searched = runs()
    ledger.propose(config(0), "default")
    searched.started(ledger.start(0, "laptop"))
    [first] = reports([0.5])
    for report in (first, replace(first, peak_mb=305.0)):
        searched.reported(ledger.report(0, report), report)
    assert series(search.path / "trials" / "000", "peak_memory_mb") == {1: 301.0}


def test_a_search_that_was_refused_leaves_no_run(search, runs):
    searched = runs()
    searched.abort("FAILED", 0.0)
    assert delivery_state.read_run(search.workspace, searched.identity.key) is None


def test_trials_that_failed_and_were_begun_again_are_told_as_what_they_became(search, runs, ledger):
    first = runs()
    trial(ledger, 0, values=(), outcome="failed", observers=[first])
    trial(ledger, 1, values=(), outcome="failed", observers=[first])
    again = runs()
    for number in (0, 1):
        ledger.reopen(number)
        again.started(ledger.start(number, "laptop"))
        [report] = reports([0.5])
        again.reported(ledger.report(number, report), report)
        again.finished(ledger.finish(number, end("completed", 0.5, epochs=1)))
    folder = search.path / "trials" / "000"
    assert tags(folder)["seqpipe.outcome"] == "completed"
    assert tags(folder)["mlflow.note.content"] == ""
    assert series(folder, "peak_memory_mb") == {0: 303.0, 1: 301.0, 2: 303.0}
    failed, completed = (series(search.path, f"trials/{outcome}") for outcome in ("failed", "completed"))
    assert failed[max(failed)] == 0
    assert completed[max(completed)] == 2


def test_an_infeasible_trial_has_a_run_that_says_what_it_needs(search, runs, ledger):
    searched = runs()
    number = ledger.propose(config(0), "default").number
    needs = {
        "peak_mb": 1240.0,
        "cap_mb": 1000.0,
        "error": "needs 1240 MB, cap 1000",
        "is_forecast": True,
        "epochs": 0,
    }
    searched.finished(ledger.finish(number, end("memory_cap", **needs)))
    folder = search.path / "trials" / "000"
    assert tags(folder)["mlflow.note.content"] == "**memory_cap**: needs 1240 MB, cap 1000 MB: not started"
    assert series(folder, "forecast_memory_mb") == {0: 1240.0}
    assert series(folder, "peak_memory_mb") == {}
    assert status(search, f"{searched.identity.key}-00000")[0] == "KILLED"


def test_a_fitted_trial_has_its_forecast_and_how_it_was_fitted(search, runs, ledger):
    searched = runs()
    number = ledger.propose(config(0), "default").number
    searched.started(ledger.start(number, "laptop"))
    searched.fitted(ledger.fit(number, 650.4, "32 images at once"))
    folder = search.path / "trials" / "000"
    assert tags(folder)["seqpipe.fitted"] == "32 images at once"
    assert tags(folder)["seqpipe.forecast_memory_mb"] == "650"
    number = ledger.propose(config(1), "random").number
    searched.started(ledger.start(number, "laptop"))
    searched.fitted(ledger.fit(number, 300.0, ""))
    assert "seqpipe.fitted" not in tags(search.path / "trials" / "001")


def test_what_a_trial_computes_with_is_among_its_tags(search, runs, ledger):
    searched = runs()
    number = ledger.propose(config(0), "default").number
    searched.started(ledger.start(number, "laptop"))
    searched.described(ledger.describe(number, {"precision": "bf16", "kernel": "native"}))
    found = tags(search.path / "trials" / "000")
    assert (found["seqpipe.precision"], found["seqpipe.kernel"], found["seqpipe.node"]) == (
        "bf16",
        "native",
        "laptop",
    )
