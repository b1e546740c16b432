"""A run's journal that is filled from repeated snapshots."""

import time

import pytest

from pipeline.search.run_journal import RunJournal
from pipeline.tracking import delivery_state
from pipeline.tracking.delivery import RunIdentity
from pipeline.tracking.journal import FILE_NAME, read

RUN = RunIdentity("key", "name")


@pytest.fixture
def opened(tmp_path, tracker):
    folder = tmp_path / "run"
    folder.mkdir()
    return lambda: RunJournal(tracker, RUN, folder, "search/f/00000")


@pytest.fixture
def events(tmp_path):
    return lambda: [(event.kind, event.content) for event in read(tmp_path / "run" / FILE_NAME)]


def record(tracker):
    return delivery_state.read_run(tracker.workspace, "key")


def test_only_new_and_changed_tags_are_written_also_by_a_later_command(opened, events):
    first = opened()
    first.tags({"a": "1", "b": "1"})
    first.tags({"a": "1", "b": "2"})
    first.tags({"a": "1"})
    opened().tags({"b": "2", "c": "3"})
    assert [content["values"] for _, content in events()] == [{"a": "1", "b": "1"}, {"b": "2"}, {"c": "3"}]


def test_a_metric_is_written_once_for_each_step_also_by_a_later_command(opened, events):
    first = opened()
    first.metrics({"a": 1.0}, 1)
    first.metrics({"a": 9.0, "b": 1.0}, 1)
    opened().metrics({"a": 9.0, "b": 9.0}, 1)
    opened().metrics({"a": 2.0}, 2)
    assert [(content["step"], content["values"]) for _, content in events()] == [
        (1, {"a": 1.0}), (1, {"b": 1.0}), (2, {"a": 2.0})
    ]  # fmt: skip


def test_it_knows_what_an_earlier_command_wrote(opened):
    first = opened()
    assert not first.has("params")
    first.journal.params({"x": 1})
    assert opened().has("params")
    assert not opened().has("tags")


def test_a_run_that_was_forgotten_can_still_be_closed(opened, events, tracker):
    run = opened()
    run.tags({"a": "1"})
    run.metrics({"a": 1.0}, 1)
    run.record("FINISHED")
    run.forget()
    run.close("FINISHED", time.monotonic())
    assert len(events()) == 2
    assert record(tracker).status == "FINISHED"


def test_what_is_recorded_is_the_journal_so_far_and_the_status(opened, tracker):
    run = opened()
    assert run.recorded_status is None
    run.tags({"a": "1"})
    run.record("RUNNING")
    assert run.is_open
    assert record(tracker).journals["search/f/00000"].upto == run.journal.offset
    run.record("FINISHED")
    assert not run.is_open
    assert run.recorded_status == opened().recorded_status == "FINISHED"


def test_the_same_again_is_not_recorded_again(opened, tracker, monkeypatch):
    recorded = []
    monkeypatch.setattr(tracker, "record", lambda *_, upto, status: recorded.append((upto, status)))
    run = opened()
    for _ in range(2):
        run.record("RUNNING")
    run.tags({"a": "1"})
    run.record("RUNNING")
    run.record("KILLED")
    assert [status for _, status in recorded] == ["RUNNING", "RUNNING", "KILLED"]


def test_a_run_is_closed_with_its_status_and_waits_no_longer_than_asked(opened, tracker):
    run = opened()
    run.tags({"a": "1"})
    started = time.monotonic()
    run.close("KILLED", started)
    assert time.monotonic() - started < 5
    assert not run.is_open
    assert record(tracker).status == "KILLED"
