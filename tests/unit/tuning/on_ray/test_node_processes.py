import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fake_head import plan

from tuning.cluster.node_folder import VARIABLE
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray import left_over, node_processes
from tuning.on_ray.cleanup import MARK, marked
from tuning.on_ray.left_over import end_left_over, new_folder
from tuning.on_ray.node_processes import NodeProcesses

TOKEN = "a" * 64
FAKE_RAY = """
import os, subprocess, sys, shutil, time
from pathlib import Path
folder = Path(next(word.partition("=")[2] for word in sys.argv if word.startswith("--temp-dir=")))
for name in ("raylet", "gcs_server") if "--head" in sys.argv else ("raylet",):
    program = folder / name
    program.symlink_to(shutil.which("sleep"))
    subprocess.Popen([str(program), "60"])
print("started")
"""


@pytest.fixture
def temp(tmp_path, monkeypatch):
    monkeypatch.setattr(left_over, "short_temp", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def ray(temp, monkeypatch):
    """Starts sleeping processes in Ray's place."""

    def says(script):
        monkeypatch.setattr(node_processes, "_START", script)

    says(FAKE_RAY)
    return says


def start(temp, head=None, should_stop=lambda: False):
    return NodeProcesses(plan(temp), "192.0.2.7", TOKEN, head, should_stop)


def test_what_was_started_is_watched_and_ended_without_a_trace(ray, temp):
    processes = start(temp)
    folder = processes.node_folder.path.parent
    assert processes.dead() is None
    next(each.process for each in processes._processes if each.kind == "gcs_server").kill()
    until = time.monotonic() + 5
    while processes.dead() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert processes.dead() == "gcs_server"
    mark = psutil.Process(processes._processes[0].process.pid).environ()[MARK]
    processes.end()
    assert not folder.exists()
    assert marked(mark, str(folder)) == []


def test_a_node_that_ends_in_order_is_told_to_first(ray, temp):
    processes = start(temp, head="192.0.2.1:6480")
    raylet = processes._processes[0].process
    processes.end()
    assert not raylet.is_running()


def test_the_token_is_in_a_file_for_this_user_alone_and_no_argument(ray, temp):
    processes = start(temp, head="192.0.2.1:6480")
    try:
        folder = processes.node_folder.path.parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "token").stat().st_mode & 0o777 == 0o600
        assert (folder / "token").read_text() == TOKEN
        raylet = processes._processes[0].process
        environment = raylet.environ()
        assert TOKEN not in environment.values()
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == str(folder / "token")
        assert environment[VARIABLE] == str(processes.node_folder.path)
        assert os.getsid(raylet.pid) != os.getsid(0), "out of reach of the terminal"
    finally:
        processes.end(in_order=False)


def test_settings_of_somebody_elses_ray_do_not_reach_it(ray, temp, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    processes = start(temp, head="192.0.2.1:6480")
    try:
        environment = processes._processes[0].process.environ()
        assert not {"RAY_ADDRESS", "RAY_AUTH_TOKEN"} & environment.keys()
    finally:
        processes.end(in_order=False)


def test_a_mac_and_another_patch_of_python_are_let_in(ray, temp):
    environment = _environment(temp)
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "1"
    assert environment["RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL"] == "minor"


def test_a_silent_node_has_50_to_65_seconds_and_one_that_is_killed_less_than_10(ray, temp):
    environment = _environment(temp)
    period, timeout, checks = (
        int(environment[f"RAY_health_check_{name}"]) for name in ("period_ms", "timeout_ms", "failure_threshold")
    )
    assert 50_000 <= checks * (period + timeout) <= 65_000
    assert checks * period < 10_000
    assert 25 < int(environment["RAY_gcs_rpc_server_reconnect_timeout_s"]) <= 65


def _environment(temp):
    processes = start(temp, head="192.0.2.1:6480")
    try:
        return processes._processes[0].process.environ()
    finally:
        processes.end(in_order=False)


def test_every_port_of_ray_is_fixed_and_the_address_is_given(temp):
    ports = plan(temp).ports
    command = node_processes._command(plan(temp), "192.0.2.7", None, temp)
    words = dict(word.partition("=")[::2] for word in command if word.startswith("--"))
    assert words["--node-ip-address"] == "192.0.2.7"
    assert words["--port"] == str(ports.gcs)
    assert words["--min-worker-port"] == str(ports.workers.start)
    assert words["--max-worker-port"] == str(ports.workers.stop - 1)
    opened = {int(value) for name, value in words.items() if name.endswith("port") and value.isdecimal()}
    assert opened <= set(ports.all(is_head=True))
    assert len(opened) == 9
    node = node_processes._command(plan(temp), "192.0.2.7", "192.0.2.1:6480", temp)
    assert "--address=192.0.2.1:6480" in node
    assert not [word for word in node if word.startswith(("--head", "--port"))]


def test_ray_is_started_as_if_its_extras_were_not_installed():
    script = node_processes._START.partition("from ray")[0]
    tried = subprocess.run(
        [sys.executable, "-c", f"{script}import grpc"], capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError" in tried.stderr


def test_a_start_that_fails_is_one_line_and_leaves_nothing(ray, temp):
    ray("import sys; print('first'); print('ValueError: port 6480 is taken'); print('  at the end'); sys.exit(1)")
    with pytest.raises(ClusterError, match=r"could not be started: ValueError: port 6480 is taken$"):
        start(temp)
    assert list(temp.iterdir()) == []


def test_a_start_that_ends_at_once_is_told_and_leaves_nothing(ray, temp):
    ray("pass")
    with pytest.raises(ClusterError, match="gcs_server, raylet"):
        start(temp)
    assert list(temp.iterdir()) == []


def test_a_start_is_given_up_when_asked_or_after_its_time(ray, temp, monkeypatch):
    ray("import time; time.sleep(60)")
    with pytest.raises(AskedToLeaveError):
        start(temp, should_stop=lambda: True)
    monkeypatch.setattr(node_processes, "START_S", 0.3)
    with pytest.raises(ClusterError, match="did not start within"):
        start(temp)
    assert list(temp.iterdir()) == []


def test_what_was_killed_with_its_cleanup_is_ended_by_the_next_node(temp):
    folder, owned = new_folder("mark-of-the-forgotten")
    sleep = ["sleep", "60"]
    left = subprocess.Popen(sleep, env=os.environ | {MARK: "mark-of-the-forgotten"}, start_new_session=True)
    try:
        assert end_left_over() == 0, "somebody looks after it"
        assert left.poll() is None
        owned.close()
        assert end_left_over() == 1
        assert left.wait(5) == -9
        assert not folder.exists()
    finally:
        left.kill()


def test_folders_of_others_are_left_alone(temp):
    (temp / "ray-of-somebody").mkdir()
    assert end_left_over() == 0
    assert Path(temp / "ray-of-somebody").is_dir()
