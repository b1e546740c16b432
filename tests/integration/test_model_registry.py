import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from safetensors.torch import save_file

from pipeline import mlflow_settings, model_registry
from pipeline.errors import TrackingError
from pipeline.journal import Journal
from pipeline.model_registry import Candidate, register
from pipeline.tracking import RunIdentity, Tracker
from pipeline.workspace import Workspace
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
