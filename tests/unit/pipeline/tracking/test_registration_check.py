"""What of a registration is missing, over tables as MLflow has them."""

import sqlite3
from contextlib import closing

import pytest

from pipeline.tracking.registration_check import missing_files, missing_run, missing_version


@pytest.fixture
def store(tmp_path):
    """A run, and a version with its files and both aliases; gives the database and a way to change it."""
    database, files = tmp_path / "mlflow.db", tmp_path / "model"
    files.mkdir()
    (files / "MLmodel").touch()

    def change(*statements):
        with closing(sqlite3.connect(database)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    change(
        "CREATE TABLE runs (run_uuid, lifecycle_stage)",
        "CREATE TABLE model_versions (name, version INTEGER, source, storage_location, current_stage)",
        "CREATE TABLE registered_model_aliases (name, alias)",
        "INSERT INTO runs VALUES ('r1', 'active')",
        f"INSERT INTO model_versions VALUES ('m', 1, '{files}', NULL, 'None')",
        "INSERT INTO registered_model_aliases VALUES ('m', 'champion'), ('m', 'challenger')",
    )
    return database, change, files


def test_a_complete_registration_lacks_nothing(store):
    assert missing_run(store[0], "r1") is None
    assert missing_version(store[0], "m", "1") is None


@pytest.mark.parametrize("change", ["DELETE FROM runs", "UPDATE runs SET lifecycle_stage = 'deleted'"])
def test_a_deleted_run_is_noticed(store, change):
    store[1](change)
    assert missing_run(store[0], "r1") == "its run was deleted in MLflow"


@pytest.mark.parametrize(
    "change", ["DELETE FROM model_versions", "UPDATE model_versions SET current_stage = 'Deleted_Internal'"]
)
def test_a_deleted_version_is_noticed(store, change):
    store[1](change)
    assert missing_version(store[0], "m", "1") == "version 1 is no longer in MLflow"


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("alias = 'champion'", "no version is the champion"),
        ("alias = 'challenger'", "no version is the challenger"),
        ("TRUE", "no version is the champion or the challenger"),
    ],
)
def test_an_alias_that_no_version_has_is_noticed(store, gone, words):
    store[1](f"DELETE FROM registered_model_aliases WHERE {gone}")
    assert missing_version(store[0], "m", "1") == words


def test_files_that_are_gone_are_noticed_where_they_really_are(store, tmp_path):
    (store[2] / "MLmodel").unlink()
    assert missing_version(store[0], "m", "1") == f"the files of version 1 are gone from {store[2]}"
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "MLmodel").touch()
    store[1](f"UPDATE model_versions SET storage_location = '{tmp_path / 'moved'}'")
    assert missing_version(store[0], "m", "1") is None


def test_files_elsewhere_are_not_looked_for():
    assert missing_files("s3://bucket/model") is None
    assert missing_files(None) is None


def test_a_store_that_cannot_be_read_is_assumed_to_have_everything(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"damaged" * 100)
    for database in (tmp_path / "mlflow.db", tmp_path / "not there"):
        assert missing_run(database, "r1") is None
        assert missing_version(database, "m", "1") is None
