"""Updates artifact addresses in the local store of a workspace that was moved or copied.

MLflow stores them as absolute paths: after a move they lead nowhere, and in a copy they lead into the original. The
first command that uses the store rewrites them, in one transaction. Uses SQLite alone: it takes a millisecond, where
importing MLflow takes two seconds.
"""

import shlex
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import TrackingError
from pipeline.tracking import delivery_state
from pipeline.tracking.settings import ARTIFACTS, ResolvedMlflow
from pipeline.tracking.sqlite_files import PATIENCE_S, opened, sqlite_path
from pipeline.workspace.durable_files import replacing
from pipeline.workspace.paths import Workspace

_INHERITED = (("experiments", "artifact_location"), ("model_versions", "source"))
"""The columns that later addresses are derived from; an address of another place shows here first."""
_ADDRESSES = (
    *_INHERITED,
    ("model_versions", "storage_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("trace_tags", "value"),
)


def update_addresses(settings: ResolvedMlflow, workspace: Workspace, report: Callable[[str], None]) -> None:
    """Rewrite the addresses that lead to an earlier place of the workspace; `report` gets a line if there were any.

    Addresses of artifacts that a user keeps elsewhere stay. A copy of the database as it was is kept beside it, until
    the next move.

    Raises:
        TrackingError: they cannot be rewritten; nothing was changed.
    """
    if settings.database is None:
        return
    here = settings.database.parent
    for database in filter(None, (settings.database, sqlite_path(settings.registry_uri or ""))):
        places = _earlier_places(database, settings.database, workspace)
        count = _rewrite(database, places, here) if places else 0
        if count:
            report(
                f"the workspace was moved or copied from {' and '.join(map(str, places))}: {count} addresses in "
                f"{database.name} now lead here (as it was before: {_kept(database).name})"
            )
        if database == settings.database:
            for before in places:
                _readdress(settings.database, before, settings.address, workspace)
                if count and (left := _only_there(database, before, here)):
                    (here / ARTIFACTS).mkdir(exist_ok=True)
                    report(
                        f"{left} runs or models have files in {before / ARTIFACTS} that are not here; get them with "
                        f"`{shlex.join(['cp', '-Rn', f'{before / ARTIFACTS}/.', f'{here / ARTIFACTS}/'])}`"
                    )


def local_path(address: str | None) -> Path | None:
    """The path behind an address on this machine's disks; None for an address of another kind."""
    parts = urlsplit(address or "")
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(address) if address and address.startswith("/") else None


def _earlier_places(database: Path, runs_database: Path, workspace: Workspace) -> list[Path]:
    """The folders that the store was in before and that addresses still lead to."""
    here = runs_database.parent
    try:
        with opened(database) as connection:
            leading_elsewhere = [
                path
                for table, column in _INHERITED
                for (address,) in connection.execute(f"SELECT DISTINCT {column} FROM {table}")
                if (path := local_path(address)) is not None and not path.is_relative_to(here / ARTIFACTS)
            ]
            if not leading_elsewhere:
                return []
            delivered_to = filter(None, map(sqlite_path, delivery_state.addresses(workspace)))
            known = {path.parent for path in delivered_to if path.name == runs_database.name}
            if (created_in := _created_in(connection)) is not None and _may_be_this_store(
                created_in / database.name, connection
            ):
                known.add(created_in)
    except sqlite3.Error:  # whatever uses the store reports what is wrong with it
        return []
    return sorted(
        place
        for place in known
        if any(path.is_relative_to(place) for path in leading_elsewhere) and not _is_same(place, here)
    )


def _created_in(connection: sqlite3.Connection) -> Path | None:
    """The folder that the database was created in, by the address of its first experiment."""
    found = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    path = local_path(found[0]) if found else None
    return path.parent.parent if path is not None and path.parent.name == ARTIFACTS else None


def _may_be_this_store(database: Path, connection: sqlite3.Connection) -> bool:
    """Whether a database there was moved away, or is the original that this one is a copy of."""
    if not database.exists():
        return not (database.parent / ARTIFACTS).exists()
    created = "SELECT creation_time FROM experiments WHERE experiment_id = 0"
    try:
        with opened(database) as other:
            return bool(other.execute(created).fetchone() == connection.execute(created).fetchone())
    except sqlite3.Error:
        return False


def _rewrite(database: Path, places: Sequence[Path], here: Path) -> int:
    """Rewrite all addresses below `places` in one transaction, the database kept first; how many there were."""
    try:
        with opened(database, patience_s=PATIENCE_S) as connection:
            connection.create_function("moved", 1, lambda address: _moved(address, places, here))
            connection.execute("BEGIN IMMEDIATE")  # from here on no other program writes
            columns = [(table, column) for table, column in _ADDRESSES if _has(connection, table, column)]
            leading = [f"SELECT 1 FROM {table} WHERE moved({column}) <> {column}" for table, column in columns]
            if not connection.execute(" UNION ALL ".join(leading)).fetchone():  # another command was quicker
                return 0
            _keep(database)
            count = sum(
                connection.execute(
                    f"UPDATE {table} SET {column} = moved({column}) WHERE moved({column}) <> {column}"
                ).rowcount
                for table, column in columns
            )
            connection.execute("COMMIT")
            return count
    except (sqlite3.Error, OSError) as error:
        advice = "end the program that holds it" if "locked" in str(error) else "make it and its folder writable"
        raise TrackingError(
            f"the workspace was moved or copied from {places[0]}, and addresses in {database} still lead there; they "
            f"cannot be rewritten ({error}), and nothing was changed: {advice}, and repeat the command"
        ) from error


def _moved(address: str | None, places: Sequence[Path], here: Path) -> str | None:
    """The address after the move; unchanged where it leads elsewhere, or to files that stayed behind."""
    path = local_path(address)
    if path is None:
        return address
    for before in places:
        if not path.is_relative_to(before) or (here.is_relative_to(before) and path.is_relative_to(here)):
            continue
        inside = path.relative_to(before)
        new = here / inside
        if inside.parts[:1] == (ARTIFACTS,) or new.exists() or not path.exists():
            return new.as_uri() if str(address).startswith("file:") else str(new)
    return address


def _readdress(database: Path, before: Path, address: str, workspace: Workspace) -> None:
    """Move the delivery state of the store's earlier address to its present one."""
    with opened(database) as connection:
        runs = {run_id for (run_id,) in connection.execute("SELECT run_uuid FROM runs")}
    for old in delivery_state.addresses(workspace):
        if sqlite_path(old) == before / database.name:
            delivery_state.readdress_store(workspace, old, address, runs)


def _only_there(database: Path, before: Path, here: Path) -> int:
    """How many runs and models have their files in the earlier place and not here."""
    with opened(database) as connection:
        paths = [
            path
            for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location"))
            for (address,) in connection.execute(f"SELECT {column} FROM {table}")
            if (path := local_path(address)) is not None and path.is_relative_to(here) and not path.exists()
        ]
    return sum((before / path.relative_to(here)).exists() for path in paths)


def _kept(database: Path) -> Path:
    """The copy of the database as it was before the last move."""
    return database.with_name(f"{database.name}.before-move")


def _keep(database: Path) -> None:
    """Copy the database through SQLite, whole or not at all, with its permissions."""
    with replacing(_kept(database)) as beside:
        with opened(database) as source, closing(sqlite3.connect(beside)) as target:
            source.backup(target)
        shutil.copymode(database, beside)


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names lead to the same folder."""
    try:
        return one.samefile(other)
    except OSError:
        return False
