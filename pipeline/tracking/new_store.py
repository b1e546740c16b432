"""Creates a local MLflow store, whole or not at all.

Processes that open a half-made store would break it.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.tracking import delivery_state
from pipeline.tracking.file_access import COMPANIONS
from pipeline.tracking.mlflow_variables import quiet
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.tracking.sqlite_files import sqlite_uri
from pipeline.tracking.store_file import state_of
from pipeline.workspace.durable_files import replacing, writing
from pipeline.workspace.locks import exclusive
from pipeline.workspace.paths import Workspace

logger = logging.getLogger(__name__)


def create_store(settings: ResolvedMlflow, workspace: Workspace, report: Callable[[str], None] = logger.info) -> None:
    """Create a local store where there is none.

    One whose creation was interrupted before it held anything is moved aside, which `report` gets a line about.

    Raises:
        TrackingError: what is there is not an MLflow store, or is damaged.
        WorkspaceError: the place cannot be written.
    """
    database = settings.database
    if database is None or state_of(settings) == "ready":
        return
    with exclusive(workspace.lock("mlflow-store"), logger.info, what="the making of the MLflow store"):
        if (state := state_of(settings)) == "ready":
            return
        quiet(os.environ)
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with writing(database):
            database.parent.mkdir(parents=True, exist_ok=True)
            move_aside(database)
            with replacing(database) as beside:
                SqlAlchemyStore(sqlite_uri(beside), settings.artifact_location).engine.dispose()
        delivery_state.forget_store(workspace, settings.address)
        if state == "unfinished":
            report(f"the MLflow store {database} was never finished and held nothing; it is made anew")


def move_aside(database: Path) -> None:
    """Keep what is left of an earlier store under other names.

    A journal that outlived its database would be rolled back into the new one, and damage it.
    """
    for path in (database, *(database.with_name(database.name + end) for end in COMPANIONS)):
        if path.is_file() and path.stat().st_size:
            path.replace(path.with_name(f"{path.name}.old"))
    for torn in database.parent.glob(f".{database.name}.*.tmp*"):  # what a killed command was creating
        torn.unlink(missing_ok=True)
