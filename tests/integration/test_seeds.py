"""Several seeds with the real product: what MLflow has of them, and what a repeated command does."""

import json
import sqlite3
from contextlib import closing

import pytest
from product import LONG, ONE_EPOCH, Place, leave

SEEDS = ("--seeds", "0-2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Seed 0 was trained alone before."""
    place = Place(tmp_path_factory.mktemp("seeds"), mlflow=True)
    assert place.run("run", "train", *ONE_EPOCH).code == 0
    done = place.run("run", "all", *ONE_EPOCH, *SEEDS, "--json")
    assert done.code == 0, done.err
    yield place, json.loads(done.out)
    place.end()


def query(place: Place, text: str) -> list[tuple]:
    with closing(sqlite3.connect(place.root / "mlflow.db")) as database:
        return database.execute(text).fetchall()


def test_mlflow_has_the_seeds_under_one_run_with_mean_and_deviation(trained):
    place, content = trained
    children = dict(query(place, "SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'"))
    assert set(children) == {one["run_id"] for one in content["models"]}
    [parent] = set(children.values())
    assert dict(query(place, "SELECT run_uuid, status FROM runs")) == dict.fromkeys([*children, parent], "FINISHED")
    metrics = dict(query(place, f"SELECT key, value FROM latest_metrics WHERE run_uuid = '{parent}'"))
    spread = content["seeds"][0]["test_accuracy"]
    assert (metrics["seeds"], spread["count"]) == (3, 3)
    assert metrics["test/accuracy_mean"] == pytest.approx(spread["mean"])
    assert metrics["test/accuracy_deviation"] == pytest.approx(spread["deviation"])
    best = dict(query(place, "SELECT run_uuid, value FROM latest_metrics WHERE key = 'best/validation_accuracy'"))
    assert set(best) == set(children)


def test_a_repeated_command_has_nothing_to_do_and_imports_nothing_heavy(trained):
    place, content = trained
    place.set(PYTHONPROFILEIMPORTTIME="1")
    lines = place.run("run", "all", *ONE_EPOCH, *SEEDS).err.splitlines()
    place.set(PYTHONPROFILEIMPORTTIME=None)
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "scipy.special" in imported
    assert not {"torch", "mlflow", "ray"} & imported
    again = place.run("run", "all", *ONE_EPOCH, *SEEDS)
    assert again.out.count("nothing to do, every stage is up to date") == 3
    assert json.loads(place.run("run", "all", *ONE_EPOCH, *SEEDS, "--json").out)["seeds"] == content["seeds"]


def test_the_workspace_knows_of_each_seed(trained):
    place, _ = trained
    out = place.run("status").out
    assert all(f"vanilla, seed {seed}" in out for seed in range(3))
    assert "seeds of vanilla, 4 classes" in place.run("runs", "list").out
    assert "nothing to remove" in place.run("gc").out


def test_after_ctrl_c_the_same_command_goes_on_with_the_seed_that_was_left(place):
    process = place.start("run", "train", *LONG, *SEEDS)
    whole = place.stages / "train"
    assert place.wait_for(lambda: list(whole.glob("*/manifest.json")) and place.checkpoints(), process)
    done = leave(process)
    assert done.code == 130, done.err
    finished = {path.parent.name for path in whole.glob("*/manifest.json")}
    done = place.run("run", "train", *LONG, *SEEDS)
    assert done.code == 0, done.err
    assert "going on: " in done.err
    assert len(list(whole.glob("*/manifest.json"))) == 3
    assert finished <= {path.parent.name for path in whole.glob("*/manifest.json")}
