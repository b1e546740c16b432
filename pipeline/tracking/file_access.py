"""Which files of a local store this user may not use, and who owns them."""

import os
import pwd
from pathlib import Path

COMPANIONS = ("-journal", "-wal", "-shm")
"""The endings of the files that SQLite keeps beside a database."""


def why_unusable(database: Path) -> str | None:
    """Which file of a database this user cannot use, and who owns it; None if all can be used."""
    if is_mounted_read_only(database):
        return f"{database.parent} is on a file system that is mounted read-only"
    wanted = [(database.parent, os.W_OK | os.X_OK), (database, os.R_OK | os.W_OK)]
    wanted += [(database.with_name(database.name + end), os.R_OK | os.W_OK) for end in COMPANIONS]
    for path, use in wanted:
        if path.exists() and not is_allowed(path, use):
            verb = "written" if is_allowed(path, os.R_OK) else "read"
            return f"{path} belongs to {_owner(path)} and cannot be {verb} by {_name_of(os.geteuid())}"
    return None


def is_allowed(path: Path, use: int) -> bool:
    """Whether this process may use a file in these ways (`os.R_OK`, `os.W_OK`)."""
    return os.access(path, use, effective_ids=os.access in os.supports_effective_ids)


def is_mounted_read_only(database: Path) -> bool:
    """Whether the database is on a file system that is mounted read-only."""
    try:
        return bool(os.statvfs(database.parent).f_flag & os.ST_RDONLY)
    except OSError:  # opening it reports why
        return False


def _owner(path: Path) -> str:
    return _name_of(path.stat().st_uid)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's users may have no names
        return f"user {uid}"
