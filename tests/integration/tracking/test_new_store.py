"""A store that is gone or was never finished is created again, and everything is delivered to it."""

import os
import sqlite3
import subprocess
import sys
import time

from tracked_workspace import (
    REPOSITORY,
    RUN,
    TRAIN,
    TrackedWorkspace,
    deliver_in_a_process,
    expected,
    kill_inside_a_commit,
)

from pipeline.tracking.delivery import RunIdentity


def test_a_store_that_was_moved_away_is_told_everything_again(tracked):
    other = RunIdentity("old-1", "old")
    for run in (other, RUN):
        tracked.tracker().deliver(run, TRAIN, tracked.folder, upto=tracked.epochs(1, 1), status="FINISHED")
    database = tracked.workspace.root / "mlflow.db"
    used = tracked.tracker()
    used.connection.client()
    database.rename(database.with_name("mlflow.db.damaged"))
    assert not used.deliver(RUN, TRAIN, tracked.folder)
    assert "removed while it was used" in tracked.problems[0]
    done = deliver_in_a_process(tracked.workspace)
    assert (done.stdout, done.stderr, done.returncode) == ("2\n", "", 0)  # and MLflow is quiet about it
    assert len(tracked.rows("runs", "run_uuid")) == 2


def test_processes_that_open_a_fresh_store_at_once_all_get_it(tmp_path):
    tracked = TrackedWorkspace(tmp_path / "fresh", None)
    tracked.journal.close()
    script = (
        "import sys; from pathlib import Path; \n"
        "from pipeline.tracking import delivery, settings; from pipeline.workspace.paths import Workspace\n"
        "workspace = Workspace(Path(sys.argv[1]))\n"
        "tracker = delivery.Tracker(settings.load(workspace, {}), workspace, print)\n"
        "tracker.connection.client(); print(tracker.connection.experiment_id())"
    )
    command = [sys.executable, "-c", script, str(tracked.workspace.root)]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in "ab"]
    assert [process.communicate(timeout=60)[0] for process in both] == [b"1\n", b"1\n"]
    assert [path.name for path in tracked.workspace.root.glob("*mlflow*")] == ["mlflow.db"]


def test_a_database_that_was_moved_away_leaves_no_journal_to_the_new_one(tracked):
    tracked.epochs(1, 2)
    tracked.tracker().deliver(RUN, TRAIN, tracked.folder, status="FINISHED")
    database = tracked.workspace.root / "mlflow.db"
    kill_inside_a_commit(database)
    database.rename(database.with_name("mlflow.db.damaged"))
    done = deliver_in_a_process(tracked.workspace)
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert tracked.rows() == expected(2)
    assert not any(name == "spill" for (name,) in tracked.rows("sqlite_master", "name"))
    assert (database.parent / "mlflow.db-journal.old").exists()


def test_a_store_that_was_never_finished_is_made_anew_and_told_everything(tracked):
    tracked.epochs(1, 2)
    tracker = tracked.tracker()
    database = tracked.workspace.root / "mlflow.db"
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")  # a kill inside the upgrades
        connection.execute("ALTER TABLE runs DROP COLUMN deleted_time")
    connection.close()
    os.utime(database, (time.time() - 60, time.time() - 60))
    assert tracker.deliver(RUN, TRAIN, tracked.folder)
    assert "was never finished and held nothing; it is made anew" in tracked.problems[0]
    assert tracked.rows() == expected(2)
    assert database.with_name("mlflow.db.old").exists()
