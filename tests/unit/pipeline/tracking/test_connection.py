"""The connection to a store, with a stand-in for MLflow's client."""

import socket
from types import SimpleNamespace

import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import connection, experiment_page, store_errors, store_file
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.connection import StoreConnection
from pipeline.workspace.paths import Workspace


class Client:
    """Has experiments by name; `rival` creates one between a look and a creation."""

    def __init__(self, rival=False, fails=False, **stages):
        self.experiments = {
            name: SimpleNamespace(experiment_id=f"id-{name}", lifecycle_stage=stage, tags={})
            for name, stage in stages.items()
        }
        self.rival, self.fails, self.created = rival, fails, []

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def get_experiment(self, experiment_id):
        return self.experiments[experiment_id.removeprefix("id-")]

    def create_experiment(self, name, artifact_location):
        if self.fails:
            raise RuntimeError("no room")
        self.experiments[name] = SimpleNamespace(experiment_id=f"id-{name}", lifecycle_stage="active", tags={})
        if self.rival:
            raise RuntimeError("exists already")
        self.created.append((name, artifact_location))
        return f"id-{name}"

    def set_experiment_tag(self, experiment_id, key, value):
        self.get_experiment(experiment_id).tags[key] = value


class ConnectionTo(StoreConnection):
    def __init__(self, client, settings, workspace):
        super().__init__(settings, workspace, print)
        self.fake = client

    def client(self, *, to_write=True):
        return self.fake


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def settings(workspace):
    return mlflow_settings.load(workspace, {})


def test_the_experiment_is_created_once_where_there_is_none(workspace, settings):
    client = Client()
    to = ConnectionTo(client, settings, workspace)
    assert not to.has_experiment()
    assert [to.experiment_id(), to.experiment_id()] == ["id-seqpipe"] * 2
    assert client.created == [("seqpipe", settings.artifact_location)]
    assert to.has_experiment()


def test_an_experiment_opens_as_model_training_in_our_view_and_a_kind_that_somebody_chose_stays(workspace, settings):
    client = Client(seqpipe="active")
    ConnectionTo(client, settings, workspace).experiment_id()
    assert client.experiments["seqpipe"].tags == experiment_page.tags()
    client.experiments["seqpipe"].tags |= {experiment_page.KIND_TAG: "chosen", experiment_page.VIEW_TAG: "old"}
    ConnectionTo(client, settings, workspace).experiment_id()
    assert client.experiments["seqpipe"].tags == experiment_page.tags() | {experiment_page.KIND_TAG: "chosen"}


def test_an_experiment_that_another_process_creates_meanwhile_is_used(workspace, settings):
    assert ConnectionTo(Client(rival=True), settings, workspace).experiment_id() == "id-seqpipe"


def test_an_experiment_that_cannot_be_created_is_one_line(workspace, settings):
    with pytest.raises(TrackingError, match="no room"):
        ConnectionTo(Client(fails=True), settings, workspace).experiment_id()


def test_an_experiment_that_was_deleted_is_not_brought_back(workspace, settings):
    with pytest.raises(TrackingError, match="mlflow experiments restore -x id-seqpipe") as caught:
        ConnectionTo(Client(seqpipe="deleted"), settings, workspace).experiment_id()
    assert not caught.value.passes


def test_after_a_reset_the_experiment_is_looked_up_again(workspace, settings):
    to = ConnectionTo(Client(seqpipe="active"), settings, workspace)
    to.experiment_id()
    to.fake = Client(seqpipe="deleted")
    assert to.experiment_id() == "id-seqpipe"
    to.reset()
    with pytest.raises(TrackingError):
        to.experiment_id()


def test_errors_of_ours_pass_and_others_are_explained_with_their_cause(workspace, settings):
    to = StoreConnection(settings, workspace, print)
    ours, other = TrackingError("said"), ValueError("odd\nand more")
    with pytest.raises(TrackingError) as caught, to.explaining():
        raise ours
    assert caught.value is ours
    with pytest.raises(TrackingError, match="odd;") as caught, to.explaining():
        raise other
    assert caught.value.__cause__ is other


@pytest.fixture
def opened(workspace, settings, monkeypatch):
    """A connection that has been used; `states` is what its file is found to be, `tried` whether writing was."""
    to = StoreConnection(settings, workspace, print)
    to._client, to._was_opened = object(), True
    states, tried = ["ready"], []
    monkeypatch.setattr(store_file, "state_of", lambda settings: states[-1])
    monkeypatch.setattr(store_file, "require_writable", tried.append)
    return to, states, tried


def test_writing_is_tried_first_unless_the_store_is_only_read(opened, settings):
    to, _, tried = opened
    to.client(to_write=False)
    assert tried == []
    to.client()
    assert tried == [settings.database]


@pytest.mark.parametrize("state", ["missing", "unfinished"])
def test_a_store_that_is_removed_while_it_is_used_is_not_written_to(opened, state):
    to, states, tried = opened
    states.append(state)
    with pytest.raises(TrackingError, match="was removed while it was used"):
        to.client()
    assert tried == []


def test_a_server_that_accepts_no_connection_is_known_within_the_probe(workspace):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    settings = mlflow_settings.load(workspace, {"MLFLOW_TRACKING_URI": address})
    with pytest.raises(TrackingError, match="cannot be reached") as caught:
        StoreConnection(settings, workspace, print).client()
    assert caught.value.passes


@pytest.mark.parametrize(("bypass", "asked"), [(True, True), (False, False)])
def test_behind_a_proxy_only_the_proxy_can_say_whether_a_server_is_there(workspace, monkeypatch, bypass, asked):
    tried = []
    monkeypatch.setattr(connection, "getproxies", lambda: {"http": "http://proxy"})
    monkeypatch.setattr(connection, "proxy_bypass", lambda host: bypass)
    monkeypatch.setattr(
        connection.socket, "create_connection", lambda where, timeout: tried.append(where) or socket.socket()
    )
    connection.probe(mlflow_settings.load(workspace, {"MLFLOW_TRACKING_URI": "http://server"}))
    assert tried == ([("server", 80)] if asked else [])


def test_what_no_journal_keeps_is_told_to_be_repeated(settings, workspace):
    connected = StoreConnection(settings, workspace, print)
    with (
        pytest.raises(TrackingError, match=r"gone; then repeat the command$") as caught,
        connected.explaining_to_repeat(),
    ):
        raise store_errors.passing("there", "it cannot be reached: gone")
    assert caught.value.passes
    with pytest.raises(TrackingError, match=r"^its files are gone$"), connected.explaining_to_repeat():
        raise TrackingError("its files are gone")
