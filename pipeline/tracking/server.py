"""Serves the MLflow UI over a workspace until a signal, and ends all of its processes.

The server runs in a child that holds a pipe to us, so it ends with us however we end. Without MLflow's job runners it
is two processes and half a gigabyte, instead of ten and 1.7.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from pipeline import environment
from pipeline.errors import MachineUnfitError, TrackingError, WorkspaceError
from pipeline.listening import require_free
from pipeline.tracking import experiment_page, file_access, store_file
from pipeline.tracking.mlflow_variables import quiet
from pipeline.tracking.server_child import Request
from pipeline.tracking.server_processes import stop_requests, watch
from pipeline.tracking.settings import ResolvedMlflow
from pipeline.tracking.sqlite_files import sqlite_uri
from pipeline.workspace.paths import Workspace
from tuning import loopback

TRAINING_PAGES = "/#/experiments?workflowType=machine_learning"  # else the UI opens on its pages for language models


def serve_ui(
    settings: ResolvedMlflow,
    workspace: Workspace,
    *,
    host: str = "127.0.0.1",
    port: int = 5000,
    on_ready: Callable[[str], None],
    on_note: Callable[[str], None] = lambda _: None,
) -> int:
    """Serve the MLflow UI until a signal; `on_ready` gets its address once it answers, `on_note` what is unusual.

    A store on a server has a UI of its own: only its address is reported. Returns the exit code: 0 after Ctrl-C
    (the way to end it), 128 + n after another signal n. Call it from the main thread.

    Raises:
        ConfigError: the port is in use; the message names a free one.
        MachineUnfitError: this machine cannot connect to itself there.
        TrackingError: the store cannot be used, or the server did not start or ended by itself.
    """
    if settings.is_http:
        on_ready(settings.address)
        return 0
    require_free(host, port)
    _require_reachable(host)
    address = f"http://{host}:{port}"
    with ExitStack() as stack:
        settings, copy = _readable_store(settings, stack, on_note)
        log_path, log = _log(workspace, stack)
        # In an empty folder: its web server imports from its working folder, whatever Python's options say.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="seqpipe-ui-"))
        requests = stack.enter_context(stop_requests())
        server = _start(Request(settings, workspace, host, port, copy), log, folder)
        watch(server, requests, address, lambda: on_ready(address + _first_page(settings)), log_path)
        return requests.exit_code


def _first_page(settings: ResolvedMlflow) -> str:
    """The experiment with the columns that matter, once there is one."""
    page = None if settings.database is None else experiment_page.link(settings.database, settings.experiment)
    return page or TRAINING_PAGES


def _readable_store(
    settings: ResolvedMlflow, stack: ExitStack, on_note: Callable[[str], None]
) -> tuple[ResolvedMlflow, Path | None]:
    """The settings of a store that MLflow can open: of a copy, whose folder comes with it, where it is read-only."""
    database = settings.database
    if database is None:
        return settings, None
    why = file_access.why_unusable(database)
    if why is None or settings.is_gone or not file_access.is_allowed(database, os.R_OK):
        if store_file.state_of(settings) == "missing" and why is not None:
            raise TrackingError(f"there is no MLflow store at {database} yet, and none can be made: {why}")
        return settings, None
    temporary = tempfile.TemporaryDirectory(prefix="seqpipe-store-", ignore_cleanup_errors=True)
    folder = Path(stack.enter_context(temporary))
    copy = store_file.copy_to(database, folder)
    shown = replace(settings, database=copy, tracking_uri=sqlite_uri(copy))
    store_file.state_of(shown)
    on_note(f"{why}: the UI shows a copy of the store as it is now, and what is changed there is not kept")
    return shown, folder


def _log(workspace: Workspace, stack: ExitStack) -> tuple[Path, int]:
    """Where the server's output goes: into the workspace, or a temporary file if that cannot be written."""
    path = workspace.hidden / "ui.log"
    try:
        workspace.create()
        file = path.open("wb")
    except (OSError, WorkspaceError):
        descriptor, name = tempfile.mkstemp(prefix="seqpipe-ui-", suffix=".log")
        path, file = Path(name), os.fdopen(descriptor, "wb")
        stack.push(lambda kind, *_: None if kind else path.unlink())  # after a failure it is worth reading
    return path, stack.enter_context(file).fileno()


def _require_reachable(host: str) -> None:
    try:
        loopback.check(host)
    except OSError as error:
        raise MachineUnfitError(
            f"this machine does not reach itself at {host} ({error.strerror or error}), so nobody could see the UI; "
            "let the firewall or the VPN allow it"
        ) from error


def _start(request: Request, log: int, folder: str) -> "subprocess.Popen[bytes]":
    environ = dict(os.environ) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.clean_variables(environ)
    quiet(environ)
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.tracking.server_child"],
        stdin=subprocess.PIPE,  # stays open as long as we live
        stdout=log,
        stderr=log,
        env=environ,
        cwd=folder,
        start_new_session=True,  # so that the terminal's Ctrl-C reaches only us, and we end the server
    )
    assert server.stdin is not None
    with suppress(BrokenPipeError):  # it died at once; `watch` reports that
        request.send(server.stdin)
    return server
