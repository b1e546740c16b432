import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile

import mlflow
import numpy as np
import pytest
import torch
from accuracy_gate import by_accuracy
from mlflow.exceptions import MlflowException
from safetensors.torch import save_file

from pipeline.errors import ConfigError, TrackingError
from pipeline.inference.loading import read_classifier
from pipeline.tracking import model_versions, registry_names
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.champion_history import TAG, read
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.delivery import RunIdentity, Tracker
from pipeline.tracking.journal import Journal
from pipeline.tracking.logged_model import Candidate
from pipeline.tracking.model_versions import find_version, version_files
from pipeline.tracking.registered_versions import standing
from pipeline.tracking.registration_check import missing_run, missing_version
from pipeline.tracking.registry import register, registered_run_keys
from pipeline.tracking.registry_names import PREDICTIONS
from pipeline.tracking.version_choice import VersionChoice
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


class RegistryWorkspace:
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
        self.predictions = folder / "predictions.npz"
        self.predictions.write_bytes(b"predictions")

    def candidate(self, key, accuracy=0.8, **other):
        tags = {"git_commit": "f00", "data_hash": "d00"}
        given = {"test_hash": "t00", "tags": tags, **other}
        metrics = {"test/accuracy": 0.8}
        return Candidate(
            key,
            self.weights,
            self.predictions,
            CARD,
            accuracy,
            metrics=metrics,
            example=EXAMPLE,
            description="a test model",
            **given,
        )

    def register(self, name, key, accuracy=0.8, **other):
        return register(self.tracker, self.run_id, name, self.candidate(key, accuracy, **other), by_accuracy)

    def aliases(self, name):
        aliases = self.tracker.connection.client().get_registered_model(name).aliases
        return {alias: str(version) for alias, version in aliases.items()}

    def logged(self, key):
        query = f"tags.`{registry_names.REGISTER_KEY_TAG}` = '{key}'"
        return self.tracker.connection.client().search_logged_models([self.tracker.connection.experiment_id()], query)

    def load(self, name):
        """The champion, as whoever serves it loads it."""
        source = self.tracker.connection.client().get_model_version_by_alias(name, "champion").source
        return mlflow.pyfunc.load_model(source)

    def versions(self, name):
        return self.tracker.connection.client().search_model_versions(f"name = '{name}'")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One workspace for all tests: each registers under a name of its own."""
    return RegistryWorkspace(tmp_path_factory.mktemp("registry") / "grüße 100% x")


def test_the_first_version_is_champion_and_challenger(place):
    done = place.register("first", "k1")
    assert (done.version, done.aliases) == ("1", ("challenger", "champion"))
    version = place.tracker.connection.client().get_model_version_by_alias("first", "champion")
    assert version.tags["git_commit"] == "f00"
    assert version.tags[registry_names.ACCURACY_TAG] == "0.8"
    assert version.run_id == place.run_id
    assert version.description == "a test model\n\n---\n\nthe first"


def test_only_a_better_one_becomes_champion(place):
    """The rule itself: tests/unit/pipeline/tracking/test_promotion.py."""
    place.register("rule", "old", 0.8)
    assert place.register("rule", "worse", 0.7).aliases == ("challenger",)
    assert place.aliases("rule") == {"challenger": "2", "champion": "1"}
    assert place.register("rule", "better", 0.9).aliases == ("challenger", "champion")
    assert place.aliases("rule") == {"challenger": "3", "champion": "3"}


def test_registering_again_changes_nothing(place):
    place.register("again", "a1", 0.8)
    place.register("again", "a2", 0.7)
    before = place.aliases("again")
    assert place.register("again", "a1", 0.8).version == "1"
    assert place.aliases("again") == before
    assert place.register("again", "a2", 0.7).version == "2"
    assert place.aliases("again") == before == {"challenger": "2", "champion": "1"}
    assert len(place.versions("again")) == 2


@pytest.mark.parametrize(
    "dies_in", ["log_model_artifacts", "finalize_logged_model", "create_model_version", "set_registered_model_alias"]
)
def test_a_crash_anywhere_makes_no_second_version(place, monkeypatch, dies_in):
    name = f"crash-{dies_in}"
    with monkeypatch.context() as broken:
        broken.setattr(
            place.tracker.connection.client(), dies_in, lambda *_, **__: (_ for _ in ()).throw(OSError("died"))
        )
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
    client = place.tracker.connection.client()
    assert len(client.get_metric_history(place.run_id, "test/accuracy")) == 1
    [model] = place.logged("f1")
    assert {metric.key: metric.value for metric in model.metrics} == {"test/accuracy": 0.8}
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "figures", "version": "1"}]


def test_a_loaded_model_gives_the_probabilities_of_a_direct_forward(place):
    place.register("loaded", "l1")
    table = place.load("loaded").predict(EXAMPLE)
    expected = probabilities(place.network, EXAMPLE, CARD["mean"], CARD["std"])
    np.testing.assert_allclose(table[[f"probability_{name}" for name in CLASSES]], expected, atol=1e-6)
    with pytest.raises(MlflowException, match="uint8"):
        place.load("loaded").predict(EXAMPLE / np.float32(255))


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
    assert names <= {
        ".safetensors",
        ".npz",
        ".json",
        ".py",
        ".c",
        ".typed",
        ".yaml",
        ".txt",
        "",
    }  # the kernel by its source
    pins = (root / "requirements.txt").read_text().split()
    assert [pin.split("==")[0] for pin in pins] == ["mlflow", "torch", "numpy", "pandas", "safetensors"]
    assert "+" not in "".join(pins)


def test_what_cannot_be_registered_is_one_line(place):
    with pytest.raises(TrackingError) as caught:
        register(place.tracker, "0" * 32, "nothing", place.candidate("n1"), by_accuracy)
    assert "\n" not in str(caught.value)
    assert "nothing" in str(caught.value)


def test_a_champion_that_was_judged_on_other_images_stays_and_the_version_says_why(place):
    place.register("other images", "o1", 0.36, test_hash="of 200")
    done = place.register("other images", "o2", 0.375, test_hash="of 8")
    assert place.aliases("other images") == {"challenger": "2", "champion": "1"}
    assert done.not_compared == "the champion, version 1, was judged on other test images"
    version = place.tracker.connection.client().get_model_version("other images", "2")
    assert version.tags[registry_names.NOT_COMPARED_TAG] == done.not_compared
    assert version.description == f"a test model\n\n---\n\nnot compared: {done.not_compared}"


def test_a_version_is_compared_once_it_can_be_and_says_so_no_more(place):
    place.register("later", "l1", test_hash="a")
    place.register("later", "l2", 0.9, test_hash="b")
    client = place.tracker.connection.client()
    client.set_model_version_tag("later", "1", registry_names.TEST_HASH_TAG, "b")
    assert "champion" in place.register("later", "l2", 0.9, test_hash="b").aliases
    version = client.get_model_version("later", "2")
    assert registry_names.NOT_COMPARED_TAG not in version.tags
    assert version.description == "a test model\n\n---\n\nbetter: True"
    tags = client.get_registered_model("later").tags
    assert {key: value for key, value in tags.items() if not key.startswith(TAG)} == {"decisions": "1"}
    assert [change.version for change in read(tags)] == ["1", "2"]


def test_the_predictions_lie_with_each_version_and_are_fetched_from_there(place, tmp_path):
    place.register("evidence", "e1")
    with standing(place.tracker.connection.client(), "evidence", "1", tmp_path) as found:
        assert found.contender.predictions().read_bytes() == b"predictions"
    [model] = place.logged("e1")
    (place.workspace.root / "mlartifacts" / "models" / model.model_id / "artifacts" / PREDICTIONS).unlink()
    with standing(place.tracker.connection.client(), "evidence", "1", tmp_path) as found:
        assert found.contender.predictions() is None


def test_what_was_deleted_in_mlflow_is_noticed_and_made_again(place):
    name, database = "deleted", place.tracker.settings.database
    client = place.tracker.connection.client()
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
        place.tracker.connection.client().delete_logged_model(model.model_id)
    assert "the files of version 1 are gone" in missing_version(place.tracker.settings.database, name, "1")
    done = place.register(name, name)
    assert (done.version, done.aliases) == ("2", ("challenger", "champion"))
    assert len(place.load(name).predict(EXAMPLE)) == len(EXAMPLE)


def test_a_run_that_was_deleted_in_mlflow_is_noticed(place):
    database = place.tracker.settings.database
    client = place.tracker.connection.client()
    run = client.create_run(place.tracker.connection.experiment_id())
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


def test_the_keys_of_the_runs_of_all_versions_are_known(place):
    for number in range(2):
        place.register("keys", f"keys-{number}", tags={"run_key": f"run-{number}"})
    assert registered_run_keys(place.tracker.connection) >= {"run-0", "run-1"}


def test_a_registry_that_cannot_be_asked_is_an_error_and_a_store_that_is_gone_has_no_versions(tmp_path):
    workspace = Workspace(tmp_path)
    settings = mlflow_settings.load(workspace, {})
    assert registered_run_keys(StoreConnection(settings, workspace, print)) == frozenset()
    settings.database.write_bytes(b"damaged" * 100)
    with pytest.raises(TrackingError, match="is damaged"):
        registered_run_keys(StoreConnection(settings, workspace, print))


def test_versions_are_the_same_with_sqlite_alone_and_through_mlflows_client(place, monkeypatch):
    place.register("found", "v1", 0.8)
    place.register("found", "v2", 0.7)
    connection, texts = place.tracker.connection, ("found@champion", "found@challenger", "found/1", "found/2")
    alone = [find_version(VersionChoice.parse(text), connection) for text in texts]
    assert [version.number for version in alone] == ["1", "2", "1", "2"]
    monkeypatch.setattr(model_versions, "_database", lambda settings: None)  # as of a server
    assert [find_version(VersionChoice.parse(text), connection) for text in texts] == alone
    wrong = {"found/3": "versions: 1, 2", "found@best": "aliases: champion, challenger", "x": "no model"}
    for text, says in wrong.items():
        with pytest.raises(ConfigError, match=says):
            find_version(VersionChoice.parse(text), connection)


def test_files_that_are_not_on_this_disk_are_fetched_for_as_long_as_they_are_needed(place, monkeypatch, tmp_path):
    place.register("fetched", "f2")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    version = find_version(VersionChoice.parse("fetched"), place.tracker.connection)
    elsewhere = dataclasses.replace(version, source="mlflow-artifacts:/elsewhere")
    with version_files(elsewhere, place.tracker.connection) as at:
        assert at.is_relative_to(tmp_path)
        classifier = read_classifier(at, version)
    expected = probabilities(place.network, EXAMPLE, CARD["mean"], CARD["std"])
    np.testing.assert_allclose(classifier.probabilities(EXAMPLE), expected, atol=1e-6)
    assert list(tmp_path.iterdir()) == []
