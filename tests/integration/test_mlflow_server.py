import os
import signal
import socket
import subprocess
import sys
import time
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest
from product import set_traps, sprung

from pipeline.errors import ConfigError, MachineUnfitError, TrackingError
from pipeline.tracking import server as mlflow_server
from pipeline.tracking import server_processes, store_file
from pipeline.tracking import settings as mlflow_settings
from pipeline.tracking.new_store import create_store
from pipeline.workspace.paths import Workspace

SCRIPT = """
import sys
from pathlib import Path
from pipeline.tracking import server, settings as mlflow_settings
from pipeline.workspace.paths import Workspace
workspace = Workspace(Path(sys.argv[1]))
settings = mlflow_settings.load(workspace, {})
say = lambda address: print(address, flush=True)
sys.exit(server.serve_ui(settings, workspace, port=int(sys.argv[2]), on_ready=say))
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("ui"))
    create_store(mlflow_settings.load(workspace, {}), workspace)
    return workspace


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def ui(workspace):
    port = free_port()
    set_traps(workspace.root)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SCRIPT, str(workspace.root), str(port)],
        cwd=workspace.root,
        env=os.environ | {"MLFLOW_TRACKING_URI": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"http://127.0.0.1:{port}/")
    yield process, port
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_the_ui_answers_and_leaves_no_process_however_it_ends(ui, workspace, number, code):
    process, port = ui
    assert build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2
    assert sprung(workspace.root) == []
    process.send_signal(number)
    assert process.wait(timeout=15) == code
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_a_port_in_use_names_the_next_free_one(workspace):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ConfigError, match=r"use --port \d+"):
            mlflow_server.serve_ui(
                mlflow_settings.load(workspace, {}), workspace, port=port, on_ready=lambda _: pytest.fail("started")
            )


def test_a_store_with_a_server_of_its_own_only_needs_its_address(workspace):
    said = []
    settings = mlflow_settings.load(workspace, {"MLFLOW_TRACKING_URI": "http://user:secret@host:5000"})
    assert mlflow_server.serve_ui(settings, workspace, on_ready=said.append) == 0
    assert said == ["http://host:5000"]


def test_a_server_that_dies_by_itself_is_said_with_its_last_words(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database at all " * 100)
    workspace = Workspace(tmp_path)
    start = time.monotonic()
    with pytest.raises(TrackingError, match="damaged; move it away"):
        mlflow_server.serve_ui(
            mlflow_settings.load(workspace, {}),
            workspace,
            port=free_port(),
            on_ready=lambda _: pytest.fail("started"),
        )
    assert time.monotonic() - start < 30


def test_a_server_that_does_nothing_is_given_up(workspace, monkeypatch):
    def asleep(*_: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE, start_new_session=True)

    monkeypatch.setattr(mlflow_server, "_start", asleep)
    monkeypatch.setattr(server_processes, "IDLE_S", 0.5)
    start = time.monotonic()
    with pytest.raises(TrackingError, match="does not answer"):
        mlflow_server.serve_ui(
            mlflow_settings.load(workspace, {}),
            workspace,
            port=free_port(),
            on_ready=lambda _: pytest.fail("started"),
        )
    assert time.monotonic() - start < 5


def test_a_machine_that_does_not_reach_itself_is_told_before_a_server_is_started(workspace, monkeypatch):
    def swallowed(host: str) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(mlflow_server.loopback, "check", swallowed)
    with pytest.raises(MachineUnfitError, match=r"does not reach itself at 127\.0\.0\.1 \(timed out\)"):
        mlflow_server.serve_ui(
            mlflow_settings.load(workspace, {}),
            workspace,
            port=free_port(),
            on_ready=lambda _: pytest.fail("started"),
        )


def test_the_copy_of_a_store_that_cannot_be_written_goes_with_the_server(tmp_path, monkeypatch):
    shown = []
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(mlflow_server.tempfile, "tempdir", str(copies))
    monkeypatch.setattr(mlflow_server.file_access, "why_unusable", lambda database: f"{database} is another's")

    def start(request, log, folder):
        shown.append(request.settings.database)
        assert request.copy == request.settings.database.parent
        assert store_file.state_of(request.settings) == "ready"
        os.kill(os.getpid(), signal.SIGINT)
        return subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)

    workspace = Workspace(tmp_path)
    create_store(mlflow_settings.load(workspace, {}), workspace)
    monkeypatch.setattr(mlflow_server, "_start", start)
    said = []
    settings = mlflow_settings.load(workspace, {})
    assert mlflow_server.serve_ui(settings, workspace, port=free_port(), on_ready=print, on_note=said.append) == 0
    assert "is another's: the UI shows a copy of the store as it is now" in said[0]
    assert shown[0].is_relative_to(copies)
    assert list(copies.iterdir()) == []


def test_the_copy_goes_too_when_the_command_is_killed(tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    script = (
        "import sys; from pathlib import Path; from pipeline.tracking import server_child\n"
        "server_child.end_with_parent(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(copy)], stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    assert not copy.exists()
