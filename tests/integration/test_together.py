"""Two commands in one workspace, and what a dead one leaves behind."""

import json
import os
import signal
import threading

from product import tiny

SLOW = tiny(train__epochs=2, train__batch_size=4, data__fraction=0.4)


def test_the_second_of_two_waits_says_for_whom_and_uses_the_result(place):
    first = place.start("run", "train", *SLOW)
    assert place.wait_for(place.checkpoints, first)
    first.send_signal(signal.SIGSTOP)  # so that it is not done before the second has asked
    goes_on = threading.Timer(60, first.send_signal, [signal.SIGCONT])  # if nothing is said
    goes_on.start()
    second = place.start("run", "train", *SLOW, "--json")
    said = next((line for line in second.stderr if f"held by process {first.pid} since " in line), "")
    goes_on.cancel()
    first.send_signal(signal.SIGCONT)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert first.wait(10) == 0
    assert said, err
    [model] = json.loads(out)["models"]
    assert model["stages"]["train"]["status"] == "skipped"


def test_different_models_train_side_by_side(place):
    assert place.run("run", "prepare", *SLOW).code == 0
    vanilla = place.start("run", "train", *SLOW)
    assert place.wait_for(place.checkpoints, vanilla)
    vanilla.send_signal(signal.SIGSTOP)  # holds its lock, whatever the other does
    done = place.run("run", "train", *tiny("small", train__epochs=1, data__fraction=0.5))
    assert done.code == 0, done.err
    assert "waiting for" not in done.err
    vanilla.send_signal(signal.SIGCONT)
    vanilla.communicate(timeout=60)
    assert vanilla.returncode == 0


def test_a_run_that_died_is_ended_as_killed_by_the_next_command_that_does_not_resume_it(place):
    process = place.start("run", "train", *SLOW)
    assert place.wait_for(lambda: place.checkpoints() and statuses(place), process)
    assert statuses(place) == ["RUNNING"]
    process.send_signal(signal.SIGSTOP)
    assert place.run("run", "prepare", *tiny("small")).code == 0
    assert statuses(place) == ["RUNNING"], "it is alive"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert place.run("run", "train", *SLOW, "--dry-run").code == 0
    assert statuses(place) == ["RUNNING"]
    assert place.run("run", "prepare", *tiny("small")).code == 0
    assert statuses(place) == ["KILLED"]
    assert place.run("run", "train", *SLOW).code == 0
    assert statuses(place) == ["FINISHED"], "resumed, it is the same run"


def statuses(place):
    runs = (place.root / ".seqpipe" / "runs").glob("*.json")
    return [json.loads(path.read_bytes())["status"] for path in runs if "@" not in path.name]
