"""Ctrl-C, SIGTERM and --max-time end a command in order; the same command goes on."""

import signal
import time

import pytest
from product import Place, leave, tiny

LONG = tiny(train__epochs=3, train__batch_size=4, data__fraction=0.6)  # 324 steps, some seconds
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    assert place.run("run", "train", *LONG).code == 0
    return place.result()


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.end()


def began_training(place):
    process = place.start("run", "train", *LONG)
    assert place.wait_for(lambda: place.checkpoints(), process)
    time.sleep(0.2)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_after_a_checkpoint_within_5_s(place, undisturbed, number):
    left = leave(began_training(place), number)
    assert left.code == 128 + number
    assert left.seconds < 5
    assert left.errors == [f"seqpipe: interrupted ({NAMES[number]}); the same command goes on from where it was"], (
        left.err
    )
    assert place.checkpoints()[-1].name > "step-00000000.json"

    done = place.run("run", "train", *LONG)
    assert done.code == 0, done.err
    assert "going on: " in done.err
    assert place.result() == undisturbed


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


def test_max_time_ends_with_4_and_the_same_command_goes_on(place, undisturbed):
    done = place.run("run", "train", *LONG, "--max-time", "2s")
    assert done.code == 4
    assert done.errors == ["seqpipe: --max-time of 2 s is used up; the same command goes on from the checkpoint"]
    assert place.partial() is not None
    assert place.run("run", "train", *LONG).code == 0
    assert place.result() == undisturbed


def test_stopped_and_continued_a_training_ends_in_the_same_weights(place, undisturbed):
    process = began_training(place)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert place.result() == undisturbed


@pytest.mark.parametrize(("delay_s", "number"), [(0.25, signal.SIGINT), (0.8, signal.SIGTERM), (1.6, signal.SIGINT)])
def test_a_signal_while_a_command_starts_ends_it_with_one_line(place, delay_s, number):
    process = place.start("run", "all", *LONG)
    time.sleep(delay_s)
    left = leave(process, number)
    assert left.code == 128 + number, left.err
    assert len(left.errors) == 1, left.err
    assert "Traceback" not in left.err
    assert "Exception ignored" not in left.err
