"""A training that is killed or asked to leave ends in the same weights as one that was left alone."""

import json
import random
import signal
import time

import pytest
from product import LONG, SEQPIPE, Place, Terminal, began_training, leave, settings

OFTEN = settings(compute__checkpoint_every_s=0.02)
EVERY_OPTION = settings(
    train__optimizer="muon",
    train__muon_learning_rate=0.01,
    train__adam_beta2=0.98,
    train__bias_rate_factor=2,
    train__schedule="linear",
    train__ema_decay=0.99,
    train__augment__padding="reflect",
    train__augment__alternating_flip="true",
    train__augment__cutout_pixels=4,
    train__augment__cutmix=0.5,
)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def test_killed_a_training_ends_in_the_same_weights(place, undisturbed):
    """Twice: at a random moment, and inside the writing of a checkpoint."""
    process = place.start("run", "train", *LONG, *OFTEN)
    assert place.wait_for(lambda: len(place.checkpoints()) == 2, process)
    time.sleep(random.Random(1).uniform(0, 0.3))
    process.kill()
    assert process.wait() == -9

    process = place.start("run", "train", *LONG, *OFTEN)
    known = place.checkpoints()
    assert place.wait_for(lambda: place.checkpoints()[-1:] > known[-1:], process)
    folder = place.partial()
    assert place.wait_for(lambda: list(folder.glob(".step-*.safetensors.*.tmp")), process, every_s=0)
    process.kill()
    assert process.wait() == -9

    done = place.run("run", "train", *LONG)
    assert done.code == 0, done.err
    assert "going on: " in done.err
    assert "waiting for" not in done.err, "the lock of a dead process is taken over"
    assert place.result() == undisturbed
    assert not list(place.whole("train").glob("step-*"))
    assert not list(place.whole("train").glob(".*.tmp"))


def test_killed_with_every_option_of_training_on_it_ends_in_the_same_weights(place, tmp_path):
    alone = Place(tmp_path / "alone")
    assert alone.run("run", "train", *LONG, *EVERY_OPTION).code == 0
    process = place.start("run", "train", *LONG, *EVERY_OPTION, *OFTEN)
    assert place.wait_for(lambda: len(place.checkpoints()) == 2, process)
    time.sleep(random.Random(2).uniform(0, 0.5))
    process.kill()
    assert process.wait() == -9
    done = place.run("run", "train", *LONG, *EVERY_OPTION)
    assert done.code == 0, done.err
    assert "going on: " in done.err
    assert place.result() == alone.result()


def test_a_damaged_checkpoint_costs_the_work_since_the_one_before(place, undisturbed):
    process = place.start("run", "train", *LONG)
    assert place.wait_for(lambda: [path for path in place.checkpoints()[1:] if path.stat().st_size], process)
    process.kill()
    assert process.wait() == -9
    damaged = place.checkpoints()[-1].with_suffix(".safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = place.run("run", "train", *LONG)
    assert done.code == 0, done.err
    assert "damaged checkpoint" in done.err
    assert "trying the one before it" in done.err
    assert place.result() == undisturbed, "what the journal held of the lost epoch is not there twice"


def test_a_signal_ends_a_training_after_a_checkpoint_within_5_s(place, undisturbed):
    for number in (signal.SIGINT, signal.SIGTERM):
        left = leave(began_training(place), number)
        assert left.code == 128 + number
        assert left.seconds < 5
        assert left.errors == [f"seqpipe: interrupted ({NAMES[number]}); the same command resumes from where it was"]
        assert place.checkpoints()[-1].name > "step-00000000.json"
    done = place.run("run", "train", *LONG)
    assert done.code == 0, done.err
    assert place.result() == undisturbed


def test_neither_a_closed_terminal_nor_a_reader_that_leaves_costs_a_training_anything(place, undisturbed):
    terminal = Terminal(place, SEQPIPE, "run", "train", *LONG)
    assert place.wait_for(place.checkpoints, terminal)
    time.sleep(0.2)
    terminal.close()  # SIGHUP, and an error for whatever is written
    assert terminal.wait(5) == 129
    assert place.checkpoints()[-1].name > "step-00000000.json"
    [record] = (place.root / ".seqpipe" / "runs").glob("*.json")
    assert json.loads(record.read_bytes())["status"] == "KILLED"

    process = place.start("run", "train", *LONG)
    assert "going on: " in process.stderr.readline()
    process.stderr.close()
    process.stdout.close()
    assert process.wait(60) == 0
    assert place.result() == undisturbed


def test_max_time_ends_with_4_and_the_same_command_goes_on(place):
    half_a_minute = [*LONG, *settings(train__epochs=40)]  # or minutes, on a busy machine
    done = place.run("run", "train", *half_a_minute, "--max-time", "8s")
    assert done.code == 4
    assert done.errors == ["seqpipe: --max-time of 8 s is used up; the same command resumes from the checkpoint"]
    steps = place.checkpoints()[-1].name
    assert steps > "step-00000000.json"
    process = place.start("run", "train", *half_a_minute)
    assert "going on: " in process.stderr.readline()
    assert place.wait_for(lambda: place.checkpoints()[-1].name > steps, process)


@pytest.mark.parametrize(("delay_s", "number"), [(0.25, signal.SIGINT), (0.8, signal.SIGTERM), (1.6, signal.SIGINT)])
def test_a_signal_while_a_command_starts_ends_it_with_one_line(place, delay_s, number):
    process = place.start("run", "all", *LONG)
    time.sleep(delay_s)
    left = leave(process, number)
    assert left.code == 128 + number, left.err
    assert len(left.errors) == 1, left.err
    assert "Traceback" not in left.err
    assert "Exception ignored" not in left.err
