"""Each failure either passes by itself, or says what the user has to do."""

import errno
import os
import socket
import sqlite3
import ssl
from dataclasses import replace

import pytest

from pipeline.errors import WorkspaceError
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking import store_faults
from pipeline.workspace.paths import Workspace


class MlflowException(Exception):  # noqa: N818 (its name there)
    """MLflow's: a text and the name of a code."""

    def __init__(self, text, error_code="INTERNAL_ERROR"):
        super().__init__(text)
        self.error_code = error_code


class RestException(MlflowException):
    pass


class ProxyError(OSError):
    pass


class ResponseError(Exception):
    pass


class OperationalError(Exception):
    """SQLAlchemy's."""


@pytest.fixture
def local(tmp_path):
    return mlflow_settings.load(Workspace(tmp_path), {})


@pytest.fixture
def server(tmp_path):
    return mlflow_settings.load(Workspace(tmp_path), {"MLFLOW_TRACKING_URI": "http://user:secret@host:5000"})


def from_(error, cause):
    error.__cause__ = cause
    return error


def sqlite_error(name, text, kind=sqlite3.OperationalError):
    error = kind(text)
    error.sqlite_errorname = name
    return from_(MlflowException(f"(sqlite3) {text}\n[SQL: ...]", "TEMPORARILY_UNAVAILABLE"), error)


def http(status, code):
    return MlflowException(f"API request failed with error code {status} != 200. Response body: '<html>'", code)


PASSES = [
    ConnectionRefusedError(111, "Connection refused"),
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError("timed out"),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    OSError(errno.ENETUNREACH, "Network is unreachable"),
    OSError(errno.EHOSTUNREACH, "No route to host"),
    ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    from_(MlflowException("API request failed"), ResponseError("too many 500 error responses")),
    from_(MlflowException("API request failed"), ResponseError("too many 503 error responses")),
    from_(MlflowException("API request failed"), ResponseError("too many 429 error responses")),
    RestException(
        "TEMPORARILY_UNAVAILABLE: (sqlite3.OperationalError) database is locked", "TEMPORARILY_UNAVAILABLE"
    ),
    RestException("INTERNAL_ERROR: trouble of the server's own"),
    OperationalError("could not connect to server: Connection refused"),
]
LASTS = [
    (http(401, "UNAUTHENTICATED"), "MLFLOW_TRACKING_USERNAME"),
    (RestException("PERMISSION_DENIED: no", "PERMISSION_DENIED"), "ask who runs it"),
    (http(404, "ENDPOINT_NOT_FOUND"), "not an MLflow server; check tracking_uri"),
    (MlflowException("the response body was not in a valid JSON format. Response body: '<html>'"), "not an MLflow"),
    (
        RestException("INVALID_PARAMETER_VALUE: Invalid experiment name", "INVALID_PARAMETER_VALUE"),
        "Invalid experiment",
    ),
    (ssl.SSLCertVerificationError(1, "self-signed certificate"), "MLFLOW_TRACKING_SERVER_CERT_PATH"),
    (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "write http://"),
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no machine of that name"),
    (ProxyError("Tunnel connection failed: 407"), "NO_PROXY"),
    (ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2"), "pip install psycopg2"),
    (
        PermissionError(errno.EACCES, "Permission denied", "/there/mlartifacts"),
        "/there/mlartifacts: Permission denied",
    ),
    (OSError(errno.EROFS, "Read-only file system", "/there/x"), "/there/x: Read-only file system"),
    (OSError(errno.ENOSPC, "No space left on device", "/there/x"), "free some space"),
    (OperationalError('password authentication failed for user "x"'), "password authentication failed"),
    (RuntimeError("nothing known"), "`seqpipe --debug runs deliver` shows more"),
]


@pytest.mark.parametrize("error", PASSES, ids=lambda error: f"{type(error).__name__} {str(error)[:30]}")
def test_what_passes_by_itself_is_delivered_later(error, server):
    if isinstance(error, ssl.SSLError):
        error.reason = "UNEXPECTED_EOF_WHILE_READING"
    fault = store_faults.explain(error, server)
    assert fault.passes
    assert "nothing is lost: it is delivered from the journals when the store answers again" in str(fault)


@pytest.mark.parametrize(("error", "words"), LASTS, ids=lambda one: str(one)[:40])
def test_what_needs_the_user_says_what_to_do_and_that_nothing_is_lost(error, words, server):
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed certificate"
    elif isinstance(error, ssl.SSLError):
        error.reason = "WRONG_VERSION_NUMBER"
    fault = store_faults.explain(from_(MlflowException("API request failed\nsecond line"), error), server)
    assert not fault.passes
    assert words in str(fault)
    assert "answers again" not in str(fault)
    assert "what was measured is kept, and `seqpipe runs deliver` delivers it then" in str(fault)
    assert "\n" not in str(fault)
    assert "secret" not in str(fault)


@pytest.mark.parametrize(
    ("name", "text", "passes", "words"),
    [
        ("SQLITE_BUSY", "database is locked", True, "another program"),
        ("SQLITE_LOCKED", "database table is locked", True, "another program"),
        ("SQLITE_FULL", "database or disk is full", False, "free some space"),
        ("SQLITE_READONLY", "attempt to write a readonly database", False, "name another store"),
        ("SQLITE_READONLY_ROLLBACK", "attempt to write a readonly database", False, "name another store"),
        ("SQLITE_CANTOPEN", "unable to open database file", False, "name another store"),
        ("SQLITE_IOERR_WRITE", "disk I/O error", False, "SQLITE_IOERR_WRITE"),
        ("SQLITE_CORRUPT", "database disk image is malformed", False, "is damaged; move it away"),
        ("SQLITE_NOTADB", "file is not a database", False, "is damaged; move it away"),
        ("SQLITE_ERROR", "duplicate column name: x", False, "duplicate column name: x); move it away"),
    ],
)
def test_what_sqlite_says_is_not_cut_off(name, text, passes, words, local):
    fault = store_faults.explain(sqlite_error(name, text), local)
    assert fault.passes == passes
    assert words in str(fault)
    assert str(local.database) in str(fault)
    assert ("answers again" in str(fault)) == passes


def test_what_was_explained_stays_as_it_was_said(local):
    error = WorkspaceError("said")
    assert store_faults.explain(error, local) is error


def test_a_schema_that_differs_on_a_database_server_says_both_ways_out(server):
    elsewhere = replace(server, tracking_uri="postgresql://host/mlflow")
    fault = store_faults.explain(MlflowException("Detected out-of-date database schema (found x"), elsewhere)
    assert not fault.passes
    assert "mlflow db upgrade" in str(fault)
    assert "install that release" in str(fault)


def test_a_file_system_that_is_mounted_read_only_is_said(local, monkeypatch):
    class Mounted:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: Mounted)
    fault = store_faults.explain(sqlite_error("SQLITE_READONLY", "attempt to write a readonly database"), local)
    assert "mounted read-only; mount that to be written" in str(fault)


def test_of_runs_and_a_registry_apart_the_one_that_cannot_be_used_is_named(local, tmp_path, monkeypatch):
    registry = tmp_path / "elsewhere" / "registry.db"
    apart = replace(local, registry_uri=f"sqlite:///{registry}")
    refused = sqlite_error("SQLITE_READONLY", "attempt to write a readonly database")
    for bad in (registry, local.database):
        monkeypatch.setattr(store_faults, "why_unusable", lambda file, bad=bad: "read-only" if file == bad else None)
        assert f"MLflow store {bad}: read-only" in str(store_faults.explain(refused, apart))
    on_a_server = replace(apart, database=None, tracking_uri="http://server")
    assert f"MLflow store {registry}: " in str(store_faults.explain(refused, on_a_server))


def test_only_of_a_server_it_is_said_that_it_may_have_to_be_started(server, local):
    refused = ConnectionRefusedError(111, "Connection refused")
    assert "start its server if it is not running, or check tracking_uri" in str(
        store_faults.explain(refused, server)
    )
    assert "start its server" not in str(store_faults.explain(refused, local))
