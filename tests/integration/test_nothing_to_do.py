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
    heavy = [name for name in ("torch", "mlflow", "ray", "numpy", "matplotlib", "rich") if name in sys.modules]
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


def test_a_run_with_nothing_to_do_loads_nothing_heavy(finished):
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, "run", "all", *WORDS],
        cwd=finished.root, env=finished.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "0 []"


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
