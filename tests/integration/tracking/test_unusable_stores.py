"""A store that cannot be used is one line that says what to do, and nothing is lost."""

import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from tracked_workspace import RUN, TRAIN, expected, kill_inside_a_commit

from pipeline.errors import TrackingError


def test_a_deleted_experiment_is_said_and_not_brought_back(tracked):
    tracker = tracked.tracker()
    tracker.connection.client().delete_experiment(tracker.connection.experiment_id())
    tracked.epochs(1, 1)
    assert not tracked.tracker().deliver(RUN, TRAIN, tracked.folder)
    assert "mlflow experiments restore" in tracked.problems[0]


@pytest.mark.parametrize("damage", [b"no database at all " * 100, None])
def test_a_damaged_store_is_said_and_delivered_anew_when_moved_away(tracked, made_store, damage):
    database = tracked.workspace.root / "mlflow.db"
    tracked.epochs(1, 1)
    if damage:
        database.write_bytes(damage)
    else:  # the header is fine, the pages are not
        content = bytearray(made_store.read_bytes())
        content[4096 * 2 :] = b"\x07" * (len(content) - 4096 * 2)
        database.write_bytes(content)
    assert not tracked.tracker().deliver(RUN, TRAIN, tracked.folder)
    assert "damaged; move it away" in tracked.problems[0]
    assert "\n" not in tracked.problems[0]


def test_the_store_of_another_program_is_left_alone(tracked):
    database = tracked.workspace.root / "mlflow.db"
    database.unlink()
    database.mkdir()
    with pytest.raises(TrackingError):
        tracked.tracker().connection.client()


def test_the_store_of_another_owner_is_one_line_and_no_traceback(tracked, capfd):
    if os.geteuid() != 0:
        pytest.skip("needs the right to be another user")
    tracked.epochs(1, 1)
    tracker = tracked.tracker()
    tracker.connection.client()
    tracker.record(RUN, TRAIN, tracked.folder)
    database = tracked.workspace.root / "mlflow.db"
    database.chmod(0o644)
    root, shared = tracked.workspace.root, Path(tempfile.gettempdir())
    above = [folder for folder in root.parents if folder.is_relative_to(shared) and folder != shared]
    for folder in (*above, root, *root.rglob("*")):
        folder.chmod(0o777 if folder.is_dir() else 0o666)
    database.chmod(0o644)
    os.seteuid(65534)
    try:
        assert not tracker.deliver_recorded(RUN.key, force=True)
    finally:
        os.seteuid(0)
    [problem] = tracked.problems
    assert "belongs to root and cannot be written by" in problem
    assert "answers again" not in problem
    assert "Traceback" not in "".join(capfd.readouterr())


def test_what_mlflow_finds_wrong_while_it_writes_is_one_line_too(tracked, capfd):
    tracked.epochs(1, 1)
    tracker = tracked.tracker()
    assert tracker.deliver(RUN, TRAIN, tracked.folder)
    connection = sqlite3.connect(tracked.workspace.root / "mlflow.db")
    connection.execute("ALTER TABLE metrics RENAME COLUMN step TO steps")
    connection.close()
    assert not tracker.deliver(RUN, TRAIN, tracked.folder, upto=tracked.epochs(2, 2))
    assert "its tables are not what MLflow expects (" in tracked.problems[0]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_kill_inside_a_commit_locks_nobody_out(tracked):
    tracked.epochs(1, 2)
    assert tracked.tracker().deliver(RUN, TRAIN, tracked.folder)
    kill_inside_a_commit(tracked.workspace.root / "mlflow.db")
    assert tracked.tracker().deliver(RUN, TRAIN, tracked.folder, upto=tracked.epochs(3, 3))
    assert tracked.problems == []
    assert tracked.rows() == expected(3)
    assert min(value for (value,) in tracked.rows(columns="value")) >= 0
