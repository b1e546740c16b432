"""A reader that goes away and a terminal that is closed, in the middle of a training."""

import json
import signal
import subprocess

import pytest
from product import LONG, leave


def begun_for_a_reader(place, *words):
    """A training that has a checkpoint, whose stdout and stderr go to one pipe."""
    process = place.start(*words, stderr=subprocess.STDOUT)
    assert place.wait_for(place.checkpoints, process)
    return process


def status(place):
    """How the only run stands."""
    [record] = [json.loads(path.read_bytes()) for path in (place.root / ".seqpipe" / "runs").glob("*.json")]
    return record["status"]


@pytest.mark.parametrize("cap", [(), ("--max-memory-mb", "2000")], ids=["plain", "capped"])
def test_a_training_whose_reader_is_gone_goes_on_to_its_end(place, undisturbed, cap):
    process = begun_for_a_reader(place, "run", "train", *LONG, *cap)
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert place.result() == undisturbed


def test_ctrl_c_after_the_reader_is_gone_leaves_in_order(place, undisturbed):
    """As in `seqpipe run train | tee log`, where Ctrl-C ends tee too."""
    process = begun_for_a_reader(place, "run", "train", *LONG)
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert status(place) == "KILLED"
    assert place.run("run", "train", *LONG).code == 0
    assert place.result() == undisturbed


def test_a_closed_terminal_leaves_after_a_checkpoint(place, undisturbed):
    process = place.start("run", "train", *LONG)
    assert place.wait_for(place.checkpoints, process)
    left = leave(process, signal.SIGHUP)
    assert left.code == 129
    assert left.errors == [
        "seqpipe: interrupted (the terminal was closed); the same command goes on from where it was"
    ]
    assert status(place) == "KILLED"
    assert place.run("run", "train", *LONG).code == 0
    assert place.result() == undisturbed
