"""Finds a version of a registered model in the registry, and its files on this disk or elsewhere.

A local registry is read with SQLite alone, in a millisecond: who only classifies images need not import MLflow, which
takes two seconds and much memory.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ModelError
from pipeline.tracking import store_faults
from pipeline.tracking.connection import StoreConnection
from pipeline.tracking.moved_store import local_path
from pipeline.tracking.registered_versions import all_pages
from pipeline.tracking.registration_check import missing_files
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.tracking.sqlite_files import opened, sqlite_path
from pipeline.tracking.version_choice import StoredVersion, VersionChoice, choose

if TYPE_CHECKING:
    from mlflow import MlflowClient


def find_version(choice: VersionChoice, connection: StoreConnection) -> StoredVersion:
    """The version in the registry that was chosen.

    Raises:
        ConfigError: there is no such model or version, or there are several models and none was named.
        ModelError: nothing is registered.
        TrackingError: the registry cannot be reached or used.
    """
    database = _database(connection.settings)
    if database is None:
        with connection.explaining():
            client = connection.client(to_write=False)
            names = [model.name for model in all_pages(client.search_registered_models)]
            return choose(choice, names, lambda name: _client_versions(client, name))
    if _is_gone(database):
        return choose(choice, [], lambda name: {})
    try:
        with opened(database) as registry:
            names = [name for (name,) in registry.execute("SELECT name FROM registered_models")]
            return choose(choice, names, lambda name: _sqlite_versions(registry, name))
    except sqlite3.Error as error:
        raise store_faults.sqlite_fault(error, database) from error


def require_files(version: StoredVersion) -> None:
    """Raise `ModelError` if the version's files are on this disk and gone."""
    if (gone := missing_files(version.source)) is not None:
        raise ModelError(f"the files of {version} are gone from {gone}; `seqpipe run register` registers it again")


@contextmanager
def version_files(version: StoredVersion, connection: StoreConnection) -> Iterator[Path]:
    """The folder with the files of a version; where they are not on this disk, a copy that is removed afterwards.

    Raises:
        ModelError: they are gone.
        TrackingError: they cannot be fetched.
    """
    require_files(version)
    if (folder := local_path(version.source)) is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="seqpipe-model-") as scratch:
        with connection.explaining():
            client = connection.client(to_write=False)
            from mlflow.artifacts import download_artifacts

            # not `models:/NAME/NUMBER`, of which MLflow asks the registry of its own variables
            address = client.get_model_version_download_uri(version.name, version.number)
            fetched = download_artifacts(
                artifact_uri=address, dst_path=scratch, tracking_uri=connection.settings.tracking_uri
            )
        yield Path(fetched)


def known_choices(settings: ResolvedMlflow) -> list[str]:
    """The versions of a local registry that have an alias, as a user writes them; none if it cannot be read."""
    database = _database(settings)
    if database is None:
        return []
    try:
        with opened(database, mode="ro", patience_s=0.2) as registry:
            found = registry.execute("SELECT name, alias FROM registered_model_aliases ORDER BY name, alias")
            return [f"{name}@{alias}" for name, alias in found]
    except sqlite3.Error:
        return []


def _database(settings: ResolvedMlflow) -> Path | None:
    """The SQLite file of the registry; None if it is kept otherwise."""
    return sqlite_path(settings.registry_uri) if settings.registry_uri else settings.database


def _is_gone(database: Path) -> bool:
    """Whether there is no such file, as far as this user can see."""
    try:
        return not database.exists()
    except OSError:  # opening it reports what is wrong
        return False


def _sqlite_versions(registry: sqlite3.Connection, name: str) -> dict[str, StoredVersion]:
    rows = registry.execute(
        "SELECT version, run_id, coalesce(nullif(storage_location, ''), source) FROM model_versions "
        "WHERE name = ? AND coalesce(current_stage, '') <> 'Deleted_Internal' ORDER BY version",
        (name,),
    ).fetchall()
    aliases = registry.execute(
        "SELECT alias, version FROM registered_model_aliases WHERE name = ? ORDER BY alias", (name,)
    ).fetchall()
    return {
        str(number): StoredVersion(
            name, str(number), tuple(alias for alias, of in aliases if of == number), run_id or None, source or ""
        )
        for number, run_id, source in rows
    }


def _client_versions(client: "MlflowClient", name: str) -> dict[str, StoredVersion]:
    aliases = client.get_registered_model(name).aliases  # of one model: searches may leave them out
    found = all_pages(client.search_model_versions, f"name = '{name}'")
    return {
        str(one.version): StoredVersion(
            name,
            str(one.version),
            tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(one.version))),
            one.run_id or None,
            one.source,
        )
        for one in sorted(found, key=lambda one: int(one.version))
    }
