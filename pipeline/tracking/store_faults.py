"""What the failure of an MLflow store means: it passes by itself, or the user has to do something.

`explained` decides, and everybody asks it. It looks at the exceptions that led to the failure, by what they are, and
needs no MLflow for that. Either way nothing is lost, since everything stands in the journals; what differs is what
a user is told.
"""

import errno
import os
import pwd
import re
import shlex
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SeqpipeError, TrackingError
from pipeline.tracking.settings import ResolvedMlflow

COMPANIONS = ("-journal", "-wal", "-shm")
"""What SQLite keeps beside a database."""
_LATER = "nothing is lost: it is delivered from the journals when the store answers again"
_KEPT = "what was measured is kept, and `seqpipe runs deliver` delivers it then"
_ADDRESS = "check tracking_uri in mlflow.yaml (or MLFLOW_TRACKING_URI)"
_OTHER_STORE = "or name another store as tracking_uri in mlflow.yaml"
_MORE = "`seqpipe --debug runs deliver` shows more"
_SPACE = "free some space (`seqpipe gc` says what can go)"
_REASON_CHARACTERS = 300

_PASSING_CODES = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
_NO_LOGIN = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_NO_MLFLOW = {"ENDPOINT_NOT_FOUND", "NOT_FOUND", "NOT_IMPLEMENTED"}
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}
_BROKEN_OFF = {"ConnectionError", "ReadTimeout", "Timeout", "ChunkedEncodingError", "RetryError", "ProtocolError"}
_NO_ADDRESS = {"InvalidURL", "InvalidUrlException", "MissingSchema", "InvalidSchema", "LocationParseError"}
_CLOSED_DOORS = ("password", "authentication", "access denied", "does not exist", "unknown database")


def passing(where: str, what: str) -> TrackingError:
    """A failure that passes by itself."""
    return TrackingError(f"MLflow store {where}: {what}; {_LATER}", passes=True)


def lasting(where: str, what: str, advice: str) -> TrackingError:
    """A failure that stays until the user has done something."""
    return TrackingError(f"MLflow store {where}: {what}; {advice}; {_KEPT}")


def damaged(database: Path) -> TrackingError:
    """The file is no longer a database that can be read."""
    return TrackingError(
        f"the MLflow store {database} is damaged; move it away ({move_away(database, 'damaged')}), and the next "
        "command makes a new one and delivers everything again from the journals"
    )


def move_away(database: Path, ending: str) -> str:
    """The command that moves a database out of the way."""
    return shlex.join(["mv", str(database), f"{database}.{ending}"])


def explained(error: BaseException, settings: ResolvedMlflow) -> SeqpipeError:
    """What a failure of a store means, and what to do about it, in one line."""
    if isinstance(error, SeqpipeError):
        return error
    where = str(settings.database or settings.address)
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, sqlite3.Error) and settings.database:
            return of_sqlite(one, settings.database)
    for one in reversed(chain):  # what began it says most
        if (found := _of_network(one, settings, where) or _of_files(one, where)) is not None:
            return found
    for one in chain:
        if (found := _of_mlflow(one, where)) is not None:
            return found
    return lasting(where, first_line(error), _MORE)


def of_sqlite(error: sqlite3.Error, database: Path) -> TrackingError:
    """What a failure of the SQLite file means."""
    where, text = str(database), str(error)
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")) or "malformed" in text:
        return damaged(database)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_NOMEM")) or "is locked" in text:
        return passing(where, f"{text} (another program is using it)")
    if name.startswith("SQLITE_FULL"):
        return lasting(where, "its disk is full", _SPACE)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_IOERR")):
        what = forbidden(database) or f"{text} ({name})"
        make = "mount that to be written" if _is_mounted_read_only(database) else "make that writable (chown, chmod)"
        return lasting(where, what, f"{make}, {_OTHER_STORE}")
    if name == "SQLITE_ERROR":  # a table or a column that is missing, or there before its time
        return lasting(where, f"its tables are not what MLflow expects ({text})", _start_again(database))
    return lasting(where, f"{text} ({name or type(error).__name__})", _MORE)


def unfinished(database: Path) -> TrackingError:
    """Runs are in it, and its tables were never finished."""
    return lasting(str(database), "the making of its tables was broken off", _start_again(database))


def newer(database: Path, revision: str) -> TrackingError:
    """A schema that the installed MLflow does not know."""
    return lasting(
        str(database),
        f"a newer MLflow than the one installed here made it (schema {revision})",
        f"install that MLflow (`pip install --upgrade mlflow`), or start another store "
        f"({move_away(database, 'newer')}), which is told everything again",
    )


def older(settings: ResolvedMlflow, mlflow_command: str) -> TrackingError:
    """A schema that `mlflow db upgrade` brings up to date."""
    where = str(settings.database or settings.address)
    upgrade = shlex.join([mlflow_command, "db", "upgrade", settings.tracking_uri if settings.database else where])
    keep = f"{shlex.join(['cp', where, f'{where}.older'])} && " if settings.database else "back it up, then "
    return lasting(where, "an older MLflow made it", f"keep a copy and bring it up to date: `{keep}{upgrade}`")


def of_another_program(database: Path) -> TrackingError:
    """A database without any of MLflow's tables."""
    return lasting(
        str(database), "it is the database of another program", "name another file as tracking_uri in mlflow.yaml"
    )


def forbidden(database: Path) -> str | None:
    """Which file this user may not use, whose it is; None if there is none."""
    if _is_mounted_read_only(database):
        return f"{database.parent} is on a file system that is mounted read-only"
    wanted = [(database.parent, os.W_OK | os.X_OK), (database, os.R_OK | os.W_OK)]
    wanted += [(database.with_name(database.name + end), os.R_OK | os.W_OK) for end in COMPANIONS]
    for path, use in wanted:
        if path.exists() and not may(path, use):
            verb = "written" if may(path, os.R_OK) else "read"
            return f"{path} belongs to {_owner(path)} and cannot be {verb} by {_name_of(os.geteuid())}"
    return None


def may(path: Path, use: int) -> bool:
    """Whether this process may use a file so (`os.R_OK`, `os.W_OK`)."""
    return os.access(path, use, effective_ids=os.access in os.supports_effective_ids)


def _is_mounted_read_only(database: Path) -> bool:
    try:
        return bool(os.statvfs(database.parent).f_flag & os.ST_RDONLY)
    except OSError:  # a closer look says why
        return False


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, without a password."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return re.sub(r"//[^/@\s]+@", "//", line)[:_REASON_CHARACTERS]


def _start_again(database: Path) -> str:
    return f"move it away ({move_away(database, 'old')}), and a new one is made and told everything again"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, and those that led to it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _of_network(error: BaseException, settings: ResolvedMlflow, where: str) -> TrackingError | None:
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
    if name in _NO_ADDRESS:
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
    if name in _BROKEN_OFF:
        return passing(where, "its server broke the connection off, or answered too late")
    return None


def _of_files(error: BaseException, where: str) -> TrackingError | None:
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


def _of_mlflow(error: BaseException, where: str) -> TrackingError | None:
    code, text = getattr(error, "error_code", None), str(error)
    if type(error).__name__ == "OperationalError":  # of a database server
        if any(word in text.lower() for word in _CLOSED_DOORS):
            return lasting(where, first_line(error), _ADDRESS)
        return passing(where, first_line(error))
    if code is None:
        return None
    if "out-of-date database schema" in text:
        return lasting(
            where, "another release of MLflow made it",
            "back it up and run `mlflow db upgrade` on it, or install that release",
        )  # fmt: skip
    if code in _NO_LOGIN:
        return lasting(
            where, "it wants to know who you are (status 401)",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )  # fmt: skip
    if code == "PERMISSION_DENIED":
        return lasting(
            where, f"it does not let you do this (status 403: {first_line(error)})",
            "ask who runs it for the right, or log in as somebody else (MLFLOW_TRACKING_USERNAME)",
        )  # fmt: skip
    if code in _NO_MLFLOW or "not in a valid JSON format" in text:
        return lasting(where, "what answers there is not an MLflow server", _ADDRESS)
    if code in _REFUSED:
        return lasting(where, f"it refuses this: {first_line(error)}", "change what it names")
    if code in _PASSING_CODES or type(error).__name__ == "RestException":  # the server's own trouble
        return passing(where, first_line(error))
    return None


def _owner(path: Path) -> str:
    return _name_of(path.stat().st_uid)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's users may have no names
        return f"user {uid}"
