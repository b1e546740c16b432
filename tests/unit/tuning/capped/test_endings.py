"""How a capped function ends, other than at its cap, in real processes."""

import functools
import os
import signal
import sys

import hogs
import pytest
from capped_calls import CAP_MB, all_gone, members

from tuning.capped.run_capped import run_capped


def test_a_function_that_raises_has_failed_and_its_own_frames_are_shown():
    result = run_capped(hogs.fail, cap_mb=CAP_MB)
    assert (result.outcome, result.error) == ("failed", "ValueError: no such luck")
    assert "in fail" in result.traceback
    assert "capped/child.py" not in result.traceback


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (functools.partial(hogs.leave, 3), "left with exit code 3, without returning"),
        (functools.partial(sys.exit, 4), "SystemExit: 4"),
        (hogs.unpicklable, "TypeError: the value, a lock, cannot be pickled: cannot pickle '_thread.lock' object"),
        (hogs.unreadable, "the value cannot be unpickled here: ValueError: "),
    ],
)
def test_a_function_that_gives_no_value_has_failed(function, error):
    result = run_capped(function, cap_mb=CAP_MB)
    assert result.outcome == "failed"
    assert result.error.startswith(error)


def test_imports_that_fail_are_a_failure_without_a_floor():
    result = run_capped(hogs.add, 1, cap_mb=CAP_MB, warm_up=hogs.warm_up_badly)
    assert (result.outcome, result.error) == ("failed", "ImportError: nothing here to warm up with")
    assert result.floor_mb is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_what_a_signal_ends_was_killed(number):
    result = run_capped(hogs.kill_itself, number, cap_mb=CAP_MB)
    assert (result.outcome, result.signal) == ("killed", number)
    assert result.error == f"ended by {number.name}"


def test_a_child_killed_from_outside_takes_its_family_with_it(tmp_path):
    pids = tmp_path / "pids"
    result = run_capped(
        hogs.with_family, str(pids), cap_mb=CAP_MB, on_message=lambda _: os.kill(members(pids)[0], signal.SIGKILL)
    )
    assert (result.outcome, result.signal) == ("killed", signal.SIGKILL)
    assert all_gone(members(pids), 0.1)


def test_what_a_function_leaves_running_ends_with_it(tmp_path):
    pids = tmp_path / "pids"
    result = run_capped(hogs.with_family, str(pids), 0.0, cap_mb=CAP_MB, on_message=lambda _: None)
    assert result.outcome == "completed"
    assert all_gone(members(pids), 0.1)


def test_a_function_that_hangs_is_ended_at_its_time_limit():
    result = run_capped(hogs.hang_and_ignore, cap_mb=CAP_MB, time_limit_s=0.5)
    assert result.outcome == "timed_out"
    assert 0.5 < result.duration_s < 2


def test_the_time_limit_holds_for_imports_too():
    result = run_capped(hogs.add, 1, cap_mb=CAP_MB, time_limit_s=0.5, warm_up=hogs.hang)
    assert (result.outcome, result.floor_mb) == ("timed_out", None)


def test_a_child_that_holds_the_interpreter_lock_is_watched_all_the_same():
    result = run_capped(hogs.hang_in_native_code, cap_mb=CAP_MB, time_limit_s=0.5)
    assert result.outcome == "timed_out"
    assert result.duration_s < 2
