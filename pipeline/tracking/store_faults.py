"""What a failure of an MLflow store means: it passes, or the user has to act.

`explain` is the one function that decides. It looks at the types of the exceptions that led to the failure, without
importing MLflow. Nothing is lost either way, since the journals hold everything; only the message differs.
"""

import errno
import re
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking.file_access import is_mounted_read_only, why_unusable
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.tracking.sqlite_files import sqlite_path
from pipeline.tracking.store_errors import damaged, lasting, passing, start_again

_ADDRESS = "check tracking_uri in mlflow.yaml (or MLFLOW_TRACKING_URI)"
_OTHER_STORE = "or name another store as tracking_uri in mlflow.yaml"
_MORE = "`seqpipe --debug runs deliver` shows more"
_SPACE = "free some space (`seqpipe gc` says what can go)"
_REASON_CHARACTERS = 300

_PASSING_CODES = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
_LOGIN_NEEDED = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_NOT_MLFLOW = {"ENDPOINT_NOT_FOUND", "NOT_FOUND", "NOT_IMPLEMENTED"}
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}
_DISCONNECTED = {"ConnectionError", "ReadTimeout", "Timeout", "ChunkedEncodingError", "RetryError", "ProtocolError"}
_BAD_ADDRESS = {"InvalidURL", "InvalidUrlException", "MissingSchema", "InvalidSchema", "LocationParseError"}
_DATABASE_REFUSALS = ("password", "authentication", "access denied", "does not exist", "unknown database")


def explain(error: BaseException, settings: ResolvedMlflow) -> SeqpipeError:
    """The error that says in one line what a failure of a store means and what to do."""
    if isinstance(error, SeqpipeError):
        return error
    where = str(settings.database or settings.address)
    chain = list(_causes(error))
    if (database := _file_at_fault(settings)) is not None:
        for one in chain:
            if isinstance(one, sqlite3.Error):
                return sqlite_fault(one, database)
    for one in reversed(chain):  # the first cause says most
        if (found := _network_fault(one, settings, where) or _file_fault(one, where)) is not None:
            return found
    for one in chain:
        if (found := _mlflow_fault(one, where)) is not None:
            return found
    return lasting(where, first_line(error), _MORE)


def _file_at_fault(settings: ResolvedMlflow) -> Path | None:
    """The SQLite file that an error of SQLite is about: of runs and registry the one that cannot be used."""
    registry = sqlite_path(settings.registry_uri) if settings.registry_uri else None
    files = [file for file in (registry, settings.database) if file is not None]
    return next((file for file in files if why_unusable(file)), files[-1] if files else None)


def sqlite_fault(error: sqlite3.Error, database: Path) -> TrackingError:
    """The error for a failure of the SQLite file."""
    where, text = str(database), str(error)
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")) or "malformed" in text:
        return damaged(database)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_NOMEM")) or "is locked" in text:
        return passing(where, f"{text} (another program is using it)")
    if name.startswith("SQLITE_FULL"):
        return lasting(where, "its disk is full", _SPACE)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_IOERR")):
        what = why_unusable(database) or f"{text} ({name})"
        make = "mount that to be written" if is_mounted_read_only(database) else "make that writable (chown, chmod)"
        return lasting(where, what, f"{make}, {_OTHER_STORE}")
    if name == "SQLITE_ERROR":  # a table or a column is missing, or is there already
        return lasting(where, f"its tables are not what MLflow expects ({text})", start_again(database))
    return lasting(where, f"{text} ({name or type(error).__name__})", _MORE)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, without a password."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return re.sub(r"//[^/@\s]+@", "//", line)[:_REASON_CHARACTERS]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and its causes, the last one first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _network_fault(error: BaseException, settings: ResolvedMlflow, where: str) -> TrackingError | None:
    name = type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return lasting(
            where, f"its certificate is not trusted ({error.verify_message})",
            "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its authority",
        )  # fmt: skip
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return lasting(where, "it does not speak https", f"write http:// if that is so; {_ADDRESS}")
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        return lasting(
            where, f"it cannot be reached: no machine of that name is known ({error.strerror})",
            f"{_ADDRESS}, or the network",
        )  # fmt: skip
    if name == "ProxyError":
        return lasting(where, "the proxy does not lead to it", "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    if name in _BAD_ADDRESS:
        return lasting(where, "no address that can be used", _ADDRESS)
    if isinstance(error, ModuleNotFoundError):
        return lasting(where, f"it needs the Python package {error.name}", f"`pip install {error.name}`")
    if name == "ResponseError" and (status := re.search(r"too many (\d{3}) error", str(error))):
        return passing(where, f"its server answers with status {status[1]}")
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)) or (
        isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
    ):
        reason = error.strerror or first_line(error)
        start = f" (start its server if it is not running, or {_ADDRESS})" if settings.is_http else ""
        return passing(where, f"it cannot be reached: {reason}{start}")
    if name in _DISCONNECTED:
        return passing(where, "its server broke the connection off, or answered too late")
    return None


def _file_fault(error: BaseException, where: str) -> TrackingError | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    what = str(error.strerror)
    if error.filename and str(error.filename) != where:
        what = f"{error.filename}: {what}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return lasting(where, f"no space is left ({what})", _SPACE)
    if error.errno in (errno.EINTR, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE):
        return passing(where, what)
    return lasting(where, what, f"make that place usable, {_OTHER_STORE}")


def _mlflow_fault(error: BaseException, where: str) -> TrackingError | None:
    code, text = getattr(error, "error_code", None), str(error)
    if type(error).__name__ == "OperationalError":  # of a database server
        if any(word in text.lower() for word in _DATABASE_REFUSALS):
            return lasting(where, first_line(error), _ADDRESS)
        return passing(where, first_line(error))
    if code is None:
        return None
    if "out-of-date database schema" in text:
        return lasting(
            where, "another release of MLflow made it",
            "back it up and run `mlflow db upgrade` on it, or install that release",
        )  # fmt: skip
    if code in _LOGIN_NEEDED:
        return lasting(
            where, "it needs a login (status 401)",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )  # fmt: skip
    if code == "PERMISSION_DENIED":
        return lasting(
            where, f"it does not let you do this (status 403: {first_line(error)})",
            "ask who runs it for the right, or log in as somebody else (MLFLOW_TRACKING_USERNAME)",
        )  # fmt: skip
    if code in _NOT_MLFLOW or "not in a valid JSON format" in text:
        return lasting(where, "what answers there is not an MLflow server", _ADDRESS)
    if code in _REFUSED:
        return lasting(where, f"it refuses this: {first_line(error)}", "change what it names")
    if code in _PASSING_CODES or type(error).__name__ == "RestException":  # a failure inside the server
        return passing(where, first_line(error))
    return None
