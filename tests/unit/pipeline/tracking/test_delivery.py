"""What is recorded, when a store is tried again, and which runs are closed; without a store."""

import subprocess
import sys

import pytest
from offline_store import OfflineConnection, offline_tracker

from pipeline.errors import TrackingError
from pipeline.tracking import delivery, delivery_state
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery import RunIdentity
from pipeline.tracking.delivery_state import Delivered, JournalRecord, RunRecord, StoreRecord
from pipeline.tracking.journal import Journal
from pipeline.tracking.sending import Sender
from pipeline.workspace.locks import exclusive
from pipeline.workspace.paths import Workspace

RUN = RunIdentity("abc-1", "small, first try", parent="search-1", lock="train-abc")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def problems():
    return []


@pytest.fixture
def tracker(workspace, problems):
    tracker = offline_tracker(mlflow_settings.load(workspace, {"MLFLOW_TRACKING_URI": "http://server"}), workspace)
    tracker._on_problem = problems.append
    return tracker


@pytest.fixture
def folder(workspace):
    folder = workspace.stage("train") / "abc.partial"
    folder.mkdir(parents=True)
    with Journal(folder) as journal:
        journal.metrics({"train/loss": 1.0}, 1)
    return folder


def test_the_whole_journal_is_recorded_unless_an_offset_is_given(tracker, workspace, folder):
    tracker.record(RUN, "train/abc", folder)
    record = delivery_state.read_run(workspace, RUN.key)
    size = (folder / "journal.jsonl").stat().st_size
    assert record == RunRecord(
        RUN.key, RUN.name, "RUNNING", {"train/abc": JournalRecord(".seqpipe/stages/train/abc.partial", size)},
        RUN.parent, RUN.lock,
    )  # fmt: skip
    tracker.record(RUN, "train/abc", folder, upto=3, status="FINISHED")
    record = delivery_state.read_run(workspace, RUN.key)
    assert (record.journals["train/abc"].upto, record.status) == (3, "FINISHED")


def test_what_is_not_given_stays_as_it_was_recorded(tracker, workspace, folder):
    tracker.record(RUN, "train/abc", folder, status="FINISHED")
    tracker.record(RunIdentity(RUN.key, "renamed"), "evaluate/def", folder)
    record = delivery_state.read_run(workspace, RUN.key)
    assert (record.name, record.status, record.lock) == ("renamed", "FINISHED", RUN.lock)
    assert set(record.journals) == {"train/abc", "evaluate/def"}


def test_a_run_that_gets_a_parent_after_it_began_is_moved_and_stays_there(tracker, workspace, folder):
    alone, moved = RunIdentity(RUN.key, RUN.name), RunIdentity(RUN.key, RUN.name, parent="seeds-1")
    tracker.record(moved, "train/abc", folder)
    assert not delivery_state.read_run(workspace, RUN.key).is_moved, "it was there from the beginning"
    delivery_state.run_path(workspace, RUN.key).unlink()
    for identity, parent, is_moved in ((alone, "", False), (moved, "seeds-1", True), (alone, "seeds-1", True)):
        tracker.record(identity, "train/abc", folder)
        record = delivery_state.read_run(workspace, RUN.key)
        assert (record.parent, record.is_moved) == (parent, is_moved)


def test_a_record_that_would_say_the_same_is_not_written_again(tracker, workspace, folder, monkeypatch):
    tracker.record(RUN, "train/abc", folder)
    monkeypatch.setattr(delivery_state, "write_run", lambda *_: pytest.fail("written again"))
    tracker.record(RUN, "train/abc", folder)


def test_a_failure_is_reported_once_and_the_store_is_left_alone_for_a_while(
    tracker, problems, workspace, folder, monkeypatch
):
    now = [100.0]
    tries = []
    monkeypatch.setattr(delivery.time, "monotonic", lambda: now[0])

    class Counting(OfflineConnection):
        def client(self, *, to_write=True):
            tries.append(now[0])
            super().client()

    tracker.connection = Counting(tracker.settings, workspace, print)
    assert not tracker.deliver(RUN, "train/abc", folder)
    now[0] += delivery.RETRY_AFTER_S - 1
    assert not tracker.deliver(RUN, "train/abc", folder)
    assert tries == [100.0]
    assert not tracker.deliver(RUN, "train/abc", folder, force=True)
    now[0] += delivery.RETRY_AFTER_S + 1
    assert not tracker.deliver(RUN, "train/abc", folder)
    assert len(tries) == 3
    assert problems == ["the store does not answer"]
    assert str(tracker.problem) == "the store does not answer"


def test_a_success_ends_the_pause_and_the_next_failure_is_reported_again(tracker, problems, folder, monkeypatch):
    fails = [True, False, True]

    def send(self, record):
        if fails.pop(0):
            raise TrackingError("away")

    monkeypatch.setattr(Sender, "send", send)
    assert not tracker.deliver(RUN, "train/abc", folder)
    assert tracker.deliver(RUN, "train/abc", folder, force=True)
    assert tracker.problem is None
    assert not tracker.deliver(RUN, "train/abc", folder)
    assert problems == ["away", "away"]


def test_a_run_that_another_process_delivers_is_left_to_it(tracker, workspace, folder, monkeypatch):
    sent = []
    monkeypatch.setattr(Sender, "send", lambda self, record: sent.append(record.key))
    with exclusive(workspace.lock(f"run-{RUN.key}"), print, what="it"):
        assert not tracker.deliver(RUN, "train/abc", folder)
    assert sent == []
    assert tracker.deliver(RUN, "train/abc", folder)
    assert sent == [RUN.key]


def test_a_workspace_that_cannot_be_written_is_reported_and_ends_nothing(tracker, problems, workspace, folder):
    (workspace.hidden / "runs").write_text("a file in the way")
    assert not tracker.deliver(RUN, "train/abc", folder)
    assert "cannot be written" in problems[0]


def open_run(workspace, key, lock=""):
    delivery_state.write_run(workspace, RunRecord(key, f"name of {key}", lock=lock))


def test_dead_runs_are_closed_unless_they_are_worked_on_or_resumed(tracker, workspace):
    for key in ("dead-1", "busy-1", "resumed-1"):
        open_run(workspace, key, lock=f"train-{key}")
    open_run(workspace, "unknown-1")
    with exclusive(workspace.lock("train-busy-1"), print, what="it"):
        assert tracker.close_dead(["resumed-1", None]) == ["name of dead-1"]
    status = {record.key: record.status for record in delivery_state.every(workspace)}
    assert status == {"dead-1": "KILLED", "busy-1": "RUNNING", "resumed-1": "RUNNING", "unknown-1": "RUNNING"}


def test_a_run_whose_training_is_whole_is_closed_as_finished(tracker, workspace, monkeypatch):
    open_run(workspace, "whole-1")
    open_run(workspace, "torn-1")
    monkeypatch.setattr(delivery, "is_finished", lambda workspace, key: key == "whole-1")
    tracker.close_open(lambda record: True)
    assert delivery_state.read_run(workspace, "whole-1").status == "FINISHED"
    assert delivery_state.read_run(workspace, "torn-1").status == "KILLED"


def test_only_what_the_store_lacks_is_pending(tracker, workspace):
    journals = {"train/abc": JournalRecord("x", 9)}
    delivery_state.write_run(workspace, RunRecord("k", "n", "FINISHED", journals))
    assert [record.key for record in tracker.pending()] == ["k"]
    store = StoreRecord(tracker.settings.address, "r", "1", "FINISHED", delivered={"train/abc": Delivered(9, "t")})
    delivery_state.write_store(workspace, "k", store)
    assert tracker.pending() == []
    for lacking in (
        StoreRecord(store.address, "r", "1", "RUNNING", delivered=store.delivered),
        StoreRecord(store.address, "r", "1", "FINISHED", delivered={"train/abc": Delivered(8, "t")}),
    ):
        delivery_state.write_store(workspace, "k", lacking)
        assert [record.key for record in tracker.pending()] == ["k"]


def test_a_store_that_is_gone_lacks_everything(workspace):
    tracker = offline_tracker(mlflow_settings.load(workspace, {}), workspace)
    delivery_state.write_run(workspace, RunRecord("k", "n", journals={"train/abc": JournalRecord("x", 9)}))
    store = StoreRecord(tracker.settings.address, "r", "1", delivered={"train/abc": Delivered(9, "t")})
    delivery_state.write_store(workspace, "k", store)
    assert [record.key for record in tracker.pending()] == ["k"]
    assert tracker.run_id(RunIdentity("k", "n")) is None


def test_the_place_of_a_run_is_a_page_of_the_server_or_of_the_ui(tracker, workspace):
    assert "not in MLflow yet (http://server)" in tracker.location(RUN)
    delivery_state.write_store(workspace, RUN.key, StoreRecord("http://server", "r7", "e3"))
    assert tracker.location(RUN).startswith("http://server/#/experiments/e3/runs/r7?")
    local = offline_tracker(mlflow_settings.load(workspace, {}), workspace)
    delivery_state.write_store(workspace, RUN.key, StoreRecord(local.settings.address, "r8", "e1"))
    assert local.location(RUN).startswith("`seqpipe ui`, then http://127.0.0.1:5000/#/experiments/e1/runs/r8?")


def test_with_nothing_to_deliver_nothing_that_delivers_is_imported(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.tracking import settings; from pipeline.tracking.delivery import Tracker\n"
        "from pipeline.workspace.paths import Workspace\n"
        "place = Workspace(Path(sys.argv[1]))\n"
        "tracker = Tracker(settings.load(place, {}), place, print)\n"
        "assert tracker.close_dead() == [] and tracker.deliver_pending() == 0\n"
        "unused = {f'pipeline.tracking.{name}' for name in ('connection', 'sending', 'store_faults')} | {'ssl'}\n"
        "print(sorted(unused & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
