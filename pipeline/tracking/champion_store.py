"""Where the registry keeps who is champion: an alias and tags of the registered model, and the versions there are.

A local registry is read and written with SQLite alone: a rollback should be done at once, and importing MLflow takes
seconds. That is so only where its tables have the columns that we know; any other registry is asked through MLflow.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import ModelError
from pipeline.tracking import store_faults, store_file
from pipeline.tracking.mlflow_schema import schema_revisions
from pipeline.tracking.registered_versions import all_pages
from pipeline.tracking.registry_names import CHAMPION, RUN_KEY_TAG
from pipeline.tracking.sqlite_files import opened, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pipeline.tracking.connection import StoreConnection

_COLUMNS = {
    "registered_model_aliases": {"alias", "version", "name", "workspace"},
    "registered_model_tags": {"key", "value", "name", "workspace"},
    "model_version_tags": {"key", "value", "name", "version", "workspace"},
}
"""The tables that are written, and the one of versions' tags, with all of their columns."""
_KEPT = "coalesce(current_stage, '') <> 'Deleted_Internal'"


@dataclass(frozen=True)
class KeptModel:
    """A registered model: its champion, None if there is none, and its tags."""

    champion: str | None
    tags: Mapping[str, str]


@dataclass(frozen=True)
class KeptVersion:
    """A version: the address of its files, and the key of its run, or where that is not known its id in MLflow."""

    source: str
    run: str


class ChampionStore(Protocol):
    """What the history of champions needs of a registry. Each call that writes is done or not done."""

    def names(self) -> list[str]:
        """The registered models, in order."""

    def model(self, name: str) -> KeptModel:
        """A registered model as it is now."""

    def versions(self, name: str) -> dict[str, KeptVersion]:
        """The versions that are there, by number."""

    def set_champion(self, name: str, version: str) -> None:
        """Point the alias to a version."""

    def set_tag(self, name: str, key: str, value: str) -> None:
        """Write a tag of the registered model."""

    def remove_tag(self, name: str, key: str) -> None:
        """Remove a tag of the registered model."""


def champion_store(connection: "StoreConnection", *, to_write: bool) -> ChampionStore:
    """The store of the registry of a connection, with SQLite alone if that can be.

    Raises:
        ModelError: nothing is registered.
        TrackingError: the registry cannot be reached or used.
    """
    settings = connection.settings
    database = sqlite_path(settings.registry_uri) if settings.registry_uri else settings.database
    if database is not None and _is_there(database) and _is_known(database):
        if to_write:
            store_file.require_writable(database)
        return SqliteChampions(database)
    return MlflowChampions(connection.client(to_write=to_write))


class MlflowChampions:
    """The registry through MLflow's client."""

    def __init__(self, client: "MlflowClient") -> None:
        self._client = client

    def names(self) -> list[str]:
        """The registered models, in order."""
        return sorted(model.name for model in all_pages(self._client.search_registered_models))

    def model(self, name: str) -> KeptModel:
        """A registered model as it is now."""
        found = self._client.get_registered_model(name)
        champion = found.aliases.get(CHAMPION)
        return KeptModel(None if champion is None else str(champion), dict(found.tags))

    def versions(self, name: str) -> dict[str, KeptVersion]:
        """The versions that are there, by number."""
        found = all_pages(self._client.search_model_versions, f"name = '{name}'")
        return {
            str(one.version): KeptVersion(one.source or "", one.tags.get(RUN_KEY_TAG) or one.run_id or "")
            for one in found
        }

    def set_champion(self, name: str, version: str) -> None:
        """Point the alias to a version."""
        self._client.set_registered_model_alias(name, CHAMPION, version)

    def set_tag(self, name: str, key: str, value: str) -> None:
        """Write a tag of the registered model."""
        self._client.set_registered_model_tag(name, key, value)

    def remove_tag(self, name: str, key: str) -> None:
        """Remove a tag of the registered model."""
        self._client.delete_registered_model_tag(name, key)


class SqliteChampions:
    """A local registry with SQLite alone; each call is a transaction of its own, as MLflow's are."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def names(self) -> list[str]:
        """The registered models, in order."""
        with self._transaction() as registry:
            return [name for (name,) in registry.execute("SELECT name FROM registered_models ORDER BY name")]

    def model(self, name: str) -> KeptModel:
        """A registered model as it is now."""
        with self._transaction() as registry:
            champion = registry.execute(
                "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", (name, CHAMPION)
            ).fetchone()
            tags = registry.execute("SELECT key, value FROM registered_model_tags WHERE name = ?", (name,)).fetchall()
        return KeptModel(str(champion[0]) if champion else None, {key: value or "" for key, value in tags})

    def versions(self, name: str) -> dict[str, KeptVersion]:
        """The versions that are there, by number."""
        with self._transaction() as registry:
            rows = registry.execute(
                "SELECT version, coalesce(nullif(storage_location, ''), source), coalesce((SELECT value "
                "FROM model_version_tags AS tags WHERE tags.name = model_versions.name "
                f"AND tags.version = model_versions.version AND key = ?), run_id) FROM model_versions "
                f"WHERE name = ? AND {_KEPT} ORDER BY version",
                (RUN_KEY_TAG, name),
            ).fetchall()
        return {str(number): KeptVersion(source or "", run or "") for number, source, run in rows}

    def set_champion(self, name: str, version: str) -> None:
        """Point the alias to a version."""
        with self._transaction("IMMEDIATE") as registry:
            made = registry.execute(
                "INSERT INTO registered_model_aliases (workspace, name, alias, version) "
                f"SELECT workspace, name, ?, version FROM model_versions WHERE name = ? AND version = ? AND {_KEPT} "
                "ON CONFLICT (workspace, name, alias) DO UPDATE SET version = excluded.version",
                (CHAMPION, name, int(version)),
            )
            if made.rowcount != 1:
                raise ModelError(f"version {version} of {name} is no longer in MLflow: it was deleted meanwhile")

    def set_tag(self, name: str, key: str, value: str) -> None:
        """Write a tag of the registered model."""
        with self._transaction("IMMEDIATE") as registry:
            made = registry.execute(
                "INSERT INTO registered_model_tags (workspace, name, key, value) "
                "SELECT workspace, name, ?, ? FROM registered_models WHERE name = ? "
                "ON CONFLICT (workspace, key, name) DO UPDATE SET value = excluded.value",
                (key, value, name),
            )
            if made.rowcount != 1:
                raise ModelError(f"the registered model {name} is no longer in MLflow: it was deleted meanwhile")

    def remove_tag(self, name: str, key: str) -> None:
        """Remove a tag of the registered model."""
        with self._transaction("IMMEDIATE") as registry:
            registry.execute("DELETE FROM registered_model_tags WHERE name = ? AND key = ?", (name, key))

    @contextmanager
    def _transaction(self, kind: str = "") -> Iterator[sqlite3.Connection]:
        try:
            with opened(self._database) as registry:
                registry.execute("PRAGMA foreign_keys = ON")
                registry.execute(f"BEGIN {kind}")
                yield registry
                registry.execute("COMMIT")  # whatever is raised before it closes the connection, which rolls back
        except sqlite3.Error as error:
            raise store_faults.sqlite_fault(error, self._database) from error


def _is_there(database: Path) -> bool:
    """Whether there is such a file, as far as this user can see."""
    try:
        return database.is_file()
    except OSError:  # MLflow's client reports what is wrong
        return False


def _is_known(database: Path) -> bool:
    """Whether the installed MLflow made it, with the tables that we know, and one model of a name."""
    with suppress(sqlite3.Error), opened(database) as registry:  # MLflow's client reports what is wrong
        (revision,) = registry.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
        (models, names) = registry.execute("SELECT count(*), count(DISTINCT name) FROM registered_models").fetchone()
        columns = {table: {row[1] for row in registry.execute(f"PRAGMA table_info({table})")} for table in _COLUMNS}
        return revision == schema_revisions()[1] and models == names and columns == _COLUMNS
    return False
