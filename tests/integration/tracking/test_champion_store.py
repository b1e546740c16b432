"""Both ways to a local registry: what one writes the other reads, and they refuse the same."""

import sqlite3

import pytest
from versions_of_a_model import NAME, champions_of, connected, with_versions

from pipeline.errors import ModelError, TrackingError
from pipeline.tracking import champion_store as stores
from pipeline.tracking.champion_store import KeptVersion, MlflowChampions, SqliteChampions, champion_store
from pipeline.tracking.champions import Reason, make_champion, registry_lock, roll_back

KINDS = ("sqlite", "mlflow")


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    """Three versions; the first is champion, and the second knows the key of its run."""
    found = with_versions(tmp_path_factory.mktemp("registry") / "grüße 100% x", 3)
    found.client().set_model_version_tag(NAME, "2", "run_key", "k2")
    return found


def rows(connection, query):
    with sqlite3.connect(connection.settings.database) as database:
        return sorted(database.execute(query).fetchall())


def test_both_read_the_same(connection):
    first, second = (champions_of(connection, kind) for kind in KINDS)
    assert first.names() == second.names() == [NAME]
    assert first.model(NAME) == second.model(NAME)
    assert first.versions(NAME) == second.versions(NAME)
    assert first.versions(NAME)["2"] == KeptVersion("s3://models/2", "k2")


def test_both_write_the_same_rows(connection):
    def written(kind):
        store = champions_of(connection, kind)
        store.set_champion(NAME, "3")
        store.set_champion(NAME, "2")
        for value in ("größer", "二"):
            store.set_tag(NAME, "a tag/1", value)
        found = [rows(connection, f"SELECT * FROM registered_model_{what}") for what in ("aliases", "tags")]
        store.remove_tag(NAME, "a tag/1")
        assert rows(connection, "SELECT * FROM registered_model_tags") == []
        store.set_champion(NAME, "1")
        return found

    assert written("sqlite") == written("mlflow")


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_was_deleted_is_not_made_champion(tmp_path, kind):
    connection = with_versions(tmp_path, 3)
    store = champions_of(connection, kind)
    with registry_lock(connection.workspace):
        for version in ("2", "3"):
            make_champion(store, NAME, version, Reason("promoted", ""))
        connection.client().delete_model_version(NAME, "2")
        assert sorted(store.versions(NAME)) == ["1", "3"]
        with connection.explaining(), pytest.raises(Exception, match=r"2.*(no longer|not found)"):
            store.set_champion(NAME, "2")
        assert store.model(NAME).champion == "3"
        assert roll_back(store, NAME, "")[-1].version == "1", "past the one that is gone"


def test_a_registered_model_that_was_deleted_takes_no_tag(tmp_path):
    connection = with_versions(tmp_path, 1)
    store = champions_of(connection, "sqlite")
    connection.client().delete_registered_model(NAME)
    with pytest.raises(ModelError, match="no longer in MLflow"):
        store.set_tag(NAME, "a", "b")


def test_sqlite_is_used_where_the_tables_are_known_and_mlflow_elsewhere(tmp_path, monkeypatch):
    connection = with_versions(tmp_path, 1)
    assert isinstance(champion_store(connection, to_write=True), SqliteChampions)
    with sqlite3.connect(connection.settings.database) as database:
        database.execute("ALTER TABLE registered_model_tags ADD COLUMN colour VARCHAR(9)")
    assert isinstance(champion_store(connection, to_write=True), MlflowChampions)
    with sqlite3.connect(connection.settings.database) as database:
        database.execute("ALTER TABLE registered_model_tags DROP COLUMN colour")
    assert isinstance(champion_store(connection, to_write=True), SqliteChampions)
    monkeypatch.setattr(stores, "schema_revisions", lambda: (frozenset({"f00"}), "f00"))
    assert isinstance(champion_store(connection, to_write=False), MlflowChampions)


def test_what_another_program_holds_is_said_in_one_line(tmp_path, monkeypatch):
    connection = with_versions(tmp_path, 2)
    monkeypatch.setattr(stores, "opened", lambda database: opened(database, patience_s=0.1))
    from pipeline.tracking.sqlite_files import opened

    store = champion_store(connected(tmp_path), to_write=True)
    with sqlite3.connect(connection.settings.database) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingError, match="another program is using it"):
            store.set_champion(NAME, "2")
    assert store.model(NAME).champion == "1"
