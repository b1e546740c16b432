"""The trial worker, with a real checkpoint store and a capped child that is a function of the test."""

import json
import math
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from fake_ray import NODE, Handle

from tuning import room
from tuning.capped.run_capped import Capped, CapTooLowError
from tuning.cluster.node_folder import NAME_VARIABLE, RESERVE_VARIABLE, VARIABLE, NodeFolder
from tuning.forecast import Forecast
from tuning.ledger import EpochReport
from tuning.memory_pressure import MemoryReading
from tuning.on_ray import attempt, leaving, room_wait, row_run, worker
from tuning.on_ray.checkpoint_store import CheckpointStore
from tuning.on_ray.shared_files import SharedFiles
from tuning.on_ray.trial_task import Task, TrialSettings
from tuning.on_ray.worker import run_trial
from tuning.promises import Promises
from tuning.trial import REPORTS, WORK, Began, CheckpointReady, Described, Fitted, PickledObjective, Reported
from tuning.trial_end import LostTrialError
from tuning.trial_room import TrialRoom

OBJECTIVE = PickledObjective(b"objective", b"warm-up", ())
NO_FILES = SharedFiles("", ())


class Worker:
    """Runs row 3; `child` is what happens in the capped child, `results` what is reported to Ray."""

    def __init__(self, folder, store):
        self.folder = folder
        self.store = Handle(store)
        self.results = []
        self.child = lambda call: "completed"
        self.call = None
        self.in_cluster = False
        self.number = 0
        self.search_reserve_mb = self.reserve_mb = None
        self.available_mb = 8000.0  # of as many, so the reserve is 800

    def run_capped(self, function, objective, config, scratch, shared, memory_mb, halvings, **words):
        plan = {"memory_mb": memory_mb, "halvings": halvings}
        self.call = SimpleNamespace(config=config, scratch=scratch, shared=shared, **plan, **words)
        outcome = self.child(self.call)
        if isinstance(outcome, str):
            outcome = Capped("completed", outcome, None, None, None, None, 80.0, 10.0, words["cap_mb"], 1.0)
        return outcome

    def run(self, known_epochs=0, mode="max", shared_files=NO_FILES, memory_mb=500.0, halvings=0):
        settings = TrialSettings(
            mode, 500, 7.0, shared_files, NODE, self.search_reserve_mb, self.in_cluster, "search", 12
        )
        self.number = self.store.target.begin_attempt(3)
        task = Task(3, self.number, {"x": 0.5}, known_epochs, memory_mb, halvings)
        run_trial(task, OBJECTIVE, settings, self.store)

    def room(self, cap_mb, reserve):
        self.reserve_mb = reserve
        return TrialRoom(
            cap_mb,
            reserve,
            read=lambda: MemoryReading(8000, self.available_mb),
            promises=Promises(self.folder / "promises"),
        )

    def newest(self):
        """The version of the newest checkpoint."""
        return self.store.target.newest(3, self.number)[0]

    @property
    def messages(self):
        return [result["message"] for result in self.results]

    @property
    def kinds(self):
        return [message["kind"] for message in self.messages]


@pytest.fixture
def trial(tmp_path, monkeypatch, ray):
    (tmp_path / "shared").mkdir()
    (tmp_path / "of ray" / "this trial").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "of ray" / "this trial")
    monkeypatch.delenv("TUNE_FUNCTION_THREAD_TIMEOUT_S", raising=False)
    made = Worker(tmp_path, CheckpointStore(str(tmp_path / "checkpoints"), str(tmp_path / "shared")))
    monkeypatch.setattr(attempt, "tune", SimpleNamespace(report=made.results.append))
    monkeypatch.setattr(row_run, "run_capped", made.run_capped)
    monkeypatch.setattr(row_run, "process_memory_mb", lambda pid: 60.0)
    monkeypatch.setattr(worker, "TrialRoom", made.room)
    monkeypatch.setattr(leaving, "ASK_S", 0.005)
    monkeypatch.setattr(leaving, "LOOK_S", 0.005)
    monkeypatch.setattr(leaving, "LEAVE_S", 0.2)
    monkeypatch.setattr(leaving, "tree_memory_mb", lambda pid: 60.0)
    monkeypatch.setattr(room, "SHORT_S", 0.05)
    monkeypatch.setattr(room, "VERY_SHORT_S", 0.05)
    monkeypatch.setattr(room, "LEAVE_S", 0.2)
    for name, seconds in {"LOOK_S": 0.005, "ASK_S": 0.005, "SILENT_S": 0.02, "REPORT_S": 0.02}.items():
        monkeypatch.setattr(room_wait, name, seconds)
    return made


def checkpoint(scratch, *epochs):
    """A checkpoint after those epochs, as `Trial.checkpoint` makes one."""
    folder = scratch / f"checkpoint-{epochs[-1]}"
    (folder / WORK).mkdir(parents=True)
    (folder / WORK / "epoch").write_text(str(epochs[-1]))
    (folder / WORK / "empty").touch()
    (folder / WORK / "large").write_bytes(b"x" * 2_500_000)
    reports = [{"epoch": epoch, "value": epoch / 10, "metrics": {}, "peak_mb": 0.0} for epoch in epochs]
    (folder / REPORTS).write_text(json.dumps(reports))
    return folder


def test_each_message_says_the_attempt_and_the_first_the_node(trial):
    for number in (1, 2):
        trial.results.clear()
        trial.child = lambda call: call.on_message(Reported(EpochReport(1, 0.5))) or "completed"
        trial.run()
        assert trial.kinds == ["started", "report", "finished"]
        assert {message["attempt"] for message in trial.messages} == {number}
        assert trial.messages[0]["node"] == socket.gethostname()


def test_an_epoch_is_passed_on_with_the_memory_that_was_seen_until_then(trial, monkeypatch):
    seen = iter([50.0, 90.0, 70.0])
    monkeypatch.setattr(row_run, "process_memory_mb", lambda pid: next(seen) if pid == 42 else 1e9)

    def child(call):
        call.on_message(Began(42))
        assert call.should_stop() is None
        call.should_stop()
        call.on_message(Reported(EpochReport(1, 0.5, {"loss": 0.1})))
        return "completed"

    trial.child = child
    trial.run()
    report = trial.results[1]
    assert (report["epoch"], report["value"]) == (1, 0.5)
    assert report["message"]["report"] == {"epoch": 1, "value": 0.5, "metrics": {"loss": 0.1}, "peak_mb": 90.0}
    assert math.isnan(trial.results[0]["value"])


def test_the_child_gets_the_configuration_and_the_limits(trial):
    trial.run()
    call = trial.call
    assert (call.config, call.cap_mb, call.grace_s, call.shared) == ({"x": 0.5}, 500, 7.0, None)
    assert call.warm_up.args == (OBJECTIVE,)


def test_a_trial_that_hit_its_cap_is_run_with_what_to_plan_with_and_how_often(trial):
    trial.run(memory_mb=450.0, halvings=1)
    assert (trial.call.memory_mb, trial.call.halvings, trial.call.cap_mb) == (450.0, 1, 500)


def test_how_the_trial_is_fitted_is_passed_on(trial):
    trial.child = lambda call: call.on_message(Fitted(Forecast(480.0, "8 at once"))) or "completed"
    trial.run()
    assert trial.kinds == ["started", "fitted", "finished"]
    assert trial.messages[1]["forecast"] == {"peak_mb": 480.0, "fitted": "8 at once"}


def test_what_the_trial_computes_with_is_passed_on(trial):
    trial.child = lambda call: call.on_message(Described({"precision": "bf16"})) or "completed"
    trial.run()
    assert trial.kinds == ["started", "described", "finished"]
    assert trial.messages[1]["facts"] == {"precision": "bf16"}


def test_it_goes_on_from_the_checkpoint_that_it_fetched(trial):
    def first(call):
        call.on_message(CheckpointReady(checkpoint(call.scratch, 1, 2)))
        during(5, lambda: not (call.scratch / "checkpoint-2").exists())  # sent, and deleted here
        return "paused"

    def second(call):
        work = call.scratch / WORK
        assert (work / "epoch").read_text() == "2"
        assert (work / "empty").read_bytes() == b""
        assert (work / "large").read_bytes() == b"x" * 2_500_000
        call.on_message(Reported(EpochReport(3, 0.1)))
        return "completed"

    trial.child = first
    trial.run()
    trial.results.clear()
    trial.child = second
    trial.run(known_epochs=2)
    assert trial.kinds == ["started", "report", "finished"]
    finish = trial.messages[-1]["finish"]
    assert (finish["value"], finish["epochs"]) == (0.2, 3), "epochs before the checkpoint count"


def test_epochs_that_the_ledger_does_not_know_are_reported_again(trial):
    trial.child = lambda call: call.on_message(CheckpointReady(checkpoint(call.scratch, 1, 2, 3))) or "paused"
    trial.run()
    trial.results.clear()
    trial.child = lambda call: "completed"
    trial.run(known_epochs=1)
    assert [message["report"]["epoch"] for message in trial.messages if message["kind"] == "report"] == [2, 3]


def ended(outcome, value=None, **rest):
    words = {"error": None, "traceback": None, "signal": None, "stop_reason": None} | rest
    return Capped(outcome, value, peak_mb=80.0, floor_mb=10.0, cap_mb=500, duration_s=1.0, **words)


@pytest.mark.parametrize(
    ("result", "outcome", "value"),
    [
        (ended("completed", "completed"), "completed", 0.5),
        (ended("completed", "diverged: nan"), "diverged", None),
        (ended("memory_cap"), "memory_cap", None),
        (ended("failed", error="ValueError: no"), "failed", None),
    ],
)
def test_how_the_row_is_finished_is_reported_with_node_and_duration(trial, result, outcome, value):
    def child(call):
        call.on_message(Reported(EpochReport(1, 0.5)))
        time.sleep(0.01)
        return result

    trial.child = child
    trial.run()
    finish = trial.messages[-1]["finish"]
    assert (finish["outcome"], finish["value"], finish["peak_mb"], finish["cap_mb"]) == (outcome, value, 80.0, 500)
    assert finish["node"] == socket.gethostname()
    assert 0.01 <= finish["duration_s"] < 5


def test_a_trial_that_left_is_reported_as_paused(trial):
    trial.child = lambda call: "paused"
    trial.run()
    assert trial.kinds == ["started", "paused"]


def test_a_cap_that_is_too_low_on_this_node_is_reported_as_the_cap(trial):
    def child(call):
        raise CapTooLowError(510.0, 500)

    trial.child = child
    trial.run()
    finish = trial.messages[-1]["finish"]
    assert (finish["outcome"], finish["peak_mb"], finish["cap_mb"]) == ("memory_cap", 510.0, 500)


def test_a_lost_process_raises_so_that_ray_starts_the_trial_again(trial):
    trial.child = lambda call: ended("killed", error="ended by SIGKILL")
    with pytest.raises(LostTrialError, match="SIGKILL"):
        trial.run()
    assert trial.kinds == ["started"]
    assert list((trial.folder / "of ray" / "this trial").iterdir()) == []


def test_a_stop_reaches_the_child(trial):
    def child(call):
        assert call.should_stop() is None
        trial.store.target.ask_to_stop()
        until = time.monotonic() + 5
        while call.should_stop() is None and time.monotonic() < until:
            time.sleep(0.002)
        assert call.should_stop() == "the search leaves"
        return "paused"

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "paused"]


def test_after_the_trial_nobody_polls_for_its_stop(trial):
    pollers = []
    trial.child = lambda call: (
        pollers.extend(each for each in threading.enumerate() if each.name == "stop") or "paused"
    )
    trial.run()
    for thread in pollers:
        thread.join(5)
    assert [thread.is_alive() for thread in pollers] == [False]


def test_a_trial_that_starts_while_the_search_leaves_does_not_run(trial):
    trial.store.target.ask_to_stop()
    trial.run()
    assert trial.kinds == ["paused"]
    assert trial.call is None


def during(seconds, done):
    """Wait until that is so."""
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        time.sleep(0.002)
    assert done()


def test_a_trial_waits_for_room_says_so_and_starts_when_there_is_some(trial):
    trial.available_mb = 1000
    thread = threading.Thread(target=trial.run)
    thread.start()
    time.sleep(0.5)
    during(5, lambda: len(trial.results) >= 2)
    assert set(trial.kinds) == {"waiting"}
    assert trial.messages[0]["text"] == (
        f"waits for room on {socket.gethostname()}: 500 MB and 600 to spare, 1000 are free"
    )
    assert trial.call is None
    trial.available_mb = 1100
    thread.join(5)
    assert trial.kinds[-2:] == ["started", "finished"]
    assert trial.messages[-1]["finish"]["duration_s"] < 0.5, "the wait is not its own time"


def test_a_trial_that_waits_for_room_leaves_when_asked_to(trial):
    trial.available_mb = 1000
    thread = threading.Thread(target=trial.run)
    thread.start()
    during(5, lambda: trial.results)
    trial.store.target.ask_to_stop()
    thread.join(5)
    assert (trial.kinds[-1], trial.call) == ("paused", None)


def test_in_a_cluster_a_trial_that_waits_long_gives_its_row_back_and_ends_when_there_is_room(trial, monkeypatch):
    monkeypatch.setattr(room_wait, "GIVE_BACK_S", 0.1)
    trial.available_mb, trial.in_cluster = 1000, True
    thread = threading.Thread(target=trial.run)
    thread.start()
    time.sleep(0.3)
    assert "gives_row_back" not in trial.kinds, "there is no other node"
    trial.store.target.nodes_are(True)
    during(5, lambda: "gives_row_back" in trial.kinds)
    trial.store.target.begin_attempt(3)  # its row has started elsewhere
    trial.available_mb = 1100
    thread.join(5)
    assert (trial.kinds[-1], trial.call) == ("paused", None)
    assert not list((trial.folder / "promises").glob("trial-*"))


def test_a_trial_on_a_node_that_is_short_of_memory_is_asked_to_leave(trial):
    def child(call):
        call.on_message(Began(42))
        assert call.should_stop() is None
        trial.available_mb = 390
        during(5, lambda: call.should_stop() is not None)
        assert call.should_stop() == "memory is short"
        return "paused"

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "left_node"]
    words = f"left {socket.gethostname()}, which is short of memory (390 MB free)"
    assert trial.messages[-1]["text"] == words
    assert not list((trial.folder / "promises").glob("trial-*")), "its room is given back"


@pytest.mark.parametrize("available_mb", [390, 190])
def test_one_that_does_not_leave_is_killed_and_its_row_waits_all_the_same(trial, available_mb):
    killed = []

    def child(call):
        call.on_start(killed.append)
        trial.available_mb = available_mb
        during(5, lambda: killed)
        return ended("killed", stop_reason=killed[0])

    trial.child = child
    trial.run()
    assert killed[0] == "memory is short"
    assert trial.kinds == ["started", "left_node"]


def test_one_that_the_kernel_kills_for_want_of_memory_is_not_lost(trial):
    def child(call):
        trial.available_mb = 10
        time.sleep(0.05)
        return ended("killed", error="ended by SIGKILL")

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "left_node"]


def test_a_trial_that_ends_while_memory_is_short_has_ended(trial):
    def child(call):
        trial.available_mb = 300
        during(5, lambda: call.should_stop() is not None)
        call.on_message(Reported(EpochReport(1, 0.5)))
        return "completed"

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "report", "finished"]


def test_where_the_search_leaves_too_the_trial_leaves_for_that(trial):
    def child(call):
        trial.available_mb = 300
        trial.store.target.ask_to_stop()
        during(5, lambda: call.should_stop() == "the search leaves")
        return "paused"

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "paused"]


def test_a_full_disk_costs_the_checkpoint_and_not_the_trial(trial, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def child(call):
        call.on_message(CheckpointReady(checkpoint(call.scratch, 1)))
        during(5, lambda: not (call.scratch / "checkpoint-1").exists())
        monkeypatch.setattr(trial.store.target, "write", full)
        call.on_message(CheckpointReady(checkpoint(call.scratch, 2)))
        during(5, lambda: not (call.scratch / "checkpoint-2").exists())
        during(5, lambda: call.should_stop() is None and "note" in trial.kinds)
        call.on_message(Reported(EpochReport(2, 0.5)))
        return "completed"

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "note", "report", "finished"]
    assert trial.messages[1]["text"] == "a checkpoint was not kept: [Errno 28] No space left on device"
    assert trial.newest() == 1
    assert not list(trial.folder.rglob("*.partial"))


def test_scratch_files_are_deleted_those_of_killed_workers_too(trial):
    neighbour = trial.folder / "of ray" / "another trial"
    alive, dead = neighbour / f"trial-{os.getppid()}-x", neighbour / "trial-999999999-x"
    for folder in (alive, dead):
        folder.mkdir(parents=True)
    trial.run()
    assert not trial.call.scratch.exists()
    assert trial.call.scratch.parent == trial.folder / "of ray" / "this trial"
    assert (alive.exists(), dead.exists()) == (True, False)


def test_ray_waits_for_a_stopped_trial_before_it_reuses_the_worker(trial):
    trial.run()
    assert float(os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"]) > 60


def test_shared_files_are_read_where_they_are_on_the_driver_s_node_and_fetched_on_others(trial, ray, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(trial.folder))
    path = trial.folder / "shared" / "images"
    path.write_bytes(b"abc")
    files = SharedFiles.of([path])
    trial.run(shared_files=files)
    assert trial.call.shared == path.parent
    ray.node = "another"
    trial.run(shared_files=files)
    assert trial.call.shared != path.parent
    assert (trial.call.shared / "images").read_bytes() == b"abc"


# -- a node that leaves, and a network that is slow


@pytest.fixture
def node(tmp_path, monkeypatch):
    folder = NodeFolder(tmp_path / "node")
    folder.create()
    monkeypatch.setenv(VARIABLE, str(folder.path))
    monkeypatch.setenv(NAME_VARIABLE, "hp-laptop")
    return folder


def test_a_trial_says_to_its_node_what_it_does(trial, node):
    def child(call):
        call.on_message(Began(42))
        [shown] = node.trials()
        assert (shown.search, shown.row, shown.epoch, shown.epochs, shown.cap_mb) == ("search", 3, 0, 12, 500)
        call.on_message(Reported(EpochReport(2, 0.5)))
        call.should_stop()
        [shown] = node.trials()
        assert (shown.epoch, shown.value, shown.held_mb) == (2, 0.5, 60.0)
        return "completed"

    trial.child = child
    trial.run()
    assert node.trials() == ()
    assert trial.messages[0]["node"] == trial.messages[-1]["finish"]["node"] == "hp-laptop"


def test_a_trial_on_a_node_that_leaves_saves_and_its_row_goes_on_from_there(trial, node):
    def child(call):
        node.ask_to_leave("it is switched off")
        during(5, lambda: call.should_stop() is not None)
        assert call.should_stop() == "the node leaves"
        call.on_message(CheckpointReady(checkpoint(call.scratch, 1)))
        return "paused"

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "left_node"]
    assert trial.messages[-1]["text"] == "left hp-laptop (it is switched off)"
    assert trial.newest() == 1


def test_one_that_does_not_leave_its_node_in_time_is_killed_and_not_lost(trial, node):
    killed = []

    def child(call):
        call.on_start(killed.append)
        node.ask_to_leave("it is switched off")
        during(5, lambda: killed)
        return ended("killed", stop_reason=killed[0])

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "left_node"]


def test_a_trial_that_would_start_on_a_node_that_leaves_gives_its_row_back_and_keeps_the_place(trial, node):
    node.ask_to_leave("it is switched off")
    thread = threading.Thread(target=trial.run)
    thread.start()
    during(5, lambda: trial.kinds)
    trial.store.target.begin_attempt(3)  # its row has started elsewhere
    time.sleep(0.1)
    assert (trial.kinds, thread.is_alive()) == (["gives_row_back"], True)
    trial.store.target.ask_to_stop()
    thread.join(5)
    assert (trial.kinds, trial.call) == (["gives_row_back", "paused"], None)


def test_a_trial_whose_row_has_another_attempt_is_ended_at_once_and_its_checkpoint_refused(trial):
    killed = []

    def child(call):
        call.on_start(killed.append)
        trial.store.target.begin_attempt(3)
        during(5, lambda: killed)
        call.on_message(CheckpointReady(checkpoint(call.scratch, 1)))
        return ended("killed", stop_reason=killed[0])

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "paused"]
    assert trial.store.target.newest(3, trial.number + 1) is None


def test_an_attempt_that_is_outdated_when_it_starts_runs_nothing(trial):
    begin_attempt = trial.store.target.begin_attempt
    trial.store.target.begin_attempt = lambda row: begin_attempt(row) and begin_attempt(row) - 1
    trial.run()
    assert (trial.kinds, trial.call) == (["paused"], None)


def test_a_slow_checkpoint_holds_up_neither_reports_nor_a_request_to_leave_and_the_newest_wins(trial, monkeypatch):
    may_send, opened, write = threading.Event(), [], trial.store.target.write

    def slow(*arguments):
        may_send.wait(5)
        write(*arguments)

    monkeypatch.setattr(trial.store.target, "write", slow)

    def child(call):
        for epoch in (1, 2, 3):
            call.on_message(CheckpointReady(checkpoint(call.scratch, *range(1, epoch + 1))))
            during(5, lambda: trial.store.calls.count("open") == 1)
            call.on_message(Reported(EpochReport(epoch, 0.5)))
        opened.extend(sorted(path.name for path in call.scratch.glob("checkpoint-*")))
        trial.store.target.ask_to_stop()
        during(5, lambda: call.should_stop() is not None)
        may_send.set()
        return "paused"

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "report", "report", "report", "paused"]
    assert opened == ["checkpoint-1", "checkpoint-3"], "the second was dropped"
    trial.child = lambda call: (call.scratch / WORK / "epoch").read_text() == "3" and "paused"
    trial.store.target._stop_asked = False
    trial.run(known_epochs=3)
    assert trial.newest() == 2


def test_the_checkpoint_of_a_complete_trial_that_is_not_the_best_is_not_sent(trial, monkeypatch):
    may_send, write = threading.Event(), trial.store.target.write

    def report(result):
        trial.results.append(result)
        if result["message"]["kind"] == "finished":
            trial.store.target.drop(3)
            may_send.set()

    def slow(*arguments):
        may_send.wait(5)
        write(*arguments)

    monkeypatch.setattr(attempt, "tune", SimpleNamespace(report=report))

    def child(call):
        monkeypatch.setattr(trial.store.target, "write", slow)
        call.on_message(CheckpointReady(checkpoint(call.scratch, 1)))
        call.on_message(Reported(EpochReport(1, 0.5)))
        return "completed"

    trial.child = child
    trial.run()
    assert trial.kinds == ["started", "report", "finished"]
    assert trial.store.calls.count("commit") == 0


def test_a_trial_that_has_to_leave_while_its_files_come_waits_for_no_more_of_them(trial, ray, node, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(trial.folder))
    path = trial.folder / "shared" / "images"
    path.write_bytes(b"x" * 3_000_000)
    files, read = SharedFiles.of([path]), trial.store.target.read_shared
    ray.node = "another"

    def slow(*arguments):
        node.ask_to_leave("it is switched off")
        time.sleep(0.1)
        return read(*arguments)

    monkeypatch.setattr(trial.store.target, "read_shared", slow)
    trial.run(shared_files=files)
    assert trial.kinds == ["started", "left_node"]
    assert trial.store.calls.count("read_shared") == 1
    assert trial.call is None


def test_what_is_sent_to_another_node_is_counted_under_its_name(trial, ray, node):
    ray.node = "another"
    trial.child = lambda call: call.on_message(CheckpointReady(checkpoint(call.scratch, 1))) or "paused"
    trial.run()
    trial.run()
    [(name, (shared, sent, received))] = trial.store.target.sent().items()
    assert (name, shared) == ("hp-laptop", 0)
    assert 2_500_000 < sent < received < 2_600_000 * 2


@pytest.mark.parametrize(
    ("owners", "searchs", "kept"),
    [(None, None, None), ("900", None, 900), ("900", 700, 900), ("500", 700, 700), (None, 700, 700)],
)
def test_what_the_owner_of_a_node_keeps_free_is_kept_free(trial, monkeypatch, owners, searchs, kept):
    monkeypatch.delenv(RESERVE_VARIABLE, raising=False)
    if owners:
        monkeypatch.setenv(RESERVE_VARIABLE, owners)
    trial.search_reserve_mb = searchs
    trial.run()
    assert trial.reserve_mb == kept
