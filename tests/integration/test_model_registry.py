import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from safetensors.torch import save_file

from pipeline.errors import TrackingError
from pipeline.tracking import registry as model_registry
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.journal import Journal
from pipeline.tracking.registry import Candidate, register
from pipeline.tracking.still_registered import missing_run, missing_version
from pipeline.workspace.paths import Workspace
from sequencer_models import catalog
from sequencer_models.inference import probabilities

CLASSES = ("airplane", "bird")
CARD = {
    "architecture": {"name": "vanilla", "hidden": 4, "layers": 1},
    "classes": list(CLASSES),
    "mean": [125.0, 122.0, 113.0],
    "std": [51.0, 50.0, 52.0],
}
EXAMPLE = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


class Place:
    """A workspace with a store, a run in it, and a tiny network."""

    def __init__(self, root):
        self.workspace = Workspace(root)
        root.mkdir()
        self.workspace.create()
        self.problems = []
        self.tracker = Tracker(mlflow_settings.load(self.workspace, {}), self.workspace, self.problems.append)
        run = RunIdentity("abc-1", "small")
        folder = self.workspace.stage("train") / "abc"
        folder.mkdir(parents=True)
        with Journal(folder) as journal:
            journal.metrics({"test/accuracy": 0.8}, 5)
        assert self.tracker.deliver(run, "train/abc", folder, status="FINISHED")
        self.run_id = self.tracker.run_id(run)
        torch.manual_seed(0)
        self.network = catalog.build("vanilla", 2, hidden=4, layers=1)
        self.weights = folder / "model.safetensors"
        save_file(self.network.state_dict(), self.weights)

    def candidate(self, key, accuracy=0.8, **other):
        tags = {"git_commit": "f00", "data_hash": "d00"}
        given = {"test_hash": "t00", "tags": tags, **other}
        metrics = {"test/accuracy": 0.8}
        return Candidate(
            key, self.weights, CARD, accuracy, metrics=metrics, example=EXAMPLE, description="a test model", **given
        )

    def register(self, name, key, accuracy=0.8, **other):
        return register(self.tracker, self.run_id, name, self.candidate(key, accuracy, **other))

    def aliases(self, name):
        aliases = self.tracker.connect().get_registered_model(name).aliases
        return {alias: str(version) for alias, version in aliases.items()}

    def logged(self, key):
        query = f"tags.`{model_registry.REGISTER_KEY_TAG}` = '{key}'"
        return self.tracker.connect().search_logged_models([self.tracker.experiment_id()], query)

    def versions(self, name):
        return self.tracker.connect().search_model_versions(f"name = '{name}'")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One workspace for all tests: each registers under a name of its own."""
    return Place(tmp_path_factory.mktemp("registry") / "grüße 100% x")


def test_the_first_version_is_champion_and_challenger(place):
    done = place.register("first", "k1")
    assert (done.version, done.aliases, done.created) == ("1", ("challenger", "champion"), True)
    assert (done.previous_champion, done.previous_champion_accuracy) == (None, None)
    version = place.tracker.connect().get_model_version_by_alias("first", "champion")
    assert version.tags["git_commit"] == "f00"
    assert version.tags[model_registry.ACCURACY_TAG] == "0.8"
    assert version.run_id == place.run_id
    assert version.description == "a test model"


@pytest.mark.parametrize(("accuracy", "wins"), [(0.81, True), (0.8, False), (0.79, False)])
def test_only_a_better_one_becomes_champion(place, accuracy, wins):
    name = f"rule-{accuracy}"
    place.register(name, "old", 0.8)
    done = place.register(name, f"new-{accuracy}", accuracy)
    assert done.previous_champion == "1"
    assert done.previous_champion_accuracy == 0.8
    assert done.is_champion == wins
    assert place.aliases(name) == {"challenger": "2", "champion": "2" if wins else "1"}


def test_registering_again_changes_nothing(place):
    place.register("again", "a1", 0.8)
    place.register("again", "a2", 0.7)
    before = place.aliases("again")
    assert place.register("again", "a1", 0.8).version == "1"
    assert place.aliases("again") == before
    assert place.register("again", "a2", 0.7).created is False
    assert place.aliases("again") == before == {"challenger": "2", "champion": "1"}
    assert len(place.versions("again")) == 2


@pytest.mark.parametrize(
    "dies_in", ["log_model_artifacts", "finalize_logged_model", "create_model_version", "set_registered_model_alias"]
)
def test_a_crash_anywhere_makes_no_second_version(place, monkeypatch, dies_in):
    name = f"crash-{dies_in}"
    with monkeypatch.context() as broken:
        broken.setattr(place.tracker.connect(), dies_in, lambda *_, **__: (_ for _ in ()).throw(OSError("died")))
        with pytest.raises(TrackingError, match="died"):
            place.register(name, name)
    ready = [model.model_id for model in place.logged(name) if model.status == "READY"]
    assert len(ready) == (dies_in in ("create_model_version", "set_registered_model_alias"))
    done = place.register(name, name)
    assert done.aliases == ("challenger", "champion")
    assert len(place.versions(name)) == 1
    logged = place.logged(name)
    assert [model.status for model in logged] == ["READY"]
    assert [logged[0].model_id] == (ready or [logged[0].model_id]), "what was whole is not logged again"


def test_showing_figures_with_the_model_does_not_double_them_in_the_run(place):
    place.register("figures", "f1")
    client = place.tracker.connect()
    assert len(client.get_metric_history(place.run_id, "test/accuracy")) == 1
    [model] = place.logged("f1")
    assert {metric.key: metric.value for metric in model.metrics} == {"test/accuracy": 0.8}
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "figures", "version": "1"}]


def test_a_loaded_model_gives_the_probabilities_of_a_direct_forward(place):
    place.register("loaded", "l1")
    table = model_registry.load(place.tracker, "loaded").predict(EXAMPLE)
    expected = probabilities(place.network, EXAMPLE, CARD["mean"], CARD["std"])
    np.testing.assert_allclose(table[[f"probability_{name}" for name in CLASSES]], expected, atol=1e-6)
    with pytest.raises(MlflowException, match="uint8"):
        model_registry.load(place.tracker, "loaded").predict(EXAMPLE / np.float32(255))
    with pytest.raises(TrackingError, match="'9'"):
        model_registry.load(place.tracker, "loaded", "9")
    with pytest.raises(TrackingError, match="nobody"):
        model_registry.load(place.tracker, "loaded", "nobody")


def test_a_model_loads_where_seqpipe_is_not_and_without_pickle(place, tmp_path):
    place.register("served", "s1")
    np.save(tmp_path / "images.npy", EXAMPLE)
    # an audit hook sees every name that an unpickler looks up
    script = (
        "import sys, numpy as np; found = []\n"
        "sys.addaudithook(lambda event, args: found.append(args) if event == 'pickle.find_class' else None)\n"
        "import mlflow; found.clear()\n"
        "table = mlflow.pyfunc.load_model('models:/served@champion').predict(np.load('images.npy'))\n"
        "assert 'pipeline' not in sys.modules and not found, found\n"
        "import sequencer_models; print(sequencer_models.__file__)\n"
        "print(*table.columns)"
    )
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "MLFLOW_TRACKING_URI": place.tracker.settings.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no warnings either"
    module, columns = done.stdout.splitlines()
    assert "mlartifacts" in module
    assert columns == "class probability probability_airplane probability_bird"


def test_the_logged_folder_holds_no_pickle_and_no_local_build(place):
    place.register("folder", "o1")
    [model] = place.logged("o1")
    root = place.workspace.root / "mlartifacts" / "models" / model.model_id / "artifacts"
    names = {path.suffix for path in root.rglob("*") if path.is_file()}
    assert names <= {".safetensors", ".json", ".py", ".c", ".typed", ".yaml", ".txt", ""}  # the kernel by its source
    pins = (root / "requirements.txt").read_text().split()
    assert [pin.split("==")[0] for pin in pins] == ["mlflow", "torch", "numpy", "pandas", "safetensors"]
    assert "+" not in "".join(pins)


def test_what_cannot_be_registered_is_one_line(place):
    with pytest.raises(TrackingError) as caught:
        register(place.tracker, "0" * 32, "nothing", place.candidate("n1"))
    assert "\n" not in str(caught.value)
    assert "nothing" in str(caught.value)


def test_a_champion_that_was_judged_on_other_images_stays_and_the_version_says_why(place):
    place.register("other images", "o1", 0.36, test_hash="of 200")
    done = place.register("other images", "o2", 0.375, test_hash="of 8")
    assert place.aliases("other images") == {"challenger": "2", "champion": "1"}
    assert done.not_compared == "the champion, version 1, was judged on other test images"
    version = place.tracker.connect().get_model_version("other images", "2")
    assert version.tags[model_registry.NOT_COMPARED_TAG] == done.not_compared
    assert version.description == f"a test model; not compared: {done.not_compared}"
    third = place.register("other images", "o3", 0.361, test_hash="of 200")
    assert (third.is_champion, third.not_compared) == (True, "")


def test_a_version_is_compared_once_it_can_be_and_says_so_no_more(place):
    place.register("later", "l1", test_hash="a")
    place.register("later", "l2", 0.9, test_hash="b")
    client = place.tracker.connect()
    client.set_registered_model_alias("later", "champion", "2")  # as a user may
    client.delete_model_version("later", "1")
    assert place.register("later", "l2", 0.9, test_hash="b").is_champion
    version = client.get_model_version("later", "2")
    assert model_registry.NOT_COMPARED_TAG not in version.tags
    assert version.description == "a test model"


def as_earlier_releases_did(place, name, accuracy="0.8", **tags):
    """A champion whose tags do not say on which images it was judged."""
    client = place.tracker.connect()
    place.register(name, f"{name}-old")
    client.delete_model_version_tag(name, "1", model_registry.TEST_HASH_TAG)
    client.delete_model_version_tag(name, "1", model_registry.DATA_HASH_TAG)
    client.set_model_version_tag(name, "1", model_registry.ACCURACY_TAG, accuracy)
    for key, value in tags.items():
        client.set_model_version_tag(name, "1", key, value)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"d-old": "t00"}, ""),
        ({"d-old": "others"}, "the champion, version 1, was judged on other test images"),
        ({}, "the champion, version 1, does not say on which test images it was judged"),
    ],
)
def test_the_images_of_a_champion_of_an_earlier_release_are_known_from_its_data(place, known, reason):
    name = f"earlier {len(reason)}"
    as_earlier_releases_did(place, name, data_hash="d-old")
    done = place.register(name, name, 0.81, earlier_test_hashes=known)
    assert (done.not_compared, done.is_champion) == (reason, not reason)


@pytest.mark.parametrize("accuracy", ["eighty", "nan"])
def test_a_champion_without_a_readable_accuracy_is_not_taken_for_a_bad_one(place, accuracy):
    name = f"says {accuracy}"
    place.register(name, "old")
    place.tracker.connect().set_model_version_tag(name, "1", model_registry.ACCURACY_TAG, accuracy)
    done = place.register(name, f"new {accuracy}", 0.1)
    assert done.is_champion == (accuracy == "nan"), "not a number is worse than any"
    assert ("does not say its test accuracy" in done.not_compared) == (accuracy == "eighty")


def test_what_was_deleted_in_mlflow_is_noticed_and_made_again(place):
    name, database = "deleted", place.tracker.settings.database
    client = place.tracker.connect()
    place.register(name, "d1")
    assert missing_version(database, name, "1") is None
    for alias in ("champion", "challenger"):
        client.delete_registered_model_alias(name, alias)
        assert missing_version(database, name, "1") == f"no version is the {alias}"
        assert place.register(name, "d1").version == "1"
        assert missing_version(database, name, "1") is None
    client.delete_model_version(name, "1")
    assert missing_version(database, name, "1") == "version 1 is no longer in MLflow"
    done = place.register(name, "d1")
    assert (done.version, done.aliases) == ("2", ("challenger", "champion"))
    client.rename_registered_model(name, "by another name")
    assert missing_version(database, name, "2") == "version 2 is no longer in MLflow"
    client.delete_registered_model("by another name")
    assert place.register(name, "d1").aliases == ("challenger", "champion")


@pytest.mark.parametrize("also_the_logged_model", [False, True])
def test_a_version_whose_files_are_gone_gets_a_successor(place, also_the_logged_model):
    name = f"files {also_the_logged_model}"
    place.register(name, name)
    [model] = place.logged(name)
    shutil.rmtree(place.workspace.root / "mlartifacts" / "models" / model.model_id)
    if also_the_logged_model:
        place.tracker.connect().delete_logged_model(model.model_id)
    assert "the files of version 1 are gone" in missing_version(place.tracker.settings.database, name, "1")
    done = place.register(name, name)
    assert (done.version, done.aliases) == ("2", ("challenger", "champion"))
    assert len(model_registry.load(place.tracker, name).predict(EXAMPLE)) == len(EXAMPLE)


def test_a_run_that_was_deleted_in_mlflow_is_noticed(place):
    database = place.tracker.settings.database
    client = place.tracker.connect()
    run = client.create_run(place.tracker.experiment_id())
    assert missing_run(database, run.info.run_id) is None
    client.delete_run(run.info.run_id)
    assert missing_run(database, run.info.run_id) == "its run was deleted in MLflow"
    assert missing_run(database, "never there") == "its run was deleted in MLflow"


def test_a_store_that_cannot_be_asked_is_believed(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"damaged" * 100)
    for database in (tmp_path / "mlflow.db", tmp_path / "not there"):
        assert missing_run(database, "r1") is None
        assert missing_version(database, "m", "1") is None


def test_what_is_logged_follows_the_umask_whatever_its_sources_allow(place):
    place.weights.chmod(0o600)  # as trainings of earlier releases
    before = os.umask(0o027)
    try:
        place.register("umask", "u1")
    finally:
        os.umask(before)
    [model] = place.logged("u1")
    folder = place.workspace.root / "mlartifacts" / "models" / model.model_id / "artifacts"
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*")} == {0o640, 0o750}
