import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tuning.capacity import Node
from tuning.errors import AskedToLeaveError, ClusterError
from tuning.on_ray import cluster
from tuning.on_ray.cleanup import MARK, Reaper, marked


@pytest.mark.parametrize("address", ["nowhere", "host:port", ":1", ""])
def test_an_address_that_is_none_is_told(address):
    with pytest.raises(ClusterError, match="HOST:PORT"):
        cluster.check(address)


def test_an_address_that_does_not_answer_is_told_at_once():
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ClusterError, match="no Ray cluster answers") as caught:
        cluster.check(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 2
    assert "\n" not in str(caught.value)


def test_versions_that_differ_are_told(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(cluster, "_versions", lambda *_: {"ray_version": "2.9.0", "python_version": "3.8.1"})
        with pytest.raises(ClusterError, match=r"ray 2\.9\.0 there.*python 3\.8\.1 there"):
            cluster.check(address)


def test_whatever_carries_the_mark_ends_with_the_reaper_and_nothing_else(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    mark = "0123456789abcdef-test"
    with Reaper(mark, str(folder)):
        ours = subprocess.Popen(sleep, env=os.environ | {MARK: mark}, stdout=subprocess.PIPE, start_new_session=True)
        other = subprocess.Popen(sleep, env=os.environ | {MARK: "another"}, stdout=subprocess.PIPE)
        for process in (ours, other):
            process.stdout.readline()
        with (folder / "log").open("w") as log:  # for Ray's agents overwrite their environment with their title
            logging = subprocess.Popen(["sleep", "60"], stdout=log, start_new_session=True)
        assert marked(mark, str(folder)) == sorted([ours.pid, logging.pid])
    try:
        assert ours.wait(timeout=5) == -9
        assert logging.wait(timeout=5) == -9
        assert other.poll() is None
        assert not folder.exists()
    finally:
        other.kill()
        other.wait()


def test_a_driver_that_is_killed_is_cleaned_up_after(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    script = (
        "import os, subprocess, sys, time, json; from tuning.on_ray.cleanup import MARK, Reaper\n"
        f"Reaper('mark-of-the-killed', {str(folder)!r})\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True,"
        " env=os.environ | {MARK: 'mark-of-the-killed'})\n"
        "print(json.dumps(child.pid), flush=True); time.sleep(60)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    json.loads(driver.stdout.readline())
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 8
    while (marked("mark-of-the-killed", str(folder)) or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not marked("mark-of-the-killed", str(folder))
    assert not folder.exists()


def test_a_driver_that_goes_on_is_not_taken_for_what_it_left(tmp_path):
    folder = tmp_path / "ray"
    folder.mkdir()
    script = (
        "from pathlib import Path; from tuning.on_ray.cleanup import Reaper\n"
        f"folder = Path({str(folder)!r}); log = (folder / 'driver.log').open('w')\n"
        "with Reaper('mark-of-the-living', str(folder)): pass\n"
        "print('goes on')\n"
    )
    driver = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert driver.stdout == "goes on\n"
    assert not folder.exists()


def test_a_server_that_accepts_and_never_answers_is_told_in_time_and_a_stop_is_heard(monkeypatch):
    monkeypatch.setattr(cluster, "_ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ClusterError, match="no Ray cluster that lets this process in"):
            cluster.check(address)
        with pytest.raises(AskedToLeaveError):
            cluster.check(address, lambda: True)
        assert time.monotonic() - began < 5


def test_a_machine_that_does_not_reach_itself_is_told_before_ray_is_started(monkeypatch):
    def swallowed(host: str = "") -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(cluster.loopback, "check", swallowed)
    with pytest.raises(ClusterError, match=r"does not reach itself over 127\.0\.0\.1 \(timed out\)"):
        cluster.local(Node("one", 1, 1000)).__enter__()


def test_a_ray_that_hangs_in_its_start_is_left_and_the_process_ends_with_its_own_code(tmp_path):
    script = (
        "import sys, time, types; sys.modules['ray'] = ray = types.ModuleType('ray'); ray.__path__ = []\n"
        "from tuning.on_ray import cluster; from pipeline.cli import app; from tuning.errors import ClusterError\n"
        "cluster._read_token_anew = lambda: time.sleep(600)\n"
        "cluster.START_S = 0.5\n"
        "def run_words(debug):\n"
        "    try: cluster.local(cluster.Node('one', 1, 1000)).__enter__()\n"
        "    except ClusterError as error: print(error); return 6\n"
        "app.run_words = run_words; app.main()\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 6, done.stderr
    assert "a local Ray did not start within 0 s" in done.stdout
    assert done.stderr == ""
    assert time.monotonic() - began < 5


def test_what_ray_starts_does_not_hear_that_the_terminal_was_closed():
    ask = "import signal; print(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, []))"

    def is_deaf():
        return subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True).stdout == b"True\n"

    with cluster._deaf_to_hangups():
        assert is_deaf()
    assert not is_deaf()
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
