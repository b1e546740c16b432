"""Asked twice to leave, stopped and continued, waiting for another: rarer ways to be interrupted."""

import signal
import time

from product import LONG, began_training, leave


def test_a_second_ctrl_c_ends_at_once_and_loses_nothing_durable(place):
    process = began_training(place)
    before = place.checkpoints()
    process.send_signal(signal.SIGINT)
    time.sleep(0.002)
    left = leave(process)
    assert left.code in (130, -2)
    assert left.seconds < 2
    assert "Traceback" not in left.err
    assert place.checkpoints()[-1:] >= before[-1:]
    assert place.run("run", "train", *LONG).code == 0


def test_stopped_and_continued_a_training_ends_in_the_same_weights(place, undisturbed):
    process = began_training(place)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert place.result() == undisturbed


def test_ctrl_c_and_max_time_end_the_waiting_too(place):
    first = place.start("run", "train", *LONG)
    assert place.wait_for(place.checkpoints, first)
    first.send_signal(signal.SIGSTOP)
    second = place.start("run", "train", *LONG)
    time.sleep(2)
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=5)
    assert second.returncode == 130, err
    done = place.run("run", "train", *LONG, "--max-time", "2s")
    assert done.code == 4, done.err
    assert done.seconds < 6
