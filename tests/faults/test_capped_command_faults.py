"""A command under `--max-memory-mb` that is killed, or asked twice to leave."""

import contextlib
import re
import signal
import time

import psutil
from product import LONG, leave

CAPPED = ["run", "train", *LONG, "--max-memory-mb", "2000"]


def started(place):
    process = place.start(*CAPPED)
    assert place.wait_for(place.checkpoints, process)
    time.sleep(0.3)
    return process


def at_work(place):
    """The watchdogs and capped children that run in this test's folder."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if each.cwd() == str(place.root) and re.search(
                r"tuning\.capped\.(watchdog|child)", " ".join(each.cmdline())
            ):
                found.append(each)
    return found


def test_killed_it_takes_the_capped_command_with_it_and_goes_on_to_the_same_weights(place, undisturbed):
    process = started(place)
    others = at_work(place)
    assert len(others) == 2
    process.kill()
    process.wait()
    psutil.wait_procs(others, timeout=5)
    assert at_work(place) == []
    assert place.run(*CAPPED).code == 0
    assert place.result() == undisturbed


def test_a_capped_command_that_is_killed_from_outside_says_so(place):
    process = started(place)
    [child] = [each for each in at_work(place) if "tuning.capped.child" in " ".join(each.cmdline())]
    child.kill()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "did not end by itself (ended by SIGKILL); what was saved before is kept" in err
    assert "Traceback" not in err
    assert place.run(*CAPPED).code == 0


def test_a_second_ctrl_c_ends_at_once_and_loses_nothing_durable(place):
    process = started(place)
    before = place.checkpoints()
    process.send_signal(signal.SIGINT)
    time.sleep(0.002)
    left = leave(process)
    assert left.code == 130
    assert left.seconds < 3
    assert "Traceback" not in left.err
    assert place.checkpoints()[-1:] >= before[-1:]
    assert at_work(place) == []
    assert place.run(*CAPPED).code == 0


def test_ctrl_z_stops_the_capped_command_too(place, undisturbed):
    process = started(place)
    process.send_signal(signal.SIGTSTP)
    time.sleep(0.5)
    [child] = [each for each in at_work(place) if "tuning.capped.child" in " ".join(each.cmdline())]
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    assert child.status() == psutil.STATUS_STOPPED
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert place.result() == undisturbed
