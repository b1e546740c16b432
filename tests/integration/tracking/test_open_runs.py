"""Runs that no process works on are closed as what they were."""

import shutil

from tracked_workspace import RUN, TRAIN, FinishedTraining, expected

from pipeline.tracking import delivery_state
from pipeline.tracking.delivery import RunIdentity
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.locks import exclusive


def test_dead_runs_are_closed_as_killed_and_live_ones_left(tracked):
    tracker = tracked.tracker()
    dead, alive = RunIdentity("dead-1", "dead"), RunIdentity("alive-1", "alive", lock="train-f00")
    tracked.epochs(1, 1)
    for run in (dead, alive):
        tracker.deliver(run, TRAIN, tracked.folder)
    assert {record.key for record in delivery_state.open_runs(tracked.workspace)} == {"dead-1", "alive-1"}
    with exclusive(tracked.workspace.lock("train-f00"), print, what="it"):
        assert tracker.close_dead() == ["dead"]
    client = tracker.connection.client()
    assert client.get_run(tracker.run_id(dead)).info.status == "KILLED"
    assert client.get_run(tracker.run_id(alive)).info.status == "RUNNING"
    assert tracker.deliver(dead, TRAIN, tracked.folder, status="RUNNING")  # resumed after all
    assert client.get_run(tracker.run_id(dead)).info.status == "RUNNING"


def test_a_finished_run_stays_one_and_finished_when_its_record_is_lost(tracked):
    training = FinishedTraining(tracked)
    tracker = tracked.tracker()
    tracker.deliver(training.run, TRAIN, training.folder, status="FINISHED")
    tracker.deliver(training.run, "evaluate/def", training.evaluation)
    shutil.rmtree(tracked.workspace.hidden / "runs")

    [record] = delivery_state.every(tracked.workspace)
    assert (record.name, record.status, set(record.journals)) == (RUN.name, "FINISHED", {TRAIN, "evaluate/def"})
    assert tracker.deliver_pending() == 1
    assert tracker.deliver(training.run, TRAIN, training.folder, force=True)  # as register does
    assert tracked.tracker().close_dead() == []
    assert tracked.rows("runs", "status") == [("FINISHED",)]
    assert tracked.rows() == [("test/accuracy", 1), ("train/loss", 1)]


def test_a_finished_run_that_is_noted_as_running_is_not_closed_as_killed(tracked):
    training = FinishedTraining(tracked)
    tracker = tracked.tracker()
    tracker.deliver(training.run, TRAIN, training.folder, status="RUNNING")
    assert tracker.close_dead() == [RUN.name]
    assert tracked.rows("runs", "status") == [("FINISHED",)]


def test_an_unfinished_run_whose_record_is_lost_is_closed_as_killed(tracked):
    durable = tracked.epochs(1, 2)
    write_json(tracked.folder / "run.json", {"key": RUN.key, "name": RUN.name})
    assert list(delivery_state.every(tracked.workspace)) == [], "nothing of it is durable yet"
    write_json(tracked.folder / "step-00000002.json", {"journal_offset": durable})
    tracked.epochs(3, 3)
    tracker = tracked.tracker()
    assert tracker.close_dead() == [RUN.name]
    assert tracked.rows("runs", "status") == [("KILLED",)]
    assert tracked.rows() == expected(2)
