"""The SQLite file of a local MLflow store: what state it is in, and whether it can be written.

It is opened in the ordinary way, to read and write, so that SQLite rolls back what a killed process left half
written: a look that may only read cannot do that. MLflow's schema is known from the files of the installed MLflow,
which is not imported.
"""

import importlib.util
import os
import re
import shutil
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pipeline.errors import TrackingError
from pipeline.tracking import store_faults
from pipeline.tracking.settings import ResolvedMlflow

State = Literal["missing", "unfinished", "made"]
LOCK_PATIENCE_S = 10.0
SETTLED_S = 15.0
"""A store that nobody wrote to for so long is not being made any more."""


def look(settings: ResolvedMlflow) -> State:
    """What is in the file of a store; what a kill left half written is rolled back.

    `unfinished` is a store whose making was broken off before anything was told to it.

    Raises:
        TrackingError: it cannot be used; the message says what to do.
    """
    database = settings.database
    assert database is not None
    if not _is_there(settings, database):
        return "missing"
    with _opened(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return "missing"
        if not tables & {"experiments", "alembic_version"}:
            raise store_faults.of_another_program(database)
        revision = _revision(connection, tables)
        known, newest = schema_revisions()
        if not known or revision == newest:
            return "made"
        if revision is not None and revision not in known:
            raise store_faults.newer(database, revision)
        if not any(_rows(connection, tables, name) for name in ("runs", "registered_models", "logged_models")):
            return _given_up(database)
    if revision is None:
        raise store_faults.unfinished(database)
    raise store_faults.older(settings, _mlflow_command())


def fault_of(settings: ResolvedMlflow) -> TrackingError | None:
    """What keeps a local store from being used now; None if nothing does, or the store is another machine's."""
    if settings.database is None or settings.is_gone:
        return None
    try:
        if look(settings) == "made":
            require_writable(settings.database, patience_s=0.5)
    except TrackingError as error:
        return error
    return None


def require_writable(database: Path, patience_s: float = LOCK_PATIENCE_S) -> None:
    """Write to the file without changing it.

    Raises:
        TrackingError: it cannot be written; the message says what to do.
    """
    with _opened(database, patience_s) as connection:
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("ROLLBACK")


def put_aside(database: Path) -> None:
    """Keep what is left of an earlier store under other names, so that a new one can be made in its place.

    A journal that outlived its database would be rolled back into the new one, and damage it.
    """
    for path in (database, *(database.with_name(database.name + end) for end in store_faults.COMPANIONS)):
        if path.is_file() and path.stat().st_size:
            path.replace(path.with_name(f"{path.name}.old"))
    for torn in database.parent.glob(f".{database.name}.*.tmp*"):  # what a killed command was making
        torn.unlink(missing_ok=True)


def copy_to(database: Path, folder: Path) -> Path:
    """A copy of a database that cannot be written, with what a kill left in it rolled back in the copy.

    Raises:
        TrackingError: it cannot be read.
    """
    copy = folder / database.name
    try:
        with (
            closing(sqlite3.connect(_address(database, "ro"), uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.OperationalError:  # a journal to roll back first, which only a writer can
        copy.unlink(missing_ok=True)
        for end in ("", "-journal", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(database.with_name(database.name + end), copy.with_name(copy.name + end))
    return copy


@cache
def schema_revisions() -> tuple[frozenset[str], str | None]:
    """The revisions of the schema that the installed MLflow knows, and the newest; empty if they are not found."""
    found = importlib.util.find_spec("mlflow")
    folders = found.submodule_search_locations if found else None
    known: set[str] = set()
    replaced: set[str] = set()
    for path in (file for folder in folders or () for file in Path(folder).glob("store/db_migrations/versions/*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        known |= set(re.findall(r"^revision\b[^=]*=\s*[\"'](\w+)", text, re.MULTILINE))
        for line in re.findall(r"^down_revision\b[^=]*=(.*)$", text, re.MULTILINE):
            replaced |= set(re.findall(r"[\"'](\w+)[\"']", line))
    newest = known - replaced
    return (frozenset(known), newest.pop()) if len(newest) == 1 else (frozenset(), None)


def _is_there(settings: ResolvedMlflow, database: Path) -> bool:
    try:
        status = database.stat()
    except FileNotFoundError:
        if database.is_symlink():
            raise store_faults.lasting(
                str(database), f"a link to {database.readlink()}, which is not there",
                "bring that back (is its disk connected?), or remove the link",
            ) from None  # fmt: skip
        return False
    except OSError as error:
        raise store_faults.explained(error, settings) from None
    if not stat.S_ISREG(status.st_mode):
        raise store_faults.lasting(
            str(database), "a folder, or something else that is not a file, is in its place",
            f"move it away ({store_faults.move_away(database, 'old')})",
        )  # fmt: skip
    return status.st_size > 0


@contextmanager
def _opened(database: Path, patience_s: float = LOCK_PATIENCE_S) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(_address(database, "rw"), uri=True, timeout=patience_s)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise store_faults.of_sqlite(error, database) from None


def _address(database: Path, mode: str) -> str:
    return f"file:{quote(os.fsencode(database))}?mode={mode}"


def _revision(connection: sqlite3.Connection, tables: set[str]) -> str | None:
    if "alembic_version" not in tables:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def _rows(connection: sqlite3.Connection, tables: set[str], name: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) if name in tables else 0


def _given_up(database: Path) -> State:
    """An unfinished store, unless somebody is making it at this moment."""
    if time.time() - database.stat().st_mtime < SETTLED_S:
        raise store_faults.passing(str(database), "its tables are being made by another program")
    return "unfinished"


def _mlflow_command() -> str:
    beside = Path(sys.executable).with_name("mlflow")
    return str(beside) if beside.exists() else "mlflow"
