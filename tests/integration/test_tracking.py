import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import delivery, delivery_state, moved_store
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.background import Courier
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.journal import Journal
from pipeline.workspace.durable_files import write_json
from pipeline.workspace.locks import exclusive
from pipeline.workspace.manifests import MANIFEST, Manifest
from pipeline.workspace.paths import Workspace

REPOSITORY = Path(__file__).parents[2]
RUN = RunIdentity("abc-1", "small, first try")
TRAIN = "train/abc"


@pytest.fixture(scope="module")
def made_store(tmp_path_factory):
    """A fresh store, made once: making one takes seconds."""
    workspace = Workspace(tmp_path_factory.mktemp("store"))
    delivery.make_database(mlflow_settings.load(workspace, {}), workspace)
    return workspace.root / "mlflow.db"


class Place:
    """A workspace with a store, a stage folder and a journal."""

    def __init__(self, root: Path, made_store: Path | None) -> None:
        self.workspace = Workspace(root)
        root.mkdir(exist_ok=True)
        if made_store:
            shutil.copy(made_store, root / "mlflow.db")
            moved_store.follow(mlflow_settings.load(self.workspace, {}), self.workspace, lambda text: None)
        self.folder = self.workspace.stage("train") / "abc.partial"
        self.folder.mkdir(parents=True)
        self.journal = Journal(self.folder)
        self.problems: list[str] = []

    def tracker(self, **environ: str) -> Tracker:
        return Tracker(mlflow_settings.load(self.workspace, environ), self.workspace, self.problems.append)

    def epochs(self, first: int, last: int) -> int:
        for epoch in range(first, last + 1):
            self.journal.metrics({"train/loss": 1 / epoch, "validation/accuracy": 1 - 1 / epoch}, epoch)
        return self.journal.offset

    def rows(self, table: str = "metrics", columns: str = "key, step") -> list[tuple]:
        connection = sqlite3.connect(self.workspace.root / "mlflow.db")
        try:
            return sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall())
        finally:
            connection.close()


@pytest.fixture
def place(tmp_path, made_store):
    place = Place(tmp_path / "grüße 100%", made_store)
    yield place
    place.journal.close()


def expected(last: int) -> list[tuple]:
    return sorted((key, step) for key in ("train/loss", "validation/accuracy") for step in range(1, last + 1))


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_everything_in_a_journal_arrives(place):
    journal = place.journal
    journal.tags({"mlflow.note.content": "**why**", "mlflow.source.git.commit": "f00"})
    journal.params({f"p{i:03}": i for i in range(230)})  # more than MLflow takes at once
    data = {"name": "cifar10", "digest": "d" * 64, "context": "training", "profile": {"images": 18000}}
    journal.dataset(data)
    journal.dataset(data | {"context": "validation", "digest": "e" * 64})
    journal.metrics({f"m{i:04}": i for i in range(1100)}, 0)
    journal.metrics({"train/loss": float("nan")}, 1)
    (place.folder / "plots").mkdir()
    (place.folder / "plots" / "c.txt").write_text("figure")
    journal.artifact(place.folder / "plots" / "c.txt", "plots")

    tracker = place.tracker()
    assert tracker.deliver(RUN, TRAIN, place.folder, status="FINISHED")
    journal.params({"p000": "another value"})  # a resume on a machine that resolved it otherwise
    assert tracker.deliver(RUN, TRAIN, place.folder)
    assert place.problems == []

    client = tracker.connect()
    run = client.get_run(tracker.run_id(RUN))
    assert run.info.run_name == RUN.name
    assert run.info.status == "FINISHED"
    assert run.info.end_time >= run.info.start_time
    assert len(run.data.params) == 230
    assert run.data.params["p000"] == "0"
    assert run.data.tags["mlflow.note.content"] == "**why**"
    assert run.data.tags["mlflow.source.name"] == "seqpipe run"
    assert run.data.tags[delivery.RUN_KEY_TAG] == RUN.key
    assert len(place.rows()) == 1101
    contexts = {one.tags[0].value: one.dataset.digest for one in run.inputs.dataset_inputs}
    assert contexts == {"training": "d" * 36, "validation": "e" * 36}
    artifact = place.workspace.root / "mlartifacts" / run.info.run_id / "artifacts/plots/c.txt"
    assert artifact.read_text() == "figure"
    assert run.info.run_id in tracker.location(RUN)


def test_only_what_is_durable_is_delivered(place):
    durable = place.epochs(1, 2)
    place.epochs(3, 3)
    tracker = place.tracker()
    assert tracker.deliver(RUN, TRAIN, place.folder, upto=durable)
    assert place.rows() == expected(2)
    assert tracker.connect().get_run(tracker.run_id(RUN)).info.status == "RUNNING"


def test_a_crash_after_creating_the_run_makes_no_second_one(place, monkeypatch):
    place.epochs(1, 1)
    with monkeypatch.context() as broken:
        broken.setattr(delivery_state, "write_store", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
        assert not place.tracker().deliver(RUN, TRAIN, place.folder)
    assert place.tracker().deliver(RUN, TRAIN, place.folder)
    assert len(place.rows("runs", "run_uuid")) == 1
    assert place.rows() == expected(1)


def test_a_crash_between_sending_and_remembering_doubles_nothing(place, monkeypatch):
    tracker = place.tracker()
    place.epochs(1, 1)
    tracker.deliver(RUN, TRAIN, place.folder)
    before = delivery_state.store_path(place.workspace, RUN.key, tracker.settings.address).read_bytes()
    place.epochs(2, 3)
    tracker.deliver(RUN, TRAIN, place.folder)
    delivery_state.store_path(place.workspace, RUN.key, tracker.settings.address).write_bytes(before)
    again = place.tracker()
    assert again.deliver(RUN, TRAIN, place.folder)
    assert place.rows() == expected(3)
    delivery_state.store_path(place.workspace, RUN.key, tracker.settings.address).unlink()  # and all memory lost
    assert again.deliver(RUN, TRAIN, place.folder)
    assert place.rows() == expected(3)


def test_a_journal_that_was_cut_back_and_made_anew_doubles_no_step(place):
    tracker = place.tracker()
    checkpoint = place.epochs(1, 2)
    tracker.deliver(RUN, TRAIN, place.folder, upto=place.epochs(3, 4))
    place.journal.truncate(checkpoint)  # the newest checkpoint was damaged, an older one is gone on from
    time.sleep(0.002)
    for epoch in range(3, 7):
        place.journal.metrics({"train/loss": 1 / epoch, "validation/accuracy": 1 - 1 / epoch}, epoch)
    assert tracker.deliver(RUN, TRAIN, place.folder)
    assert Counter(place.rows()) == Counter(expected(6))


def test_nothing_is_missing_after_an_outage(place):
    port = closed_port()
    place.journal.params({"train.epochs": 3})
    place.epochs(1, 2)
    offline = place.tracker(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    start = time.monotonic()
    assert not offline.deliver(RUN, TRAIN, place.folder)
    assert not offline.deliver(RUN, TRAIN, place.folder, force=True)
    assert not offline.deliver(RUN, TRAIN, place.folder, upto=place.epochs(3, 3), status="FINISHED", force=True)
    assert time.monotonic() - start < 5
    assert len(place.problems) == 1, "said once"
    assert f"127.0.0.1:{port}" in place.problems[0]
    assert "nothing is lost" in place.problems[0]
    assert offline.run_id(RUN) is None
    place.folder.rename(place.folder.with_name("abc"))  # the stage is whole meanwhile

    back = place.tracker()
    assert back.deliver_pending() == 1
    assert place.rows() == expected(3)
    run = back.connect().get_run(back.run_id(RUN))
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.epochs": "3"}
    assert back.deliver_pending() == 0


def test_a_store_that_failed_is_left_alone_for_a_while(place, monkeypatch):
    tracker = place.tracker(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{closed_port()}")
    probes = []
    real = delivery._probe
    monkeypatch.setattr(delivery, "_probe", lambda uri: (probes.append(uri), real(uri)))
    place.epochs(1, 1)
    for _ in range(3):
        assert not tracker.deliver(RUN, TRAIN, place.folder)
    assert len(probes) == 1
    assert not tracker.deliver(RUN, TRAIN, place.folder, force=True)
    assert len(probes) == 2


def test_a_new_address_is_told_all_journals_from_the_start(place, tmp_path, made_store):
    place.epochs(1, 2)
    place.tracker().deliver(RUN, TRAIN, place.folder)
    evaluation = place.workspace.stage("evaluate") / "def"
    evaluation.mkdir(parents=True)
    with Journal(evaluation) as journal:
        journal.metrics({"test/accuracy": 0.9}, 2)
    shutil.copy(made_store, tmp_path / "other.db")
    elsewhere = place.tracker(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/other.db")
    assert elsewhere.deliver(RUN, "evaluate/def", evaluation, status="FINISHED")
    run = elsewhere.connect().get_run(elsewhere.run_id(RUN))
    assert set(run.data.metrics) == {"train/loss", "validation/accuracy", "test/accuracy"}
    assert run.info.run_id != place.tracker().run_id(RUN)
    assert place.tracker().deliver_pending() == 1  # and the first address catches up
    assert len(place.rows()) == 5


def test_a_run_deleted_in_mlflow_is_made_again_whole(place):
    place.epochs(1, 2)
    tracker = place.tracker()
    tracker.deliver(RUN, TRAIN, place.folder)
    tracker.connect().delete_run(tracker.run_id(RUN))
    assert tracker.deliver(RUN, TRAIN, place.folder, upto=place.epochs(3, 3))
    history = tracker.connect().get_metric_history(tracker.run_id(RUN), "train/loss")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_a_deleted_experiment_is_said_and_not_brought_back(place):
    tracker = place.tracker()
    tracker.connect().delete_experiment(tracker.experiment_id())
    place.epochs(1, 1)
    assert not place.tracker().deliver(RUN, TRAIN, place.folder)
    assert "mlflow experiments restore" in place.problems[0]


@pytest.mark.parametrize("damage", [b"no database at all " * 100, None])
def test_a_damaged_store_is_said_and_delivered_anew_when_moved_away(place, made_store, damage):
    database = place.workspace.root / "mlflow.db"
    place.epochs(1, 1)
    if damage:
        database.write_bytes(damage)
    else:  # the header is fine, the pages are not
        content = bytearray(made_store.read_bytes())
        content[4096 * 2 :] = b"\x07" * (len(content) - 4096 * 2)
        database.write_bytes(content)
    assert not place.tracker().deliver(RUN, TRAIN, place.folder)
    assert "damaged; move it away" in place.problems[0]
    assert "\n" not in place.problems[0]


def test_a_store_that_was_moved_away_is_told_everything_again(place):
    other = RunIdentity("old-1", "old")
    for run in (other, RUN):
        place.tracker().deliver(run, TRAIN, place.folder, upto=place.epochs(1, 1), status="FINISHED")
    database = place.workspace.root / "mlflow.db"
    used = place.tracker()
    used.connect()
    database.rename(database.with_name("mlflow.db.damaged"))
    assert not used.deliver(RUN, TRAIN, place.folder)
    assert "removed while it was used" in place.problems[0]
    script = (
        "import sys; from pathlib import Path; \n"
        "from pipeline.tracking import delivery, settings; from pipeline.workspace.paths import Workspace\n"
        "place = Workspace(Path(sys.argv[1]))\n"
        "print(delivery.Tracker(settings.load(place, {}), place, print).deliver_pending())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(place.workspace.root)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("2\n", "", 0)  # and MLflow is quiet about it
    assert len(place.rows("runs", "run_uuid")) == 2


def test_processes_that_open_a_fresh_store_at_once_all_get_it(tmp_path):
    place = Place(tmp_path / "fresh", None)
    place.journal.close()
    script = (
        "import sys; from pathlib import Path; \n"
        "from pipeline.tracking import delivery, settings; from pipeline.workspace.paths import Workspace\n"
        "place = Workspace(Path(sys.argv[1]))\n"
        "tracker = delivery.Tracker(settings.load(place, {}), place, print)\n"
        "tracker.connect(); print(tracker.experiment_id())"
    )
    command = [sys.executable, "-c", script, str(place.workspace.root)]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in "ab"]
    assert [process.communicate(timeout=60)[0] for process in both] == [b"1\n", b"1\n"]
    assert [path.name for path in place.workspace.root.glob("*mlflow*")] == ["mlflow.db"]


def test_dead_runs_are_closed_as_killed_and_live_ones_left(place):
    tracker = place.tracker()
    dead, alive = RunIdentity("dead-1", "dead"), RunIdentity("alive-1", "alive", lock="train-f00")
    place.epochs(1, 1)
    for run in (dead, alive):
        tracker.deliver(run, TRAIN, place.folder)
    assert {record.key for record in delivery_state.open_runs(place.workspace)} == {"dead-1", "alive-1"}
    with exclusive(place.workspace.lock("train-f00"), print, what="it"):
        assert tracker.close_dead() == ["dead"]
    client = tracker.connect()
    assert client.get_run(tracker.run_id(dead)).info.status == "KILLED"
    assert client.get_run(tracker.run_id(alive)).info.status == "RUNNING"
    assert tracker.deliver(dead, TRAIN, place.folder, status="RUNNING")  # resumed after all
    assert client.get_run(tracker.run_id(dead)).info.status == "RUNNING"


def test_a_courier_delivers_behind_the_training(place):
    tracker = place.tracker()
    courier = Courier(tracker, RUN, TRAIN, place.folder)
    for epoch in range(1, 6):
        courier.notify(place.epochs(epoch, epoch))
    assert courier.close(upto=place.journal.offset, status="FINISHED", timeout_s=30)
    assert place.rows() == expected(5)
    assert tracker.connect().get_run(tracker.run_id(RUN)).info.status == "FINISHED"
    assert threading.active_count() < 50


def test_a_store_that_hangs_neither_slows_nor_stops_a_training(place, monkeypatch):
    release, arrived = threading.Event(), threading.Event()
    tracker = place.tracker()
    deliver = tracker.deliver_recorded
    monkeypatch.setattr(tracker, "deliver_recorded", lambda *a, **k: (deliver(*a, **k), arrived.set())[0])
    courier = Courier(tracker, RUN, TRAIN, place.folder)
    courier.notify(place.epochs(1, 1))
    assert arrived.wait(30)
    monkeypatch.setattr(tracker, "connect", lambda: release.wait() and None)
    start = time.monotonic()
    courier.notify(place.epochs(2, 2))
    assert not courier.close(upto=place.epochs(3, 3), status="FINISHED", timeout_s=0.3)
    assert time.monotonic() - start < 2
    record = delivery_state.read_run(place.workspace, RUN.key)
    assert record is not None
    assert (record.status, record.journals[TRAIN].upto) == ("FINISHED", place.journal.offset)
    assert place.tracker().deliver_pending() == 0, "a run that is being delivered is not waited for"
    release.set()
    monkeypatch.undo()
    courier._thread.join(30)
    place.tracker().deliver_pending()  # what the released thread did not get through with
    assert place.rows() == expected(3)


def test_the_store_of_another_program_is_left_alone(place):
    database = place.workspace.root / "mlflow.db"
    database.unlink()
    database.mkdir()
    with pytest.raises(TrackingError):
        place.tracker().connect()


KILLED_INSIDE_A_COMMIT = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that changed pages reach the file before the commit
connection.execute("BEGIN")
connection.execute("UPDATE metrics SET value = -1")
connection.execute("CREATE TABLE spill (text)")
connection.executemany("INSERT INTO spill VALUES (?)", (("x" * 1000,) for _ in range(500)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_inside_a_commit(database):
    done = subprocess.run([sys.executable, "-c", KILLED_INSIDE_A_COMMIT, str(database)], check=False)
    assert done.returncode == -9
    assert database.with_name("mlflow.db-journal").stat().st_size


def test_a_kill_inside_a_commit_locks_nobody_out(place):
    place.epochs(1, 2)
    assert place.tracker().deliver(RUN, TRAIN, place.folder)
    kill_inside_a_commit(place.workspace.root / "mlflow.db")
    assert place.tracker().deliver(RUN, TRAIN, place.folder, upto=place.epochs(3, 3))
    assert place.problems == []
    assert place.rows() == expected(3)
    assert min(value for (value,) in place.rows(columns="value")) >= 0


def test_a_database_that_was_moved_away_leaves_no_journal_to_the_new_one(place):
    place.epochs(1, 2)
    place.tracker().deliver(RUN, TRAIN, place.folder, status="FINISHED")
    database = place.workspace.root / "mlflow.db"
    kill_inside_a_commit(database)
    database.rename(database.with_name("mlflow.db.damaged"))
    script = (
        "import sys; from pathlib import Path; \n"
        "from pipeline.tracking import delivery, settings; from pipeline.workspace.paths import Workspace\n"
        "place = Workspace(Path(sys.argv[1]))\n"
        "print(delivery.Tracker(settings.load(place, {}), place, print).deliver_pending())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(place.workspace.root)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert place.rows() == expected(2)
    assert not any(name == "spill" for (name,) in place.rows("sqlite_master", "name"))
    assert (database.parent / "mlflow.db-journal.old").exists()


def test_a_store_that_was_never_finished_is_made_anew_and_told_everything(place):
    place.epochs(1, 2)
    tracker = place.tracker()
    database = place.workspace.root / "mlflow.db"
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")  # a kill inside the upgrades
        connection.execute("ALTER TABLE runs DROP COLUMN deleted_time")
    connection.close()
    os.utime(database, (time.time() - 60, time.time() - 60))
    assert tracker.deliver(RUN, TRAIN, place.folder)
    assert "was never finished and held nothing; it is made anew" in place.problems[0]
    assert place.rows() == expected(2)
    assert database.with_name("mlflow.db.old").exists()


def test_the_store_of_another_owner_is_one_line_and_no_traceback(place, capfd):
    if os.geteuid() != 0:
        pytest.skip("needs the right to be another user")
    place.epochs(1, 1)
    tracker = place.tracker()
    tracker.connect()
    tracker.record(RUN, TRAIN, place.folder)
    database = place.workspace.root / "mlflow.db"
    database.chmod(0o644)
    for folder in (*[place.workspace.root, *place.workspace.root.parents][:4], *place.workspace.root.rglob("*")):
        folder.chmod(0o777 if folder.is_dir() else 0o666)
    database.chmod(0o644)
    os.seteuid(65534)
    try:
        assert not tracker.deliver_recorded(RUN.key, force=True)
    finally:
        os.seteuid(0)
    [problem] = place.problems
    assert "belongs to root and cannot be written by" in problem
    assert "answers again" not in problem
    assert "Traceback" not in "".join(capfd.readouterr())


def test_what_mlflow_finds_wrong_while_it_writes_is_one_line_too(place, capfd):
    place.epochs(1, 1)
    tracker = place.tracker()
    assert tracker.deliver(RUN, TRAIN, place.folder)
    connection = sqlite3.connect(place.workspace.root / "mlflow.db")
    connection.execute("ALTER TABLE metrics RENAME COLUMN step TO steps")
    connection.close()
    assert not tracker.deliver(RUN, TRAIN, place.folder, upto=place.epochs(2, 2))
    assert "its tables are not what MLflow expects (" in place.problems[0]
    assert "Traceback" not in "".join(capfd.readouterr())


class FinishedTraining:
    """A whole training and its evaluation, as the stages leave them."""

    def __init__(self, place):
        self.run = RunIdentity("abc-1", "small, first try")
        place.journal.metrics({"train/loss": 1.0}, 1)
        write_json(place.folder / "run.json", {"key": self.run.key, "name": self.run.name})
        write_json(place.folder / MANIFEST, asdict(Manifest("train", 1, "abc", {}, {}, {})))
        self.folder = place.folder.rename(place.folder.with_name("abc"))
        self.evaluation = place.workspace.stage("evaluate") / "def"
        self.evaluation.mkdir(parents=True)
        with Journal(self.evaluation) as journal:
            journal.metrics({"test/accuracy": 0.9}, 1)
        write_json(self.evaluation / MANIFEST, asdict(Manifest("evaluate", 1, "def", {}, {"train": "abc"}, {})))


def test_a_finished_run_stays_one_and_finished_when_its_record_is_lost(place):
    training = FinishedTraining(place)
    tracker = place.tracker()
    tracker.deliver(training.run, TRAIN, training.folder, status="FINISHED")
    tracker.deliver(training.run, "evaluate/def", training.evaluation)
    shutil.rmtree(place.workspace.hidden / "runs")

    [record] = delivery_state.every(place.workspace)
    assert (record.name, record.status, set(record.journals)) == (RUN.name, "FINISHED", {TRAIN, "evaluate/def"})
    assert tracker.deliver_pending() == 1
    assert tracker.deliver(training.run, TRAIN, training.folder, force=True)  # as register does
    assert place.tracker().close_dead() == []
    assert place.rows("runs", "status") == [("FINISHED",)]
    assert place.rows() == [("test/accuracy", 1), ("train/loss", 1)]


def test_a_finished_run_that_is_noted_as_running_is_not_closed_as_killed(place):
    training = FinishedTraining(place)
    tracker = place.tracker()
    tracker.deliver(training.run, TRAIN, training.folder, status="RUNNING")
    assert tracker.close_dead() == [RUN.name]
    assert place.rows("runs", "status") == [("FINISHED",)]


def test_an_unfinished_run_whose_record_is_lost_is_closed_as_killed(place):
    durable = place.epochs(1, 2)
    write_json(place.folder / "run.json", {"key": RUN.key, "name": RUN.name})
    assert list(delivery_state.every(place.workspace)) == [], "nothing of it is durable yet"
    write_json(place.folder / "step-00000002.json", {"journal_offset": durable})
    place.epochs(3, 3)
    tracker = place.tracker()
    assert tracker.close_dead() == [RUN.name]
    assert place.rows("runs", "status") == [("KILLED",)]
    assert place.rows() == expected(2)
