"""The memory cap, in real processes. Overshoot allowed: 64 MB or 10 % of the cap."""

import functools
import sys
import time
from pathlib import Path

import hogs
import psutil
import pytest
from capped_calls import CAP_MB, OVERSHOOT_MB, linux, was_killed_at_the_cap

from tuning.capped.run_capped import CapTooLowError, floor_mb, run_capped


def test_a_function_that_stays_under_its_cap_is_completed():
    result = run_capped(hogs.hold, 150, 0.2, cap_mb=CAP_MB)
    assert (result.outcome, result.value, result.cap_mb) == ("completed", 150, CAP_MB)
    assert (result.error, result.traceback, result.signal, result.stop_reason) == (None, None, None, None)
    assert 150 <= result.peak_mb < 175
    assert result.floor_mb < 20
    assert 0.2 < result.duration_s < 5


# What takes memory bit by bit, in whatever way, is killed at the cap.


@pytest.mark.parametrize(("step_mb", "pause_s"), [(5, 0.01), (50, 0.0)])
def test_what_grows_is_killed_at_the_cap(step_mb, pause_s):
    assert was_killed_at_the_cap(run_capped(hogs.grow, step_mb, pause_s, cap_mb=CAP_MB, time_limit_s=20))


def test_pages_reserved_at_no_charge_are_charged_when_they_are_touched():
    assert was_killed_at_the_cap(run_capped(hogs.touch_lazily, 3 * CAP_MB, cap_mb=CAP_MB))
    few = run_capped(hogs.touch_a_little, 3 * CAP_MB, cap_mb=CAP_MB)
    assert (few.outcome, few.value) == ("completed", 3 * CAP_MB)
    assert 20 < few.peak_mb < 50


@linux
def test_shared_memory_is_charged_and_given_back_when_its_holder_is_killed(tmp_path):
    assert was_killed_at_the_cap(run_capped(hogs.shared_memory, 3 * CAP_MB, str(tmp_path / "name"), cap_mb=CAP_MB))
    assert not (Path("/dev/shm") / (tmp_path / "name").read_text()).exists()


@linux
def test_torch_s_shared_memory_is_given_back_when_its_holder_is_killed_before_the_unlink():
    before = set(Path("/dev/shm").glob("torch_*_1_2"))
    result = run_capped(hogs.hang_between_open_and_unlink, cap_mb=CAP_MB, time_limit_s=0.5)
    assert result.outcome == "timed_out"
    assert set(Path("/dev/shm").glob("torch_*_1_2")) == before


def test_tensors_in_shared_memory_are_charged():
    assert was_killed_at_the_cap(run_capped(hogs.torch_shared, 300, cap_mb=500, warm_up=hogs.import_torch))


@pytest.mark.parametrize("function", [hogs.child_grows, hogs.orphan_grows])
def test_what_a_child_or_an_orphan_takes_is_charged_and_all_are_killed(function):
    assert was_killed_at_the_cap(run_capped(function, cap_mb=CAP_MB, time_limit_s=20))


@pytest.mark.parametrize("step_mb", [1, 20])
def test_native_code_at_full_speed_is_killed_before_a_refusal_would_crash_it(tmp_path, step_mb):
    result = run_capped(hogs.native, step_mb, str(tmp_path / "taken"), cap_mb=CAP_MB)
    assert was_killed_at_the_cap(result)
    taken_mb = int.from_bytes((tmp_path / "taken").read_bytes()[:8], sys.byteorder)
    room_mb = CAP_MB - result.floor_mb  # of which the child itself takes 2 MB or so once it runs
    assert room_mb - step_mb - 10 < taken_mb < room_mb + OVERSHOOT_MB


@linux
def test_native_code_that_a_refusal_crashed_before_the_next_look_was_past_the_cap(tmp_path):
    def listen(message: object) -> None:
        child = psutil.Process(message)
        watchdog = child.parent()
        watchdog.suspend()
        (tmp_path / "go").touch()
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        watchdog.resume()

    result = run_capped(hogs.native_when_signalled, str(tmp_path), cap_mb=CAP_MB, time_limit_s=20, on_message=listen)
    assert was_killed_at_the_cap(result)


# What asks for three times the cap at once is refused, which is the same answer.


@linux
@pytest.mark.parametrize(
    ("function", "words"), [(hogs.at_once, "MemoryError"), (hogs.numpy_at_once, "Unable to allocate")]
)
def test_a_burst_is_refused_before_it_is_touched(function, words):
    result = run_capped(function, 3 * CAP_MB, cap_mb=CAP_MB)
    assert result.outcome == "memory_cap"
    assert words in result.error
    assert function.__name__ in result.traceback
    assert result.peak_mb < 100


@linux
def test_a_burst_in_torch_is_refused_before_it_is_touched():
    result = run_capped(hogs.torch_at_once, 1200, cap_mb=400, warm_up=hogs.import_torch)
    assert result.outcome == "memory_cap"
    assert "can't allocate memory" in result.error
    assert result.floor_mb > 100


@linux
def test_a_refusal_that_the_function_turns_into_an_error_of_its_own_is_still_the_cap():
    result = run_capped(hogs.wrapped, 3 * CAP_MB, cap_mb=CAP_MB)
    assert result.outcome == "memory_cap"
    assert result.error == "LookupError: no room for it"


@linux
def test_a_function_may_make_do_with_less_when_it_is_refused():
    result = run_capped(hogs.smaller_on_refusal, 3 * CAP_MB, cap_mb=CAP_MB)
    assert (result.outcome, result.value) == ("completed", 3 * CAP_MB // 10 * hogs.MB)


@linux
def test_the_end_of_a_graphics_card_s_memory_is_not_the_cap():
    result = run_capped(hogs.card_is_full, cap_mb=CAP_MB)
    assert (result.outcome, result.error) == ("failed", "RuntimeError: CUDA out of memory: not enough memory")


@linux
def test_stacks_of_threads_are_not_charged_for_what_they_only_reserve():
    result = run_capped(hogs.sleeping_threads, 60, 0.02, cap_mb=100)  # 8 MB of stack each
    assert (result.outcome, result.value) == ("completed", 60)


@linux
def test_a_large_file_that_is_mapped_and_read_is_not_charged(tmp_path):
    path = tmp_path / "data"
    with path.open("wb") as file:
        file.truncate(3 * CAP_MB * hogs.MB)
    result = run_capped(hogs.read_mapped, str(path), cap_mb=CAP_MB)
    assert (result.outcome, result.value) == ("completed", 0)
    assert result.peak_mb < 50


# The floor.


def test_a_cap_below_the_floor_is_refused_before_the_function_starts(tmp_path):
    ran = tmp_path / "ran"
    with pytest.raises(CapTooLowError, match=r"the cap of 200 MB is not above the 3\d\d MB") as caught:
        run_capped(ran.touch, cap_mb=200, warm_up=hogs.take_300_mb)
    assert caught.value.cap_mb == 200
    assert 300 < caught.value.floor_mb < 330
    assert not ran.exists()


def test_imports_that_take_far_more_than_the_cap_are_ended():
    with pytest.raises(CapTooLowError) as caught:
        run_capped(hogs.add, 1, cap_mb=20, warm_up=functools.partial(hogs.grow, 50, 0.0))
    assert 1020 < caught.value.floor_mb < 1400


def test_the_floor_can_be_asked_for(tmp_path):
    ran = tmp_path / "ran"
    bare = floor_mb(ran.touch)
    assert 3 < bare < 20
    assert 300 < floor_mb(ran.touch, warm_up=hogs.take_300_mb) - bare < 330
    assert not ran.exists()
    with pytest.raises(RuntimeError, match="nothing here to warm up with"):
        floor_mb(hogs.add, 1, warm_up=hogs.warm_up_badly)


def test_arguments_are_part_of_the_floor():
    assert floor_mb(len, b"x" * (50 * hogs.MB)) > 50
