"""A disk that fills up, a store that cannot be used: nothing is lost, and the same command ends what was begun."""

import json
import sqlite3

from product import fill, tiny

ONE_EPOCH = tiny("vanilla", train__epochs=1)


def test_a_full_disk_ends_in_one_line_and_the_training_goes_on_when_there_is_space(mounted):
    words = tiny("small", model__dims="[32,64]", train__epochs=6, train__batch_size=16)
    assert mounted.run("run", "prepare", *words).code == 0
    filler = mounted.root / "filler"
    process = mounted.start("run", "train", *words)
    assert mounted.wait_for(mounted.checkpoints, process)
    fill(filler)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    [line] = [line for line in err.splitlines() if line.startswith("seqpipe: ")]
    assert "No space left on device; free some space" in line
    assert mounted.checkpoints()
    filler.unlink()
    done = mounted.run("run", "train", *words)
    assert done.code == 0, done.err
    assert "going on: " in done.err


def test_an_unreachable_server_stops_nothing_is_said_once_and_told_everything_later(place):
    done = place.run("run", "evaluate", *ONE_EPOCH)
    assert done.code == 0, done.err
    assert done.err.count("cannot be reached") == 1
    assert place.run("run", "register", *ONE_EPOCH).code == 1
    place.set(MLFLOW_TRACKING_URI=None)
    done = place.run("run", "all", *ONE_EPOCH)
    assert done.code == 0, done.err
    assert "register" in done.out
    keys = {key for (key,) in rows(place.root / "mlflow.db", "SELECT DISTINCT key FROM metrics")}
    assert {"train/loss", "validation/accuracy", "test/accuracy"} <= keys
    assert rows(place.root / "mlflow.db", "SELECT status FROM runs") == [("FINISHED",)]
    assert rows(place.root / "mlflow.db", "SELECT count(*) FROM model_versions") == [(1,)]


def test_a_damaged_store_stops_no_training_and_is_told_until_it_is_moved_away(place):
    place.set(MLFLOW_TRACKING_URI=None)
    database = place.root / "mlflow.db"
    database.write_bytes(b"this is no database" * 1000)
    done = place.run("run", "all", *ONE_EPOCH)
    assert done.code == 1
    assert len(done.errors) == 1
    assert "is damaged; move it away (mv " in done.errors[0]
    assert place.whole("evaluate").is_dir()
    database.rename(database.with_suffix(".damaged"))
    done = place.run("run", "all", *ONE_EPOCH, "--json")
    assert done.code == 0, done.err
    [model] = json.loads(done.out)["models"]
    assert [one["status"] for one in model["stages"].values()] == ["skipped", "skipped", "skipped", "done"]
    assert rows(database, "SELECT count(*) FROM model_versions") == [(1,)]


def rows(database, query):
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
