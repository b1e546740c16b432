"""What is up to date is left alone: quickly, and without torch or MLflow."""

import json
import shutil
import subprocess
import sys

import pytest
from product import ONE_EPOCH as WORDS
from product import Place, settings, sha256, snapshot

HEAVY = """
import sys
from pipeline.cli.app import main
sys.argv = ["seqpipe", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    names = ("torch", "mlflow", "ray", "numpy", "matplotlib", "rich", "pipeline.training.forecaster")
    heavy = [name for name in names if name in sys.modules]
    print(f"{ended.code} {heavy}", file=sys.stderr)
"""


@pytest.fixture
def place(tmp_path, finished):
    shutil.copytree(finished.root, tmp_path / "copy", symlinks=True)
    place = Place(tmp_path / "copy", mlflow=True)
    place.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{finished.root}/mlflow.db"  # registered there, not in the copy
    yield place
    place.end()


def test_a_second_run_does_nothing_says_so_and_is_quick(finished):
    before = snapshot(finished.root / ".seqpipe")
    done = min((finished.run("run", "all", *WORDS) for _ in range(3)), key=lambda one: one.seconds)
    assert done.code == 0
    assert "vanilla: nothing to do, every stage is up to date" in done.out
    assert done.err == ""
    assert done.seconds < 1.5
    assert snapshot(finished.root / ".seqpipe") == before


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--dry-run", "--json"]])
def test_a_run_with_nothing_to_do_loads_nothing_heavy_and_forecasts_nothing(finished, more):
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, "run", "all", *WORDS, *more],
        cwd=finished.root, env=finished.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "0 []"
    assert "forecast" not in done.stdout


def test_the_driver_that_looks_for_heavy_imports_sees_them(finished):
    done = subprocess.run(
        [sys.executable, "-c", f"import numpy\n{HEAVY}", "--version"],
        cwd=finished.root, env=finished.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "0 ['numpy']"


def test_another_report_neither_trains_nor_predicts_again(place):
    [predictions] = (place.root / ".seqpipe" / "predictions").glob("*/predictions.npz")
    kept = (predictions.stat().st_mtime_ns, sha256(predictions), snapshot(place.whole("train")))
    done = place.run("run", "evaluate", *WORDS, *settings(evaluate__calibration_bins=7), "--json")
    assert done.code == 0, done.err
    [model] = json.loads(done.out)["models"]
    assert {stage: one["status"] for stage, one in model["stages"].items()} == {
        "prepare": "skipped", "train": "skipped", "evaluate": "done",
    }  # fmt: skip
    assert (predictions.stat().st_mtime_ns, sha256(predictions), snapshot(place.whole("train"))) == kept


def test_a_dry_run_changes_nothing_on_disk(place, tmp_path):
    before = snapshot(place.root)
    done = place.run("run", "all", *WORDS, *settings(train__epochs=2), "--dry-run")
    assert done.code == 0
    assert "train.epochs: 1 -> 2" in done.out
    assert place.run("run", "all", *WORDS, "--fresh", "--dry-run").code == 0
    assert snapshot(place.root) == before

    empty = Place(tmp_path / "empty")
    assert empty.run("run", "all", *WORDS, "--dry-run").code == 0
    assert [path.name for path in empty.root.iterdir()] == ["mlflow.yaml"]


def test_training_needs_no_test_images_and_fresh_trains_again_to_the_same_weights(place):
    place.set(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    before = place.result()
    run_key = json.loads((place.whole("train") / "run.json").read_bytes())["key"]
    for path in place.whole("prepare").glob("test_*.npy"):
        path.unlink()
    done = place.run("run", "train", *WORDS, "--fresh")
    assert done.code == 0, done.err
    assert place.result() == before
    assert json.loads((place.whole("train") / "run.json").read_bytes())["key"] != run_key

    done = place.run("run", "evaluate", *WORDS)
    assert done.code == 1
    assert len(done.errors) == 1
    assert "missing since it was prepared; remove the folder" in done.errors[0]
    shutil.rmtree(place.whole("prepare"))
    assert place.run("run", "evaluate", *WORDS).code == 0
    assert place.result() == before


def test_a_store_that_is_gone_or_cannot_be_used_is_said_by_status_list_and_deliver(place):
    place.set(MLFLOW_TRACKING_URI=None)
    database = place.root / "mlflow.db"
    database.unlink(missing_ok=True)
    assert "no\n" in place.run("runs", "list").out, "what a store had that is gone is not delivered"
    database.mkdir()
    for words in (["status"], ["runs", "list"]):
        done = place.run(*words)
        assert (done.code, done.out.count("move it away (mv ")) == (0, 1), words
    done = place.run("runs", "deliver")
    assert (done.code, len(done.errors)) == (1, 1)
    assert "move it away (mv " in done.errors[0]
    assert "0 of 1 runs delivered" in done.out


def test_status_speaks_of_the_run_just_made(finished):
    done = finished.run("status")
    assert done.code == 0, done.err
    assert "vanilla as it was run last: " in done.out
    assert "train.epochs=1" in done.out
    stages = {
        line.split()[1] for line in done.out.splitlines() if line.startswith("vanilla") and "up to date" in line
    }
    assert stages == {"prepare", "train", "evaluate", "register"}
    asked = json.loads(finished.run("status", "--model", "vanilla", "--json").out)
    assert [one["settings"] for one in asked["models"]] == ["given"]
    assert asked["models"][0]["stages"]["train"]["state"] == "stale"


def test_when_register_fails_the_output_says_what_is_done_and_what_is_not(place):
    place.environ["MLFLOW_REGISTRY_URI"] = "http://127.0.0.1:9"
    done = place.run("run", "all", *WORDS)
    assert done.code == 1, done.err
    assert "vanilla: prepare up to date, train up to date, evaluate up to date, register failed" in done.out
    assert "nothing to do" not in done.out
