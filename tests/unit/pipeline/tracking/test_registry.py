"""Which version a model becomes and which aliases it gets, with a stand-in for MLflow's client."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from accuracy_gate import by_accuracy
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST
from offline_store import offline_tracker

from pipeline.errors import TrackingError
from pipeline.tracking import registry
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.champion_store import MlflowChampions
from pipeline.tracking.champions import history
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.logged_model import Candidate
from pipeline.tracking.registry_names import ACCURACY_TAG, NOT_COMPARED_TAG, REGISTER_KEY_TAG, RUN_KEY_TAG
from pipeline.workspace.paths import Workspace

PAGE = 2


class Versions(list):
    token = None


class Client:
    """A registry in memory."""

    def __init__(self):
        self.models, self.versions, self.aliases, self.linked, self.fails_with = {}, [], {}, {}, None
        self.model_tags, self.tracking_uri = {}, "http://server"

    def search_model_versions(self, query="", page_token=None):
        if query and "tags" in query:
            name, key = query.split("'")[1::2]
            assert query == f"name = '{name}' and tags.`{REGISTER_KEY_TAG}` = '{key}'"
            return [one for one in self.versions if (one.name, one.tags[REGISTER_KEY_TAG]) == (name, key)]
        start = int(page_token or 0)
        every = [one for one in self.versions if not query or query == f"name = '{one.name}'"]
        page = Versions(every[start : start + PAGE])
        page.token = str(start + PAGE) if start + PAGE < len(every) else None
        return page

    def search_registered_models(self, query):
        return [name for name in self.models if query == f"name = '{name}'"]

    def get_registered_model(self, name):
        aliases = {alias: int(version) for (owner, alias), version in self.aliases.items() if owner == name}
        return SimpleNamespace(name=name, tags=self.model_tags, aliases=aliases)

    def delete_registered_model_tag(self, name, key):
        del self.model_tags[key]

    def set_registered_model_tag(self, name, key, value):
        self.model_tags[key] = value

    def create_registered_model(self, name, description):
        assert name not in self.models, "MLflow refuses to make it again"
        self.models[name] = description

    def create_model_version(self, name, source, run_id, *, tags, description, model_id):
        number = sum(one.name == name for one in self.versions) + 1
        made = SimpleNamespace(
            name=name, version=number, source=source, run_id=run_id, tags=dict(tags), description=description
        )
        self.versions.append(made)
        return made

    def set_logged_model_tags(self, model_id, tags):
        self.linked[model_id] = tags["mlflow.modelVersions"]

    def get_model_version_by_alias(self, name, alias):
        if self.fails_with is not None:
            raise MlflowException("?", self.fails_with)
        if (name, alias) not in self.aliases:
            raise MlflowException("none", RESOURCE_DOES_NOT_EXIST)
        return self._version(name, self.aliases[name, alias])

    def set_registered_model_alias(self, name, alias, version):
        self.aliases[name, alias] = version

    def get_model_version(self, name, version):
        found = self._version(name, version)
        found.aliases = [alias for (owner, alias), one in self.aliases.items() if (owner, one) == (name, version)]
        return found

    def set_model_version_tag(self, name, version, key, value):
        self._version(name, version).tags[key] = value

    def delete_model_version_tag(self, name, version, key):
        del self._version(name, version).tags[key]

    def update_model_version(self, name, version, description):
        self._version(name, version).description = description

    def _version(self, name, version):
        [found] = [one for one in self.versions if (one.name, str(one.version)) == (name, version)]
        return found


class Registry:
    def __init__(self, root, monkeypatch):
        self.client, self.logged = Client(), []
        workspace = Workspace(root)
        settings = mlflow_settings.load(workspace, {"MLFLOW_TRACKING_URI": "http://server"})
        self.tracker = offline_tracker(settings, workspace)
        self.tracker.connection.client = lambda *, to_write=True: self.client
        self.root = root
        monkeypatch.setattr(registry, "log_model", self.log_model)

    def log_model(self, client, run_id, candidate, scratch):
        folder = self.root / f"model-{candidate.key}"
        folder.mkdir(exist_ok=True)
        (folder / "MLmodel").touch()
        self.logged.append((run_id, candidate.key))
        return f"m-{candidate.key}", str(folder)

    def register(self, key, accuracy=0.8, test_hash="t0", name="task", gate=by_accuracy):
        candidate = Candidate(
            key, self.root / "weights", self.root / "predictions", {"classes": ["cat", "dog"]}, accuracy, test_hash,
            metrics={}, tags={RUN_KEY_TAG: key}, example=np.zeros((1, 32, 32, 3), np.uint8), description="a model",
        )  # fmt: skip
        return registry.register(self.tracker, "r0", name, candidate, gate)


@pytest.fixture
def registered(tmp_path, monkeypatch):
    return Registry(tmp_path, monkeypatch)


def test_the_first_version_holds_both_aliases_and_is_linked_from_its_logged_model(registered):
    made = registered.register("k1")
    assert (made.name, made.version, made.aliases, made.not_compared) == ("task", "1", ("challenger", "champion"), "")
    assert registered.client.models == {"task": "Tells apart: cat, dog."}
    [version] = registered.client.versions
    assert (version.run_id, version.tags[ACCURACY_TAG]) == ("r0", "0.8")
    assert registered.client.linked == {"m-k1": '[{"name": "task", "version": "1"}]'}


def test_a_better_version_takes_the_champion_and_a_worse_one_the_challenger_alone(registered):
    registered.register("k1", 0.8)
    assert registered.register("k2", 0.9).aliases == ("challenger", "champion")
    assert registered.register("k3", 0.85).aliases == ("challenger",)
    assert registered.client.aliases == {("task", "champion"): "2", ("task", "challenger"): "3"}


def test_every_champion_is_in_the_history_with_what_it_was_compared_by(registered):
    registered.register("k1", 0.8)
    registered.register("k2", 0.7)
    registered.register("k3", 0.9)
    first, second = history(MlflowChampions(registered.client), "task")
    assert (first.version, first.kind, first.why, first.run) == ("1", "registered", "there was no champion", "k1")
    assert (second.version, second.why) == ("3", "the gate let it through against version 1")
    assert (second.run, second.comparison, second.is_done) == ("k3", "in one line", True)


def test_registering_again_makes_nothing_new(registered):
    first = registered.register("k1")
    assert registered.register("k1") == first
    assert len(registered.client.versions) == len(registered.logged) == 1


def test_where_the_files_are_gone_the_model_is_logged_again_for_the_same_version(registered):
    registered.register("k1")
    (registered.root / "model-k1" / "MLmodel").unlink()
    registered.register("k1")
    assert (len(registered.client.versions), len(registered.logged)) == (1, 2)


def test_a_model_that_had_to_be_logged_elsewhere_is_a_new_version(registered):
    registered.register("k1")
    registered.client.versions[0].source = str(registered.root / "lost")
    assert registered.register("k1").version == "2"


def test_why_a_version_was_not_compared_is_written_at_it_until_it_is_compared(registered):
    registered.register("k1", test_hash="t0")
    other = registered.register("k2", 0.9, test_hash="t1")
    reason = "the champion, version 1, was judged on other test images"
    assert (other.aliases, other.not_compared) == (("challenger",), reason)
    version = registered.client.versions[1]
    assert (version.tags[NOT_COMPARED_TAG], version.description) == (
        reason, f"a model\n\n---\n\nnot compared: {reason}",
    )  # fmt: skip
    registered.client.versions[0].tags["test_hash"] = "t1"
    assert registered.register("k2", 0.9, test_hash="t1").not_compared == ""
    assert (version.tags.get(NOT_COMPARED_TAG), version.description) == (None, "a model\n\n---\n\nbetter: True")


def test_a_version_is_judged_again_if_another_laptop_changes_the_champion_meanwhile(registered):
    for key in ("k1", "k2"):
        registered.register(key, 0.8)
    asked = []

    def gate(standing, reason):
        asked.append(standing.champion.number)
        if len(asked) == 1:
            registered.client.set_registered_model_alias("task", "champion", "2")
        return by_accuracy(standing, reason)

    registered.client.versions[1].tags[ACCURACY_TAG] = "0.95"
    assert registered.register("k3", 0.9, gate=gate).aliases == ("challenger",)
    assert asked == [1, 2]


def test_a_champion_that_changes_all_the_time_is_said_in_one_line(registered):
    for key in ("k1", "k2"):
        registered.register(key, 0.8)

    def gate(standing, reason):
        other = "2" if standing.champion.number == 1 else "1"
        registered.client.set_registered_model_alias("task", "champion", other)
        return by_accuracy(standing, reason)

    with pytest.raises(TrackingError, match="changed again and again"):
        registered.register("k3", 0.9, gate=gate)


def test_what_the_gate_says_is_written_before_any_alias_is_set(registered, monkeypatch):
    """So a decision counts even if the process dies then."""
    registered.register("k1")

    def die(*_):
        raise OSError("died")

    monkeypatch.setattr(registered.client, "set_registered_model_alias", die)
    with pytest.raises(TrackingError, match="died"):
        registered.register("k2", 0.9)
    assert registered.client.versions[1].tags["gate"] == "True"
    assert registered.client.model_tags["decisions"] == "1"
    assert [change.version for change in history(MlflowChampions(registered.client), "task")] == ["1"]
    assert registered.client.aliases["task", "champion"] == "1"


def test_a_version_is_judged_again_and_a_dry_run_changes_nothing(registered):
    registered.register("k1", 0.8)
    registered.register("k2", 0.7)
    better = registered.client.versions[1]
    better.tags[ACCURACY_TAG] = "0.9"
    before = (dict(better.tags), better.description, dict(registered.client.aliases))
    made = registry.judge(registered.tracker, "task", "2", by_accuracy, dry_run=True)
    assert (made.aliases, dict(better.tags), better.description, registered.client.aliases) == (
        ("challenger",), *before,
    )  # fmt: skip
    made = registry.judge(registered.tracker, "task", "2", by_accuracy, dry_run=False)
    assert made.aliases == ("challenger", "champion")
    assert better.description == "a model\n\n---\n\nbetter: True", "the earlier ruling is replaced"


def test_a_dry_run_of_the_gate_writes_nothing_into_the_workspace(registered):
    registered.register("k1", 0.8)
    registered.register("k2", 0.7)
    hidden = registered.tracker.workspace.hidden
    shutil.rmtree(hidden)
    registry.judge(registered.tracker, "task", "2", by_accuracy, dry_run=True)
    assert not hidden.exists()


def test_a_failure_says_what_could_not_be_done_and_is_no_missing_alias(registered):
    registered.client.fails_with = INTERNAL_ERROR
    with pytest.raises(
        TrackingError, match=r"the model could not be registered as 'task': .*; then repeat the command"
    ) as caught:
        registered.register("k1")
    assert "`seqpipe runs deliver` delivers it" not in str(caught.value), "no journal keeps a registration"
    assert registered.client.aliases == {}


def test_an_error_of_ours_passes_as_it_is(registered, monkeypatch):
    def fail(*_, **__):
        raise TrackingError("the disk is full")

    monkeypatch.setattr(registry, "log_model", fail)
    with pytest.raises(TrackingError, match=r"^the disk is full$"):
        registered.register("k1")


def test_the_run_keys_of_every_page_are_collected_and_a_store_that_is_gone_has_none(registered, tmp_path):
    for number in range(5):
        registered.register(f"k{number}")
    del registered.client.versions[0].tags[RUN_KEY_TAG]  # made by hand
    assert registry.registered_run_keys(registered.tracker.connection) == {"k1", "k2", "k3", "k4"}
    gone = mlflow_settings.load(Workspace(tmp_path / "none"), {})
    assert registry.registered_run_keys(StoreConnection(gone, Workspace(tmp_path / "none"), print)) == frozenset()
