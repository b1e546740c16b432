"""SQLite files: their addresses, and how one is opened."""

import importlib.metadata
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

PATIENCE_S = 10.0
"""How long to wait while another program holds the database."""
_PREFIX = "sqlite:///"


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file, whatever characters its path has."""
    text = path.as_posix()
    if _decodes_percent():
        text = re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", text).replace("?", "%3F")
    return _PREFIX + text


def sqlite_path(uri: str) -> Path | None:
    """The file behind an SQLite address, or None for an address of another kind."""
    if not uri.startswith(_PREFIX):
        return None
    text = uri.removeprefix(_PREFIX).partition("?")[0]
    return Path(unquote(text) if _decodes_percent() else text)


@contextmanager
def opened(
    database: Path, *, mode: Literal["rw", "ro"] = "rw", patience_s: float = PATIENCE_S
) -> Iterator[sqlite3.Connection]:
    """A connection outside of any transaction; the database must exist.

    `rw` opens a write-protected file too, and rolls back what a killed process left half written.
    """
    uri = f"file:{quote(os.fsencode(database))}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=patience_s, isolation_level=None)) as connection:
        yield connection


@cache
def _decodes_percent() -> bool:
    """Whether the installed SQLAlchemy decodes %xx in the path of an address (it does since 2.1)."""
    major, minor = importlib.metadata.version("sqlalchemy").split(".")[:2]
    return (int(major), int(re.match(r"\d+", minor)[0])) >= (2, 1)  # type: ignore[index]
