"""Stores of an older MLflow, and workspaces that can only be looked at, through the real commands."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from urllib.request import ProxyHandler, build_opener

from product import snapshot, tiny

from pipeline.tracking.mlflow_schema import schema_revisions
from pipeline.tracking.sqlite_files import sqlite_uri

WORDS = tiny("vanilla", train__epochs=1)
KILLED_INSIDE_A_COMMIT = """
import os, signal, sqlite3
connection = sqlite3.connect("mlflow.db", isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.execute("UPDATE metrics SET value = -1")
connection.execute("CREATE TABLE spill (text)")
connection.executemany("INSERT INTO spill VALUES (?)", (("x" * 1000,) for _ in range(500)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def rows(database, query):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def make_older(database):
    """A store as the MLflow before the last change of its schema left it, with a run."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = utils.create_sqlalchemy_engine(sqlite_uri(database))
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(str(engine.url))
    [before] = ScriptDirectory.from_config(config).get_revision(schema_revisions()[1])._versioned_down_revisions
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, before)
    engine.dispose()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO runs (run_uuid, name, lifecycle_stage) VALUES ('r', 'of before', 'active')")


def test_the_upgrade_that_is_advised_for_an_older_store_works_and_everything_arrives(place):
    place.set(MLFLOW_TRACKING_URI=None)
    database = place.root / "mlflow.db"
    make_older(database)
    done = place.run("run", "evaluate", *WORDS)
    assert done.code == 0, done.err
    assert done.err.count("an older MLflow made it") == 1
    done = place.run("runs", "deliver")
    assert (done.code, len(done.errors)) == (1, 1)
    advised = done.errors[0].partition("`")[2].partition("`")[0]
    subprocess.run(["sh", "-c", advised], check=True, capture_output=True)
    assert place.run("runs", "deliver").code == 0
    assert rows(database, "SELECT name, status FROM runs WHERE name != 'of before'")[0][1] == "FINISHED"
    assert rows(database, "SELECT count(*) FROM runs") == [(2,)]
    assert rows(f"{database}.older", "SELECT count(*) FROM runs") == [(1,)]


def kill_inside_a_commit(place):
    done = subprocess.run([sys.executable, "-c", KILLED_INSIDE_A_COMMIT], cwd=place.root, check=False)
    assert done.returncode == -9
    assert (place.root / "mlflow.db-journal").stat().st_size


def test_after_a_kill_inside_a_commit_each_command_goes_on_by_itself(place):
    assert place.run("run", "evaluate", *WORDS).code == 0
    place.set(MLFLOW_TRACKING_URI=None)
    assert place.run("runs", "deliver").code == 0
    kept = rows(place.root / "mlflow.db", "SELECT key, step, value FROM metrics ORDER BY 1, 2")
    for words in (["runs", "deliver"], ["doctor"], ["ui"], ["run", "all", *WORDS]):
        kill_inside_a_commit(place)
        if words == ["ui"]:
            served(place)
        else:
            for told in (place.root / ".seqpipe" / "runs").glob("*@*.json"):
                told.unlink()  # so that there is something to deliver
            done = place.run(*words)
            assert done.code == 0, (words, done.err)
        assert not (place.root / "mlflow.db-journal").exists(), words
        found = rows(place.root / "mlflow.db", "SELECT DISTINCT key, step, value FROM metrics ORDER BY 1, 2")
        assert found == kept, words
    assert rows(place.root / "mlflow.db", "SELECT status FROM runs") == [("FINISHED",)]


def served(place):
    """What the UI says besides its address, once it has shown the experiment and was ended by Ctrl-C."""
    process = place.start("ui", "--port", "5719")
    line = process.stdout.readline()
    assert line.startswith("MLflow UI: http://127.0.0.1:5719/"), process.communicate(timeout=20)[1]
    answer = build_opener(ProxyHandler({})).open(
        "http://127.0.0.1:5719/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=seqpipe", timeout=20
    )
    assert answer.status == 200
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    return err


def test_a_read_only_workspace_can_be_looked_at(mounted, tmp_path):
    mounted.set(MLFLOW_TRACKING_URI=None)
    assert mounted.run("run", "all", *WORDS).code == 0
    kill_inside_a_commit(mounted)
    subprocess.run(["mount", "-o", "remount,ro", mounted.root], check=True)
    before = snapshot(mounted.root)
    for words in (
        ["status"], ["status", "--json"], ["runs", "list"], ["config", "show"], ["gc", "--dry-run"],
        ["run", "all", *WORDS, "--dry-run"], ["run", "all", *WORDS], ["runs", "deliver"],
    ):  # fmt: skip
        done = mounted.run(*words)
        assert done.code == 0, (words, done.err)
    done = mounted.run("doctor")
    assert done.code == 6
    assert "is on a file system that is mounted read-only" in done.out
    assert "whole, contents verified" in done.out
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    mounted.set(TMPDIR=str(temporary))
    assert "the UI shows a copy of the store" in served(mounted)
    assert list(temporary.glob("seqpipe-*")) == []
    assert snapshot(mounted.root) == before
    done = mounted.run("run", "all", *WORDS, "--seed", "1")
    assert (done.code, len(done.errors)) == (1, 1)
    assert "Read-only file system" in done.errors[0]
