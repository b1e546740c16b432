"""Starts the MLflow UI over a workspace's store, and ends all of its processes.

The server runs in a child that holds a pipe to us, so it ends with us however we end. Without MLflow's job runners it
is two processes and half a gigabyte, instead of ten and 1.7.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil

from pipeline import environment, stop
from pipeline.errors import ConfigError, MachineUnfitError, TrackingError, WorkspaceError
from pipeline.tracking import store_faults, store_file
from pipeline.tracking.delivery import make_database
from pipeline.tracking.settings import ARTIFACTS, ResolvedMlflow, quiet, sqlite_uri
from pipeline.workspace.paths import Workspace
from tuning import loopback

TRAINING_PAGES = "/#/experiments?workflowType=machine_learning"  # else the UI opens on its pages for language models
START_S = 120.0
IDLE_S = 30.0
"""A server that has not answered yet and has computed nothing for so long will not come."""
GRACE_S = 5.0
_PORTS_TRIED = 100
_COPY = "seqpipe-store-"
"""How the temporary folder of a store's copy is named."""


def serve_ui(
    settings: ResolvedMlflow,
    workspace: Workspace,
    *,
    host: str = "127.0.0.1",
    port: int = 5000,
    on_ready: Callable[[str], None],
    on_note: Callable[[str], None] = lambda _: None,
) -> int:
    """Serve the MLflow UI until a signal; `on_ready` is told its address when it answers, `on_note` what is unusual.

    A store that has a server needs none: its address is told, and that is all. Returns the exit code: 0 after Ctrl-C
    (the way to end it), 128 + n after another signal n. Call it from the main thread.

    Raises:
        ConfigError: the port is in use; the message names a free one.
        MachineUnfitError: this machine does not reach itself there.
        TrackingError: the store cannot be used, or the server did not start or ended by itself.
    """
    if settings.is_http:
        on_ready(settings.address)
        return 0
    _require_free(host, port)
    _require_reachable(host)
    with ExitStack() as stack:
        if settings.database is not None:
            settings = _usable(settings, stack, on_note)
        log_path, log = _log(workspace, stack)
        # In an empty folder: its web server imports from the one that it is started in, whatever Python is told.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="seqpipe-ui-"))
        caught = stack.enter_context(_signals())
        server = _start(settings, workspace, host, port, log, folder)
        processes: set[psutil.Process] = set()
        try:
            _watch(server, processes, caught, f"http://{host}:{port}", on_ready, log_path)
        finally:
            _end(server, processes | _tree(server.pid), caught)
    return 0 if caught.first == signal.SIGINT else 128 + caught.first


def _usable(settings: ResolvedMlflow, stack: ExitStack, on_note: Callable[[str], None]) -> ResolvedMlflow:
    """The settings of a local store that MLflow can open: of a copy, where it can be read and not written."""
    database = settings.database
    assert database is not None
    why = store_faults.forbidden(database)
    if why is None or settings.is_gone or not store_faults.may(database, os.R_OK):
        if store_file.look(settings) == "missing" and why is not None:
            raise TrackingError(f"there is no MLflow store at {database} yet, and none can be made: {why}")
        return settings
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_COPY, ignore_cleanup_errors=True)))
    copy = store_file.copy_to(database, folder)
    shown = replace(settings, database=copy, tracking_uri=sqlite_uri(copy))
    store_file.look(shown)
    on_note(f"{why}: the UI shows a copy of the store as it is now, and what is changed there is not kept")
    return shown


def _log(workspace: Workspace, stack: ExitStack) -> tuple[Path, int]:
    """Where the server's output goes: into the workspace, or a temporary file where that cannot be written."""
    path = workspace.hidden / "ui.log"
    try:
        workspace.create()
        file = path.open("wb")
    except (OSError, WorkspaceError):
        descriptor, name = tempfile.mkstemp(prefix="seqpipe-ui-", suffix=".log")
        path, file = Path(name), os.fdopen(descriptor, "wb")
        stack.push(lambda kind, *_: None if kind else path.unlink())  # after a failure it is worth reading
    return path, stack.enter_context(file).fileno()


@dataclass
class _Caught:
    """The signals that came; the first asks to end, a second to end at once."""

    numbers: list[int] = field(default_factory=list)

    @property
    def first(self) -> int:
        return self.numbers[0] if self.numbers else 0


@contextmanager
def _signals() -> Iterator[_Caught]:
    caught = _Caught()
    with stop.listening(lambda number, _: caught.numbers.append(number)):
        yield caught


def _require_free(host: str, port: int) -> None:
    if _is_free(host, port):
        return
    free = next((other for other in range(port + 1, port + _PORTS_TRIED) if _is_free(host, other)), None)
    advice = f"use --port {free}" if free else "choose another with --port"
    raise ConfigError(f"{host}:{port} cannot be listened on (in use, or not this machine's); {advice}")


def _require_reachable(host: str) -> None:
    try:
        loopback.check(host)
    except OSError as error:
        raise MachineUnfitError(
            f"this machine does not reach itself at {host} ({error.strerror or error}), so nobody could see the UI; "
            "let the firewall or the VPN allow it"
        ) from error


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
        return True


def _start(
    settings: ResolvedMlflow, workspace: Workspace, host: str, port: int, log: int, folder: str
) -> "subprocess.Popen[bytes]":
    environ = dict(os.environ) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.clean_variables(environ)
    quiet(environ)
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.tracking.server"],
        stdin=subprocess.PIPE,  # stays open as long as we live
        stdout=log,
        stderr=log,
        env=environ,
        cwd=folder,
        start_new_session=True,  # the terminal's Ctrl-C is for us to pass on
    )
    assert server.stdin is not None
    request = {
        "settings": asdict(settings) | {"database": str(settings.database) if settings.database else None},
        "workspace": str(workspace.root),
        "host": host,
        "port": port,
    }
    try:
        server.stdin.write(json.dumps(request).encode() + b"\n")  # not arguments: an address may hold a password
        server.stdin.flush()
    except BrokenPipeError:  # it died at once; who watches it says so
        pass
    return server


def _watch(
    server: "subprocess.Popen[bytes]",
    processes: set[psutil.Process],
    caught: _Caught,
    address: str,
    on_ready: Callable[[str], None],
    log_path: Path,
) -> None:
    deadline = time.monotonic() + START_S
    computed_s, idle_since = 0.0, time.monotonic()
    ready = False
    while not caught.numbers:
        if server.poll() is not None:
            raise TrackingError(f"the MLflow UI ended by itself: {_last_line(log_path)}; its log is {log_path}")
        processes |= _tree(server.pid)
        if not ready and _answers(f"{address}/health"):
            ready = True
            on_ready(address + TRAINING_PAGES)
        if (now_s := _computed_s(processes)) > computed_s + 0.1:
            computed_s, idle_since = now_s, time.monotonic()
        if not ready and time.monotonic() > min(deadline, idle_since + IDLE_S):
            raise TrackingError(f"the MLflow UI does not answer at {address}; its log is {log_path}")
        time.sleep(0.5 if ready else 0.1)


def _answers(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _end(server: "subprocess.Popen[bytes]", processes: set[psutil.Process], caught: _Caught) -> None:
    """Ask the server to end; after a grace period, or a second signal, end each of its processes."""
    signals_before = len(caught.numbers)
    if server.poll() is None:
        server.terminate()
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and len(caught.numbers) == signals_before:
        if not psutil.wait_procs(processes, timeout=0.1)[1]:
            break
    for process in processes | _tree(server.pid):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    server.wait()
    assert server.stdin is not None
    server.stdin.close()


def _tree(pid: int) -> set[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return {process, *process.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def _computed_s(processes: set[psutil.Process]) -> float:
    """Processor time that they have used, of those that live."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def _last_line(log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"


def _end_with_parent(copy: Path | None) -> None:
    """End this process and those that it started when the process at the other end of stdin is gone.

    `copy` is a folder that the other would have removed.
    """
    while os.read(sys.stdin.fileno(), 1024):
        continue
    children = psutil.Process().children(recursive=True)
    for kill in (psutil.Process.terminate, psutil.Process.kill):
        for child in children:
            try:
                kill(child)
            except psutil.NoSuchProcess:
                continue
        children = psutil.wait_procs(children, timeout=3.0)[1]
    if copy is not None:
        shutil.rmtree(copy, ignore_errors=True)
    os._exit(0)


def _serve() -> None:
    """The child: make the store where there is none, then run MLflow's own server."""
    request = json.loads(sys.stdin.buffer.readline())
    database = request["settings"].pop("database")
    settings = ResolvedMlflow(**request["settings"], database=Path(database) if database else None)
    copy = settings.database.parent if settings.database and settings.database.parent.name.startswith(_COPY) else None
    threading.Thread(target=_end_with_parent, args=[copy], daemon=True).start()
    make_database(settings, Workspace(Path(request["workspace"])))
    from mlflow.cli import cli

    arguments = ["server", "--host", request["host"], "--port", str(request["port"]), "--workers", "1"]
    arguments += ["--backend-store-uri", settings.tracking_uri]
    if settings.registry_uri:
        arguments += ["--registry-store-uri", settings.registry_uri]
    artifacts = settings.artifact_location or (Path(request["workspace"]) / ARTIFACTS).as_uri()
    arguments += ["--artifacts-destination", artifacts]  # else a place in its own folder, which is an empty one
    if settings.artifact_location:
        arguments += ["--default-artifact-root", settings.artifact_location]
    cli(arguments)


if __name__ == "__main__":
    _serve()
