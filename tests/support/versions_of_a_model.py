"""A workspace whose registry has versions of a model, without files."""

from pathlib import Path

from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.champion_store import ChampionStore, MlflowChampions, SqliteChampions
from pipeline.tracking.connection import StoreConnection
from pipeline.workspace.paths import Workspace

NAME = "task"


def connected(root: Path, environ: dict[str, str] | None = None) -> StoreConnection:
    workspace = Workspace(root)
    return StoreConnection(mlflow_settings.load(workspace, environ or {}), workspace, lambda text: None)


def with_versions(root: Path, count: int, name: str = NAME, environ: dict[str, str] | None = None) -> StoreConnection:
    """A workspace with this many versions, of which the first is champion."""
    Workspace(root).create()
    connection = connected(root, environ)
    client = connection.client()
    client.create_registered_model(name)
    for number in range(1, count + 1):
        client.create_model_version(name, f"s3://models/{number}", tags={"model": "small"})
    client.set_registered_model_alias(name, "champion", "1")
    return connection


def champions_of(connection: StoreConnection, kind: str) -> ChampionStore:
    """The local registry of a workspace, through `mlflow` or with `sqlite` alone."""
    database = connection.settings.database
    assert database is not None
    return SqliteChampions(database) if kind == "sqlite" else MlflowChampions(connection.client())
