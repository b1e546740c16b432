"""`seqpipe gc` removes what nothing needs, and nothing else."""

import json
import os
import shutil
import signal
import sqlite3
import time

import pytest
from product import Place, snapshot, tiny


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A registered training, an unregistered one after it, and the newest."""
    place = Place(tmp_path_factory.mktemp("grown"), mlflow=True)
    for command, epochs in (("all", 1), ("evaluate", 2), ("evaluate", 3)):
        done = place.run("run", command, *tiny(train__epochs=epochs))
        assert done.code == 0, done.err
        time.sleep(1)  # manifests are dated to the second
    return place


@pytest.fixture
def place(tmp_path, grown):
    shutil.copytree(grown.root, tmp_path / "copy")
    place = Place(tmp_path / "copy", mlflow=True)
    place.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{grown.root}/mlflow.db"
    yield place
    place.end()


def trainings(place):
    """Epochs of the whole trainings that are there."""
    manifests = (place.stages / "train").glob("*/manifest.json")
    return sorted(json.loads(path.read_bytes())["result"]["epochs"] for path in manifests)


def test_the_superseded_training_goes_with_all_that_hangs_on_it_and_the_rest_is_still_up_to_date(place):
    before = snapshot(place.root)
    foretold = place.run("gc", "--dry-run", "--json")
    assert foretold.code == 0, foretold.err
    assert snapshot(place.root) == before

    done = place.run("gc", "--json")
    assert done.code == 0, done.err
    told = [one["path"] for one in json.loads(foretold.out)["items"] if one["goes"]]
    assert [one["path"] for one in json.loads(done.out)["items"]] == told
    assert sorted(one["what"] for one in json.loads(done.out)["items"]) == ["evaluate", "predictions", "train"]
    assert json.loads(done.out)["bytes"] > 0
    assert trainings(place) == [1, 3], "the registered one and the newest"
    assert len(list((place.root / ".seqpipe" / "predictions").iterdir())) == 2
    for epochs in (1, 3):
        again = place.run("run", "evaluate", *tiny(train__epochs=epochs))
        assert "nothing to do" in again.out
    assert "nothing to remove" in place.run("gc").out


def test_dry_run_says_why_each_thing_goes_or_stays(place):
    out = place.run("gc", "--dry-run").out
    assert "superseded by a newer training" in out
    assert "a registered version was made from it" in out
    assert "the newest of its model on this data" in out
    assert "3 would go: " in out


def test_what_only_the_registry_refers_to_stays(place):
    shutil.rmtree(place.stages / "register")
    assert place.run("gc").code == 0
    assert trainings(place) == [1, 3]


def test_without_an_answer_from_the_registry_no_training_goes(place, tmp_path):
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 100)
    place.set(MLFLOW_REGISTRY_URI=f"sqlite:///{broken}")
    done = place.run("gc")
    assert done.code == 0, done.err
    assert "what may be registered stays" in done.err
    assert trainings(place) == [1, 2, 3]


def test_what_mlflow_was_not_told_yet_stays(place):
    place.set(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert place.run("gc").code == 0
    assert trainings(place) == [1, 2, 3]


def test_unfinished_work_and_what_is_in_use_stay_and_torn_files_go(place):
    words = tiny("vanilla", train__epochs=50, train__batch_size=4, data__fraction=0.2)
    place.set(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    process = place.start("run", "train", *words)
    assert place.wait_for(place.checkpoints, process)
    process.send_signal(signal.SIGSTOP)
    in_use = place.partial() / ".best.safetensors.tmp"
    stale = place.whole_of(3) / ".epochs.json.77.tmp"
    young = place.whole_of(3) / ".epochs.json.78.tmp"
    for path in (in_use, stale, young):
        path.write_bytes(b"torn")
    for path in (in_use, stale):
        os.utime(path, (0, 0))
    [data] = [json.loads((place.whole_of(3) / "manifest.json").read_bytes())["inputs"]["prepare"]]

    done = place.run("gc", "--json")
    assert done.code == 0, done.err
    assert str(stale) in [one["path"] for one in json.loads(done.out)["items"]]
    assert not stale.exists()
    assert young.exists()
    assert in_use.exists()
    assert place.partial() is not None
    assert (place.stages / "prepare" / data).is_dir()
    assert len(list((place.stages / "prepare").iterdir())) == 2
    process.kill()
    process.wait()
    assert place.run("gc").code == 0
    assert place.checkpoints(), "unfinished work is discarded by --fresh alone"


def test_the_store_of_the_copies_is_the_real_one(grown):
    connection = sqlite3.connect(grown.root / "mlflow.db")
    assert connection.execute("SELECT count(*) FROM model_versions").fetchone()[0] == 1
    connection.close()
