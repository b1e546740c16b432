"""How a function is called under a cap, and what its child process is like."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import hogs
import pytest
from capped_calls import CAP_MB

from tuning.capped.caller import CappedCall
from tuning.capped.run_capped import run_capped


def test_a_plain_function_is_back_soon():
    assert min(run_capped(hogs.add, 1, cap_mb=100).duration_s for _ in range(3)) < 1


def test_what_cannot_be_pickled_is_refused_at_once():
    with pytest.raises(ValueError, match=r"<lambda> and its arguments cannot be sent .* top level of a module"):
        run_capped(lambda: 1, cap_mb=CAP_MB)
    with pytest.raises(ValueError, match=r"cannot pickle '_thread\.lock' object"):
        run_capped(hogs.add, threading.Lock(), cap_mb=CAP_MB)


def test_a_function_of_the_script_itself_is_refused_at_once():
    code = "from tuning.capped.run_capped import run_capped\ndef mine(): pass\nrun_capped(mine, cap_mb=100)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ValueError: mine and its arguments cannot be sent" in done.stderr
    assert "mine is defined in the script that was started" in done.stderr


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


def test_a_child_starts_while_another_thread_changes_the_environment():
    over = threading.Event()

    def change():
        for number in itertools.count():
            os.environ[f"SEQPIPE_TEST_{number % 2000}"] = "x" * 200
            if number % 7 == 0:
                os.environ.pop(f"SEQPIPE_TEST_{number * 3 % 2000}", None)
            if over.is_set():
                return

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(20):  # with the environment inherited, one in six failed: Bad address
            with CappedCall(100, 10, 0.0, None):
                pass
    finally:
        over.set()
        changing.join()
        for number in range(2000):
            os.environ.pop(f"SEQPIPE_TEST_{number}", None)
