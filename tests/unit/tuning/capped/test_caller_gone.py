"""What a capped function started ends with its caller, and with its watchdog, in real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import hogs
import psutil
import pytest
from capped_calls import CAP_MB, all_gone, is_gone, linux, members

from tuning.capped.run_capped import run_capped

TESTS = str(Path(hogs.__file__).parent)

CALLER = f"""
import sys; sys.path.append({TESTS!r})
import hogs
from tuning.capped.run_capped import run_capped
run_capped(hogs.with_family, sys.argv[1], cap_mb={CAP_MB}, on_message=lambda said: print(said, flush=True))
"""


@pytest.fixture
def caller(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path / "pids")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "all there\n"
        yield process
        process.kill()


@linux
def test_nothing_outlives_a_caller_that_is_killed(caller, tmp_path):
    watchdog = psutil.Process(members(tmp_path / "pids")[0]).ppid()
    assert psutil.Process(caller.pid).children(recursive=True) == []  # a Ray worker kills those when it ends
    caller.kill()
    assert all_gone([*members(tmp_path / "pids"), watchdog])


@linux
def test_nothing_outlives_a_caller_that_is_killed_and_survived_by_a_fork_of_it(tmp_path):
    """The fork holds the caller's end of every socket."""
    code = CALLER.replace("print(said", "os.fork() or print(said").replace("import hogs", "import hogs, os, time")
    code = code.replace("flush=True)", "flush=True) or time.sleep(60)")
    pids = tmp_path / "pids"
    with subprocess.Popen([sys.executable, "-c", code, str(pids)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "all there\n"
        (fork,) = psutil.Process(process.pid).children()
        process.kill()
        assert all_gone(members(pids))
        assert fork.is_running()
        fork.kill()


def test_a_child_that_is_stopped_goes_with_its_caller_too(caller, tmp_path):
    os.kill(members(tmp_path / "pids")[0], signal.SIGSTOP)
    caller.kill()
    assert all_gone(members(tmp_path / "pids"))


@linux
def test_a_child_whose_watchdog_is_killed_ends_with_its_own_children(caller, tmp_path):
    child, *_ = members(tmp_path / "pids")
    watchdog = psutil.Process(child).parent()
    below = [process.pid for process in psutil.Process(child).children()]
    orphan = next(pid for pid in members(tmp_path / "pids") if pid not in (child, *below))
    watchdog.kill()
    assert is_gone(child)
    assert all_gone(below)
    psutil.Process(orphan).kill()  # only the watchdog knew it
    assert caller.wait(timeout=5) == 0  # an outcome, not an exception


def test_a_watchdog_killed_from_outside_is_an_outcome():
    received = []

    def listen(message: object) -> None:
        received.append(message)
        psutil.Process(message).parent().kill()

    result = run_capped(hogs.send_pid_and_hang, cap_mb=CAP_MB, on_message=listen)
    assert (result.outcome, result.signal) == ("killed", signal.SIGKILL)
    assert is_gone(received[0], 0.05)
