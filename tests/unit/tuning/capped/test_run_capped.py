"""Functions under a cap, in real processes. Overshoot allowed: 64 MB or 10 % of the cap."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hogs
import psutil
import pytest

from tuning.capped import run_capped as memory
from tuning.capped.run_capped import Capped, CapTooLowError, floor_mb, run_capped

CAP_MB = 300
OVERSHOOT_MB = 64
linux = pytest.mark.skipif(sys.platform != "linux", reason="by means of Linux")
TESTS = str(Path(hogs.__file__).parent)


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether a process has ended, or does so soon; a zombie that nobody reaps has ended too."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return True
    return False


def members(pids: Path) -> list[int]:
    return [int(line) for line in pids.read_text().split()]


def killed_at_the_cap(result: Capped[object]) -> bool:
    return (
        result.outcome == "memory_cap"
        and result.error is None
        and result.cap_mb < result.peak_mb <= result.cap_mb + OVERSHOOT_MB
    )


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch):
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("CAPPED_TEST", mark)
    yield
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("CAPPED_TEST") == mark and not gone(process.pid, 0.5):
                left.append(process.cmdline())
    assert left == []


def test_a_function_that_stays_under_its_cap_is_completed():
    result = run_capped(hogs.hold, 150, 0.2, cap_mb=CAP_MB)
    assert (result.outcome, result.value, result.cap_mb) == ("completed", 150, CAP_MB)
    assert (result.error, result.traceback, result.signal, result.stop_reason) == (None, None, None, None)
    assert 150 <= result.peak_mb < 175
    assert result.floor_mb < 20
    assert 0.2 < result.duration_s < 5


def test_a_plain_function_is_back_soon():
    assert min(run_capped(hogs.add, 1, cap_mb=100).duration_s for _ in range(3)) < 0.3


# What takes memory bit by bit, in whatever way, is killed at the cap.


@pytest.mark.parametrize(("step_mb", "pause_s"), [(5, 0.01), (50, 0.0)])
def test_what_grows_is_killed_at_the_cap(step_mb, pause_s):
    assert killed_at_the_cap(run_capped(hogs.grow, step_mb, pause_s, cap_mb=CAP_MB, time_limit_s=20))


def test_pages_reserved_at_no_charge_are_charged_when_they_are_touched():
    assert killed_at_the_cap(run_capped(hogs.touch_lazily, 3 * CAP_MB, cap_mb=CAP_MB))
    few = run_capped(hogs.touch_a_little, 3 * CAP_MB, cap_mb=CAP_MB)
    assert (few.outcome, few.value) == ("completed", 3 * CAP_MB)
    assert 20 < few.peak_mb < 50


@linux
def test_shared_memory_is_charged_and_given_back_when_its_holder_is_killed(tmp_path):
    assert killed_at_the_cap(run_capped(hogs.shared_memory, 3 * CAP_MB, str(tmp_path / "name"), cap_mb=CAP_MB))
    assert not (Path("/dev/shm") / (tmp_path / "name").read_text()).exists()


@linux
def test_torch_s_shared_memory_is_given_back_when_its_holder_is_killed_before_the_unlink():
    before = set(Path("/dev/shm").glob("torch_*_1_2"))
    result = run_capped(hogs.hang_between_open_and_unlink, cap_mb=CAP_MB, time_limit_s=0.5)
    assert result.outcome == "timed_out"
    assert set(Path("/dev/shm").glob("torch_*_1_2")) == before


def test_tensors_in_shared_memory_are_charged():
    assert killed_at_the_cap(run_capped(hogs.torch_shared, 300, cap_mb=500, warm_up=hogs.import_torch))


@pytest.mark.parametrize("function", [hogs.child_grows, hogs.orphan_grows])
def test_what_a_child_or_an_orphan_takes_is_charged_and_all_are_killed(function):
    assert killed_at_the_cap(run_capped(function, cap_mb=CAP_MB, time_limit_s=20))


@pytest.mark.parametrize("step_mb", [1, 20])
def test_native_code_at_full_speed_is_killed_before_a_refusal_would_crash_it(tmp_path, step_mb):
    result = run_capped(hogs.native, step_mb, str(tmp_path / "taken"), cap_mb=CAP_MB)
    assert killed_at_the_cap(result)
    taken_mb = int.from_bytes((tmp_path / "taken").read_bytes()[:8], sys.byteorder)
    room_mb = CAP_MB - result.floor_mb  # of which the child itself takes 2 MB or so once it runs
    assert room_mb - step_mb - 10 < taken_mb < room_mb + OVERSHOOT_MB


@linux
def test_native_code_that_a_refusal_crashed_before_the_next_look_was_past_the_cap(tmp_path):
    def listen(message: object) -> None:
        child = psutil.Process(message)
        warden = child.parent()
        warden.suspend()
        (tmp_path / "go").touch()
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        warden.resume()

    result = run_capped(hogs.native_when_told, str(tmp_path), cap_mb=CAP_MB, time_limit_s=20, on_message=listen)
    assert killed_at_the_cap(result)


# What asks for three times the cap at once is refused, which is the same answer.


@linux
@pytest.mark.parametrize(
    ("function", "says"), [(hogs.at_once, "MemoryError"), (hogs.numpy_at_once, "Unable to allocate")]
)
def test_a_burst_is_refused_before_it_is_touched(function, says):
    result = run_capped(function, 3 * CAP_MB, cap_mb=CAP_MB)
    assert result.outcome == "memory_cap"
    assert says in result.error
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


# Other ends.


def test_a_function_that_raises_has_failed_and_its_own_frames_are_told():
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


def test_imports_that_fail_are_told():
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
    assert all(gone(pid, 0.1) for pid in members(pids))


def test_what_a_function_leaves_running_ends_with_it(tmp_path):
    pids = tmp_path / "pids"
    result = run_capped(hogs.with_family, str(pids), 0.0, cap_mb=CAP_MB, on_message=lambda _: None)
    assert result.outcome == "completed"
    assert all(gone(pid, 0.1) for pid in members(pids))


def test_a_function_that_hangs_is_ended_at_its_time_limit():
    result = run_capped(hogs.hang_and_ignore, cap_mb=CAP_MB, time_limit_s=0.5)
    assert result.outcome == "timed_out"
    assert 0.5 < result.duration_s < 2


def test_the_time_limit_holds_for_imports_too():
    result = run_capped(hogs.add, 1, cap_mb=CAP_MB, time_limit_s=0.5, warm_up=hogs.hang)
    assert (result.outcome, result.floor_mb) == ("timed_out", None)


def test_a_child_that_keeps_the_interpreter_lock_is_guarded_all_the_same():
    result = run_capped(hogs.hang_in_native_code, cap_mb=CAP_MB, time_limit_s=0.5)
    assert result.outcome == "timed_out"
    assert result.duration_s < 2


# What is said, and asked, meanwhile.


def test_messages_come_in_order_and_before_the_value():
    heard = []
    result = run_capped(hogs.talk, 3000, cap_mb=CAP_MB, on_message=heard.append)
    assert heard == [(number, b"") for number in range(3000)]
    assert result.value == 3000


def test_what_is_said_while_the_caller_is_busy_is_heard_though_all_is_over_by_then():
    heard = []

    def listen(message: object) -> None:
        heard.append(message[0])
        if len(heard) == 1:
            time.sleep(0.5)

    result = run_capped(hogs.talk, 50, cap_mb=CAP_MB, on_message=listen)
    assert (result.outcome, heard) == ("completed", list(range(50)))


def test_large_messages_arrive_whole_though_the_caller_is_slow():
    heard = []

    def listen(message: object) -> None:
        time.sleep(0.05)
        heard.append(len(message[1]))

    result = run_capped(hogs.talk, 4, 20 * hogs.MB, cap_mb=CAP_MB, on_message=listen)
    assert (result.outcome, heard) == ("completed", [20 * hogs.MB] * 4)


@pytest.mark.parametrize(
    ("then", "outcome"),
    [("grow", "memory_cap"), ("fail", "failed"), ("kill_itself", "killed"), ("hang", "timed_out")],
)
def test_what_was_said_before_a_bad_end_is_heard(then, outcome):
    heard = []
    result = run_capped(hogs.talk_then, then, cap_mb=CAP_MB, time_limit_s=2, on_message=heard.append)
    assert (result.outcome, heard) == (outcome, ["said"])


def test_the_cap_and_the_time_limit_hold_while_the_caller_is_busy_with_a_message():
    busy_until = []

    def listen(message: object) -> None:
        time.sleep(1.5)
        busy_until.append(psutil.pid_exists(message))

    result = run_capped(hogs.say_who_and_grow, cap_mb=CAP_MB, on_message=listen)
    assert killed_at_the_cap(result)
    assert busy_until == [False]


def test_a_listener_that_raises_ends_the_tree(tmp_path):
    pids = tmp_path / "pids"

    def listen(message: object) -> None:
        raise LookupError(message)

    began = time.monotonic()
    with pytest.raises(LookupError, match="all there"):
        run_capped(hogs.with_family, str(pids), cap_mb=CAP_MB, on_message=listen)
    assert time.monotonic() - began < 10
    assert all(gone(pid, 0.1) for pid in members(pids))


def test_a_forked_process_may_not_send():
    heard = []
    result = run_capped(hogs.talk_from_a_fork, cap_mb=CAP_MB, on_message=heard.append)
    assert (result.value, heard) == (7, [])


def test_a_function_that_is_asked_to_stop_can_leave_in_order():
    heard = []
    result = run_capped(
        hogs.until_asked,
        cap_mb=CAP_MB,
        time_limit_s=20,
        on_message=heard.append,
        should_stop=lambda: "the search is over" if heard else None,
    )
    assert (result.outcome, result.value, result.stop_reason) == ("completed", "left in order", "the search is over")
    assert heard == ["ready", "checkpoint"]


@pytest.mark.parametrize(
    ("function", "number"), [(hogs.hang, signal.SIGTERM), (hogs.hang_and_ignore, signal.SIGKILL)]
)
def test_a_function_that_does_not_heed_a_stop_is_killed(function, number):
    ask_at = time.monotonic() + 0.5
    result = run_capped(
        function, cap_mb=CAP_MB, grace_s=0.5, should_stop=lambda: "enough" if time.monotonic() > ask_at else None
    )
    assert (result.outcome, result.signal, result.stop_reason) == ("killed", number, "enough")
    assert result.duration_s < 3


def test_ctrl_c_in_the_caller_ends_the_tree_and_goes_on_up(tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(KeyboardInterrupt):
        run_capped(
            hogs.with_family, str(pids), cap_mb=CAP_MB, on_message=lambda _: os.kill(os.getpid(), signal.SIGINT)
        )
    assert all(gone(pid, 0.1) for pid in members(pids))


# Nothing outlives the caller.

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
    warden = psutil.Process(members(tmp_path / "pids")[0]).ppid()
    assert psutil.Process(caller.pid).children(recursive=True) == []  # a Ray worker kills those when it ends
    caller.kill()
    assert all(gone(pid) for pid in (*members(tmp_path / "pids"), warden))


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
        assert all(gone(pid) for pid in members(pids))
        assert fork.is_running()
        fork.kill()


def test_a_child_that_is_stopped_goes_with_its_caller_too(caller, tmp_path):
    os.kill(members(tmp_path / "pids")[0], signal.SIGSTOP)
    caller.kill()
    assert all(gone(pid) for pid in members(tmp_path / "pids"))


@linux
def test_a_child_whose_warden_is_killed_ends_with_its_own_children(caller, tmp_path):
    child, *_ = members(tmp_path / "pids")
    warden = psutil.Process(child).parent()
    below = [process.pid for process in psutil.Process(child).children()]
    orphan = next(pid for pid in members(tmp_path / "pids") if pid not in (child, *below))
    warden.kill()
    assert gone(child)
    assert all(gone(pid) for pid in below)
    psutil.Process(orphan).kill()  # only the warden knew it
    assert caller.wait(timeout=5) == 0  # an outcome, not an exception


def test_a_warden_killed_from_outside_is_an_outcome():
    heard = []

    def listen(message: object) -> None:
        heard.append(message)
        psutil.Process(message).parent().kill()

    result = run_capped(hogs.say_who_and_hang, cap_mb=CAP_MB, on_message=listen)
    assert (result.outcome, result.signal) == ("killed", signal.SIGKILL)
    assert gone(heard[0], 0.05)


# How it is called, and what the child is like.


def test_what_cannot_be_pickled_is_refused_at_once():
    with pytest.raises(ValueError, match=r"<lambda> and its arguments cannot be sent .* top level of a module"):
        run_capped(lambda: 1, cap_mb=CAP_MB)
    with pytest.raises(ValueError, match=r"cannot pickle '_thread\.lock' object"):
        run_capped(hogs.add, threading.Lock(), cap_mb=CAP_MB)


def test_a_function_of_the_script_itself_is_refused_at_once():
    code = "from tuning.capped.run_capped import run_capped\ndef mine(): pass\nrun_capped(mine, cap_mb=100)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ValueError: mine and its arguments cannot be sent" in done.stderr
    assert "mine is of the script that was started" in done.stderr


@pytest.mark.parametrize("limits", [{"cap_mb": 0}, {"cap_mb": float("nan")}, {"cap_mb": 9, "time_limit_s": 0}])
def test_limits_must_be_positive(limits):
    with pytest.raises(ValueError, match="limits must be positive"):
        run_capped(hogs.add, 1, **limits)


def test_the_child_is_a_clean_process_in_the_same_place():
    result = run_capped(hogs.where, cap_mb=CAP_MB)
    folder, arguments, on_term, thread, pid = result.value
    assert (folder, arguments, on_term, thread) == (Path.cwd(), ["-c"], signal.SIG_DFL, "MainThread")
    assert pid != os.getpid()


def test_output_goes_where_the_caller_s_goes_or_to_the_end_of_a_file(tmp_path, capfd):
    run_capped(hogs.speak, cap_mb=CAP_MB)
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["echoed below", "to stdout"]
    assert err == "to stderr\n"
    kept = tmp_path / "log"
    kept.write_text("before\n")
    run_capped(hogs.speak, cap_mb=CAP_MB, output=kept)
    assert kept.read_text().splitlines()[0] == "before"
    assert sorted(kept.read_text().splitlines()[1:]) == ["echoed below", "to stderr", "to stdout"]
    assert capfd.readouterr() == ("", "")


def test_it_works_from_a_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(run_capped(hogs.add, 1, 2, cap_mb=100)))
    thread.start()
    thread.join()
    assert results[0].value == 3


def test_several_at_once_do_not_share_a_cap():
    results = []
    calls = [(hogs.hold, 150, 0.3), (hogs.grow,), (hogs.hold, 150, 0.3)]
    threads = [
        threading.Thread(target=lambda call=call: results.append(run_capped(*call, cap_mb=200))) for call in calls
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.outcome for result in results) == ["completed", "completed", "memory_cap"]


def test_it_needs_neither_torch_nor_ray_nor_numpy():
    code = "import sys, tuning.capped.run_capped; "
    code += "print([n for n in ('torch', 'ray', 'numpy', 'pipeline') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert memory.__doc__
