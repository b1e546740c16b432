"""Whether a local MLflow store still has what was registered in it.

Runs, versions and aliases can be deleted in MLflow's UI. The SQLite file is read directly, so that a command with
nothing to do need not import MLflow. A store that cannot be read now is assumed to have everything; whatever uses it
reports what is wrong.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pipeline.tracking.moved_store import local_path
from pipeline.tracking.registry_names import CHALLENGER, CHAMPION
from pipeline.tracking.sqlite_files import opened

ALIASES = (CHAMPION, CHALLENGER)


def missing_run(database: Path, run_id: str) -> str | None:
    """What is wrong with a run, in words; None if it is in the store."""
    try:
        with opened(database) as store:
            found = store.execute("SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
    except sqlite3.Error:
        return None
    return None if found == ("active",) else "its run was deleted in MLflow"


def missing_version(database: Path, name: str, version: str, aliases: Sequence[str] = ALIASES) -> str | None:
    """What is wrong with a version of a registered model, in words; None if it is complete.

    Some version has to hold each of the aliases.
    """
    try:
        with opened(database) as registry:
            found = registry.execute(
                "SELECT coalesce(storage_location, source) FROM model_versions "
                "WHERE name = ? AND version = ? AND coalesce(current_stage, '') <> 'Deleted_Internal'",
                (name, version),
            ).fetchone()
            taken = registry.execute("SELECT alias FROM registered_model_aliases WHERE name = ?", (name,)).fetchall()
    except sqlite3.Error:
        return None
    if found is None:
        return f"version {version} is no longer in MLflow"
    if (files := missing_files(found[0])) is not None:
        return f"the files of version {version} are gone from {files}"
    free = [alias for alias in aliases if (alias,) not in taken]
    return f"no version is the {' or the '.join(free)}" if free else None


def missing_files(source: str | None) -> Path | None:
    """The local folder that a model's files are missing from; None if they are there, or are not local."""
    folder = local_path(source)
    return folder if folder is not None and not (folder / "MLmodel").is_file() else None
