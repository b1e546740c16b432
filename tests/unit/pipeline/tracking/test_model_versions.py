"""Versions are read from a local registry without MLflow; with MLflow itself: tests/integration/test_predict.py."""

import sqlite3
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, ModelError, TrackingError
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.model_versions import find_version, known_choices, version_files
from pipeline.tracking.sqlite_files import sqlite_uri
from pipeline.tracking.version_choice import StoredVersion, VersionChoice
from pipeline.workspace.paths import Workspace

TABLES = """
CREATE TABLE registered_models (name);
CREATE TABLE model_versions (name, version, run_id, source, storage_location, current_stage);
CREATE TABLE registered_model_aliases (name, alias, version);
INSERT INTO registered_models VALUES ('m');
INSERT INTO model_versions VALUES
    ('m', 10, 'r10', 'models:/m-1', '/files/10', 'None'),
    ('m', 9, NULL, '/files/9', '', NULL),
    ('m', 8, 'r8', '/files/8', NULL, 'Deleted_Internal');
INSERT INTO registered_model_aliases VALUES ('m', 'champion', 10), ('m', 'challenger', 10), ('m', 'gone', 8);
"""


def make(database: Path, script: str = TABLES) -> None:
    connection = sqlite3.connect(database)
    connection.executescript(script)
    connection.close()


@pytest.fixture
def connection(tmp_path):
    make(tmp_path / "mlflow.db")
    workspace = Workspace(tmp_path)
    return StoreConnection(mlflow_settings.load(workspace, {}), workspace, print)


def test_a_version_of_a_local_registry_is_read_without_mlflow(connection):
    before = "mlflow" in sys.modules
    found = find_version(VersionChoice.parse("m@champion"), connection)
    assert found == StoredVersion("m", "10", ("challenger", "champion"), "r10", "/files/10")
    assert find_version(VersionChoice.parse("/9"), connection) == StoredVersion("m", "9", (), None, "/files/9")
    assert ("mlflow" in sys.modules) == before


def test_a_deleted_version_is_not_there_even_if_an_alias_is_left(connection):
    with pytest.raises(ConfigError, match="m has no version 8; versions: 9, 10"):
        find_version(VersionChoice.parse("m/8"), connection)
    with pytest.raises(ConfigError, match="m has no gone"):
        find_version(VersionChoice.parse("m@gone"), connection)


def test_without_a_store_nothing_is_registered(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(ModelError, match="no model is registered here yet"):
        find_version(VersionChoice(), StoreConnection(mlflow_settings.load(workspace, {}), workspace, print))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_registry_says_so(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"damaged" * 100)
    workspace = Workspace(tmp_path)
    settings = mlflow_settings.load(workspace, {})
    with pytest.raises(TrackingError, match="is damaged"):
        find_version(VersionChoice(), StoreConnection(settings, workspace, print))
    assert known_choices(settings) == []


def test_models_in_a_registry_of_their_own_are_found_there(tmp_path):
    make(tmp_path / "models.db")
    workspace = Workspace(tmp_path)
    settings = mlflow_settings.load(workspace, {"MLFLOW_REGISTRY_URI": sqlite_uri(tmp_path / "models.db")})
    assert find_version(VersionChoice(), StoreConnection(settings, workspace, print)).number == "10"
    assert known_choices(settings) == ["m@challenger", "m@champion", "m@gone"]


def test_a_shell_is_offered_nothing_of_a_server(tmp_path):
    settings = mlflow_settings.load(Workspace(tmp_path), {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert known_choices(settings) == []


def test_files_on_this_disk_are_used_where_they_are(connection, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "MLmodel").touch()
    for source in ((tmp_path / "files").as_uri(), str(tmp_path / "files")):
        with version_files(StoredVersion("m", "1", (), None, source), connection) as folder:
            assert folder == tmp_path / "files"


def test_files_that_are_gone_are_told(connection, tmp_path):
    with (
        pytest.raises(ModelError, match=r"the files of m, version 1 are gone from .*; `seqpipe run register`"),
        version_files(StoredVersion("m", "1", (), None, str(tmp_path / "gone")), connection),
    ):
        pass
