"""Addresses of MLflow stores: which ones MLflow can use, and what each of them needs."""

import errno
import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.tracking.sqlite_files import sqlite_path, sqlite_uri

HTTP = ("http", "https")
_DATABRICKS = ("databricks", "databricks-uc")
_DATABASES = ("sqlite", "mysql", "postgresql", "mssql")


def absolute_address(uri: str, root: Path) -> str:
    """The address, with a relative path taken from `root`; raises ValueError for what MLflow cannot use."""
    require_clean(uri)
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in (*HTTP, *_DATABRICKS) or uri in _DATABRICKS:
        if scheme in HTTP:
            _require_server(uri)
        return uri.rstrip("/")
    if scheme not in _DATABASES:
        raise ValueError("no address that MLflow can use; write http://host:port or sqlite:///file.db")
    if scheme != "sqlite":
        return uri
    path = sqlite_path(uri)
    if path is None or path.name in ("", ":memory:"):
        raise ValueError("names no file; write sqlite:///file.db")
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError("there is no such home folder; write the full path") from None
    _, question_mark, query = uri.partition("?")
    return sqlite_uri(root / path) + question_mark + query


def without_password(uri: str) -> str:
    """The address without user name and password."""
    return re.sub(r"//[^/]*@", "//", uri)


def require_clean(text: str) -> None:
    """Raise ValueError for a text that is empty, or has blanks around it or characters that do not print."""
    if text != text.strip():
        raise ValueError("it begins or ends with a blank; take that out")
    if not text:
        raise ValueError("it is empty")
    if not text.isprintable():
        raise ValueError("it holds a character that cannot be shown; take that out")


def require_usable(uri: str) -> None:
    """Check what an address needs on this machine, without contacting a server.

    Raises:
        ConfigError: a driver is not installed, or a local store cannot be where it should.
    """
    file = sqlite_path(uri)
    if file is not None and (problem := _why_no_file(file)):
        raise ConfigError(f"the MLflow store {file} cannot be there: {problem}; choose another tracking_uri")
    if urlsplit(uri).scheme.partition("+")[0] in _DATABASES and (file is None or "?" in uri):
        _require_driver(uri)


def _require_server(uri: str) -> None:
    parts = urlsplit(uri)  # ValueError for brackets that do not match
    if " " in uri:
        raise ValueError("there is a blank in it; take that out")
    if not parts.hostname:
        raise ValueError("names no host; write http://host:port")
    if parts.port == 0:  # ValueError for a port that is not a number, or too large
        raise ValueError("port 0 cannot be used")
    if parts.query or parts.fragment:
        raise ValueError(f"leave out what follows {uri[: re.search('[?#]', uri).start()]}")  # type: ignore[union-attr]


def _why_no_file(file: Path) -> str | None:
    """Why a file cannot be made where there is none; tried, since permission bits do not say everything."""
    if file.exists():
        return None if file.is_file() else "it is not a file"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            return None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # passes; whatever needs the space reports it
            return None
        return f"the folder {file.parent} cannot be written ({error.strerror or error})"


def _require_driver(uri: str) -> None:
    from sqlalchemy.engine import make_url

    try:
        url = make_url(uri)
        dialect = url.get_dialect()()
        url.get_dialect().import_dbapi()
        dialect.create_connect_args(url)
    except Exception as error:  # whatever a dialect finds wrong with an address
        missing = isinstance(error, ModuleNotFoundError)
        what = f"needs the Python package {error.name}; install it" if missing else f"is not a valid address: {error}"  # type: ignore[attr-defined]
        raise ConfigError(f"the MLflow address {without_password(uri)!r} {' '.join(what.split())[:200]}") from None
