import signal
import subprocess
import sys
import time

import pytest

from tuning.capacity import Node
from tuning.errors import ClusterError
from tuning.on_ray import local_ray


def test_a_machine_that_does_not_reach_itself_is_reported_before_ray_is_started(monkeypatch):
    def swallowed(host: str = "") -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(local_ray.loopback, "check", swallowed)
    with pytest.raises(ClusterError, match=r"does not reach itself over 127\.0\.0\.1 \(timed out\)"):
        local_ray.started(Node("one", 1, 1000)).__enter__()


def test_a_ray_that_hangs_in_its_start_is_left_and_the_process_ends_with_its_own_code(tmp_path):
    script = (
        "import sys, time, types; sys.modules['ray'] = ray = types.ModuleType('ray'); ray.__path__ = []\n"
        "from tuning.on_ray import local_ray; from pipeline.cli import app; from tuning.errors import ClusterError\n"
        "local_ray.reload_token = lambda: time.sleep(600)\n"
        "local_ray.START_S = 0.5\n"
        "def run_words(debug):\n"
        "    try: local_ray.started(local_ray.Node('one', 1, 1000)).__enter__()\n"
        "    except ClusterError as error: print(error); return 6\n"
        "app.run_words = run_words; app.main()\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 6, done.stderr
    assert "a local Ray did not start within 0 s" in done.stdout
    assert done.stderr == ""
    assert time.monotonic() - began < 5


def test_what_ray_starts_ignores_that_the_terminal_was_closed():
    ask = "import signal; print(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, []))"

    def is_blocked():
        return subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True).stdout == b"True\n"

    with local_ray.hangups_blocked():
        assert is_blocked()
    assert not is_blocked()
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
