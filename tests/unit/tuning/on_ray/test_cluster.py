import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tuning.errors import AskedToLeaveError, CapDoesNotFitError, ClusterError
from tuning.on_ray import cluster
from tuning.on_ray.cleanup import MARK, Reaper, marked
from tuning.on_ray.cluster import SUPERVISOR_MB, Node, plan

LAPTOPS = [Node("one", 4, 5000), Node("two", 2, 3000)]


def test_as_many_trials_run_as_memory_and_cores_hold():
    assert plan(LAPTOPS, 1000, None, 1.0).fits == (4, 2)
    assert plan(LAPTOPS, 2000, None, 1.0).fits == (2, 1)
    assert plan(LAPTOPS, 2000, None, 1.0).concurrency == 3
    assert plan(LAPTOPS, 1000, None, 2.0).fits == (2, 1)
    assert plan(LAPTOPS, 1000, 2, 1.0).concurrency == 2
    assert plan(LAPTOPS, 4000, 2, 1.0).fits == (1, 0)
    assert plan(LAPTOPS, 4000, 2, 1.0).concurrency == 1


def test_what_ray_is_asked_for_covers_the_supervisor():
    assert plan(LAPTOPS, 1000, None, 1.0).request_bytes == (1000 + SUPERVISOR_MB) * 1_000_000


@pytest.mark.parametrize(("concurrency", "fits"), [(1, (1, 0)), (2, (1, 1)), (3, (2, 1)), (6, (4, 2)), (99, (4, 2))])
def test_without_a_cap_it_is_the_largest_at_which_the_wished_trials_fit(concurrency, fits):
    found = plan(LAPTOPS, None, concurrency, 1.0)
    assert found.fits == fits
    try:
        with_more = sum(plan(LAPTOPS, found.cap_mb + 1, concurrency, 1.0).fits)
    except CapDoesNotFitError:
        with_more = 0
    assert with_more < sum(fits)


@pytest.mark.parametrize(("memory_mb", "fits"), [(3500, 2), (2500, 1), (1000, 1), (20000, 8)])
def test_fewer_trials_run_rather_than_trials_with_too_little(memory_mb, fits):
    laptop = [Node("laptop", 8, memory_mb)]
    found = plan(laptop, None, None, 1.0, least_mb=1500)
    assert (found.concurrency, found.cap_mb) == (fits, memory_mb // fits - SUPERVISOR_MB)
    assert plan(laptop, None, 4, 1.0, least_mb=1500).concurrency == 4, "asked for"
    assert plan(laptop, 200, None, 1.0, least_mb=1500).cap_mb == 200, "asked for"


def test_a_cap_that_no_node_can_grant_is_refused_with_the_largest_that_fits():
    with pytest.raises(CapDoesNotFitError, match=f"{5000 - SUPERVISOR_MB} MB") as caught:
        plan(LAPTOPS, 9000, None, 1.0)
    largest = caught.value.largest_mb
    assert plan(LAPTOPS, largest, None, 1.0).fits == (1, 0)


def test_a_machine_without_memory_is_refused():
    with pytest.raises(CapDoesNotFitError, match="no node has memory for a trial now") as caught:
        plan([Node("full", 2, 0)], None, None, 1.0)
    assert caught.value.largest_mb == 0


def test_more_cores_than_any_node_has_are_refused():
    with pytest.raises(ClusterError, match="8 cores"):
        plan(LAPTOPS, 100, None, 8)


def test_the_reserve_is_left_to_the_system():
    free, kept = cluster.this_machine(0), cluster.this_machine(1000)
    assert 500 <= free.memory_mb - kept.memory_mb <= 1500
    assert cluster.this_machine(10**9).memory_mb == 0


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
