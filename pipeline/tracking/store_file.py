"""The SQLite file of a local store: its state, and whether it can be written.

The file is opened for reading and writing, so that SQLite rolls back what a killed process left half written; a
read-only connection cannot do that.
"""

import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from pipeline.errors import TrackingError
from pipeline.tracking import sqlite_files, store_errors
from pipeline.tracking.mlflow_schema import mlflow_command, schema_revisions
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.tracking.sqlite_files import PATIENCE_S
from pipeline.tracking.store_faults import explain, sqlite_fault

State = Literal["missing", "unfinished", "ready"]
SETTLED_S = 15.0
"""An unfinished store that nobody has written to for so long is no longer being created."""


def state_of(settings: ResolvedMlflow) -> State:
    """The state of a local store; rolls back what a killed process left half written.

    `unfinished`: its creation was interrupted before it held anything.

    Raises:
        TrackingError: it cannot be used; the message says what to do.
    """
    database = settings.database
    assert database is not None
    if not _has_content(settings, database):
        return "missing"
    with _opened(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return "missing"
        if not tables & {"experiments", "alembic_version"}:
            raise store_errors.of_another_program(database)
        revision = _revision(connection, tables)
        known, newest = schema_revisions()
        if not known or revision == newest:
            return "ready"
        if revision is not None and revision not in known:
            raise store_errors.newer(database, revision)
        if not any(_has_rows(connection, tables, name) for name in ("runs", "registered_models", "logged_models")):
            return _require_abandoned(database)
    if revision is None:
        raise store_errors.unfinished(database)
    raise store_errors.older(settings, mlflow_command())


def fault_of(settings: ResolvedMlflow) -> TrackingError | None:
    """Why a local store cannot be used now; None if it can, does not exist yet, or is not local."""
    if settings.database is None or settings.is_gone:
        return None
    try:
        if state_of(settings) == "ready":
            require_writable(settings.database, patience_s=0.5)
    except TrackingError as error:
        return error
    return None


def require_writable(database: Path, patience_s: float = PATIENCE_S) -> None:
    """Try to write to the file, without changing it.

    Raises:
        TrackingError: it cannot be written; the message says what to do.
    """
    with _opened(database, patience_s) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("ROLLBACK")


def copy_to(database: Path, folder: Path) -> Path:
    """Copy a database that cannot be written; what a kill left half written is rolled back in the copy.

    Raises:
        TrackingError: it cannot be read.
    """
    copy = folder / database.name
    try:
        with sqlite_files.opened(database, mode="ro") as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.OperationalError:  # there is a journal to roll back first, which takes a writer
        copy.unlink(missing_ok=True)
        for end in ("", "-journal", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(database.with_name(database.name + end), copy.with_name(copy.name + end))
    return copy


def _has_content(settings: ResolvedMlflow, database: Path) -> bool:
    try:
        status = database.stat()
    except FileNotFoundError:
        if database.is_symlink():
            raise store_errors.lasting(
                str(database), f"a link to {database.readlink()}, which is not there",
                "bring that back (is its disk connected?), or remove the link",
            ) from None  # fmt: skip
        return False
    except OSError as error:
        raise explain(error, settings) from None
    if not stat.S_ISREG(status.st_mode):
        raise store_errors.lasting(
            str(database), "a folder, or something else that is not a file, is in its place",
            f"move it away ({store_errors.move_away(database, 'old')})",
        )  # fmt: skip
    return status.st_size > 0


@contextmanager
def _opened(database: Path, patience_s: float = PATIENCE_S) -> Iterator[sqlite3.Connection]:
    try:
        with sqlite_files.opened(database, patience_s=patience_s) as connection:
            yield connection
    except sqlite3.Error as error:
        raise sqlite_fault(error, database) from None


def _revision(connection: sqlite3.Connection, tables: set[str]) -> str | None:
    if "alembic_version" not in tables:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def _has_rows(connection: sqlite3.Connection, tables: set[str], name: str) -> bool:
    return name in tables and connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() is not None


def _require_abandoned(database: Path) -> State:
    """`unfinished`, unless another program is creating the store at this moment."""
    if time.time() - database.stat().st_mtime < SETTLED_S:
        raise store_errors.passing(str(database), "its tables are being made by another program")
    return "unfinished"
