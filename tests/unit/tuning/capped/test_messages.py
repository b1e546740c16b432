"""Messages of a capped function to its caller, and stops that the caller asks for, in real processes."""

import os
import signal
import threading
import time

import hogs
import psutil
import pytest
from capped_calls import CAP_MB, all_gone, members, was_killed_at_the_cap

from tuning.capped.run_capped import run_capped


def test_messages_come_in_order_and_before_the_value():
    received = []
    result = run_capped(hogs.talk, 3000, cap_mb=CAP_MB, on_message=received.append)
    assert received == [(number, b"") for number in range(3000)]
    assert result.value == 3000


def test_messages_sent_while_the_caller_is_busy_arrive_even_after_the_end():
    received = []

    def listen(message: object) -> None:
        received.append(message[0])
        if len(received) == 1:
            time.sleep(0.5)

    result = run_capped(hogs.talk, 50, cap_mb=CAP_MB, on_message=listen)
    assert (result.outcome, received) == ("completed", list(range(50)))


def test_large_messages_arrive_whole_though_the_caller_is_slow():
    received = []

    def listen(message: object) -> None:
        time.sleep(0.05)
        received.append(len(message[1]))

    result = run_capped(hogs.talk, 4, 20 * hogs.MB, cap_mb=CAP_MB, on_message=listen)
    assert (result.outcome, received) == ("completed", [20 * hogs.MB] * 4)


@pytest.mark.parametrize(
    ("then", "outcome"),
    [("grow", "memory_cap"), ("fail", "failed"), ("kill_itself", "killed"), ("hang", "timed_out")],
)
def test_messages_sent_before_a_bad_end_arrive(then, outcome):
    received = []
    limit_s = 2 if then == "hang" else 60  # the others end by themselves, on a busy machine late
    result = run_capped(hogs.talk_then, then, cap_mb=CAP_MB, time_limit_s=limit_s, on_message=received.append)
    assert (result.outcome, received) == (outcome, ["said"])


def test_the_cap_and_the_time_limit_hold_while_the_caller_is_busy_with_a_message():
    busy_until = []

    def listen(message: object) -> None:
        deadline = time.monotonic() + 10
        while psutil.pid_exists(message) and time.monotonic() < deadline:
            time.sleep(0.02)
        busy_until.append(psutil.pid_exists(message))

    result = run_capped(hogs.send_pid_and_grow, cap_mb=CAP_MB, on_message=listen)
    assert was_killed_at_the_cap(result)
    assert busy_until == [False]


def test_a_listener_that_raises_ends_the_tree(tmp_path):
    pids = tmp_path / "pids"

    def listen(message: object) -> None:
        raise LookupError(message)

    began = time.monotonic()
    with pytest.raises(LookupError, match="all there"):
        run_capped(hogs.with_family, str(pids), cap_mb=CAP_MB, on_message=listen)
    assert time.monotonic() - began < 10
    assert all_gone(members(pids), 0.1)


def test_a_forked_process_may_not_send():
    received = []
    result = run_capped(hogs.talk_from_a_fork, cap_mb=CAP_MB, on_message=received.append)
    assert (result.value, received) == (7, [])


def test_a_function_that_is_asked_to_stop_can_leave_in_order():
    received = []
    result = run_capped(
        hogs.until_asked,
        cap_mb=CAP_MB,
        time_limit_s=20,
        on_message=received.append,
        should_stop=lambda: "the search is over" if received else None,
    )
    assert (result.outcome, result.value, result.stop_reason) == ("completed", "left in order", "the search is over")
    assert received == ["ready", "checkpoint"]


@pytest.mark.parametrize(
    ("function", "number"), [(hogs.hang, signal.SIGTERM), (hogs.hang_and_ignore, signal.SIGKILL)]
)
def test_a_function_that_ignores_a_stop_is_killed(function, number):
    ask_at = time.monotonic() + 0.5
    result = run_capped(
        function, cap_mb=CAP_MB, grace_s=2, should_stop=lambda: "enough" if time.monotonic() > ask_at else None
    )
    assert (result.outcome, result.signal, result.stop_reason) == ("killed", number, "enough")
    assert result.duration_s < 10


def test_another_thread_can_kill_the_tree_at_once_even_while_the_caller_is_busy(tmp_path):
    pids, kills, done = tmp_path / "pids", [], []

    def listen(message: object) -> None:
        threading.Timer(0.1, kills[0], ["no room"]).start()
        time.sleep(1.0)
        done.append(all_gone(members(pids), 0.1))

    result = run_capped(
        hogs.with_family, str(pids), cap_mb=CAP_MB, grace_s=60, on_message=listen, on_start=kills.append
    )
    assert (result.outcome, result.stop_reason, done) == ("killed", "no room", [True])
    kills[0]("the call is over")


def test_a_kill_after_a_stop_keeps_the_reason_of_the_stop():
    kills = []

    def stop() -> str:
        threading.Timer(0.3, kills[0], ["too slow"]).start()
        return "enough"

    result = run_capped(hogs.hang_and_ignore, cap_mb=CAP_MB, grace_s=60, should_stop=stop, on_start=kills.append)
    assert (result.outcome, result.stop_reason) == ("killed", "enough")
    assert result.duration_s < 5


def test_ctrl_c_in_the_caller_ends_the_tree_and_goes_on_up(tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(KeyboardInterrupt):
        run_capped(
            hogs.with_family, str(pids), cap_mb=CAP_MB, on_message=lambda _: os.kill(os.getpid(), signal.SIGINT)
        )
    assert all_gone(members(pids), 0.1)
