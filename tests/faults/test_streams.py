"""Terminals that close, readers that stall, signals that are to be ignored: what a training makes of them."""

import contextlib
import os
import signal
import socket
import subprocess
import time

import psutil
import pytest
from product import LONG, SEQPIPE, Terminal

TRAIN = ["run", "train", *LONG]
GUARDED = [*TRAIN, "--max-memory-mb", "2000"]


def in_a_shell(place, script, words=TRAIN):
    """A terminal in which a shell runs the script; a training has begun in it."""
    terminal = Terminal(place, "/bin/bash", "-c", script, SEQPIPE, *words)
    assert place.wait_for(place.checkpoints, terminal)
    time.sleep(0.3)
    return terminal


@pytest.mark.parametrize("words", [TRAIN, GUARDED])
def test_ctrl_c_in_a_pipe_leaves_after_a_checkpoint_with_130(place, undisturbed, words):
    """`tee` is gone at once, and then there is nobody to tell that it was interrupted."""
    terminal = in_a_shell(place, '(trap : INT; "$0" "$@" 2>&1; echo $? >code) | tee log', words)
    terminal.type(b"\x03")
    terminal.wait()
    assert place.wait_for(lambda: (place.root / "code").is_file() and (place.root / "code").read_text(), terminal)
    assert (place.root / "code").read_text() == "130\n"
    assert place.checkpoints()[-1].name > "step-00000000.json"
    assert place.run(*words).code == 0
    assert place.result() == undisturbed


def test_a_closed_terminal_ends_a_guarded_command_after_a_checkpoint(place, undisturbed):
    terminal = in_a_shell(place, 'exec "$0" "$@"', GUARDED)
    terminal.close()
    assert terminal.wait(10) == 129
    assert place.checkpoints()[-1].name > "step-00000000.json"
    process = place.start(*GUARDED)
    assert "going on: " in process.stderr.readline()
    process.stderr.close()
    process.stdout.close()
    assert process.wait(60) == 0
    assert place.result() == undisturbed


@pytest.mark.parametrize("words", [TRAIN, GUARDED])
def test_what_it_was_started_to_ignore_does_not_end_it(place, undisturbed, words):
    """As `nohup` and a script's `&` start it."""
    terminal = in_a_shell(place, 'trap \'\' HUP INT; exec "$0" "$@"', words)
    terminal.type(b"\x03")
    time.sleep(0.3)
    terminal.close()
    assert terminal.wait() == 0
    assert place.result() == undisturbed


def test_ctrl_z_and_fg_in_a_terminal(place, undisturbed):
    script = 'set -m; "$0" "$@"; sleep 1; fg >/dev/null'
    terminal = in_a_shell(place, script)
    terminal.type(b"\x1a")
    assert terminal.wait() == 0
    assert place.result() == undisturbed


def test_with_a_reader_that_stalls_ctrl_c_leaves_after_a_checkpoint(place):
    reading, writing = os.pipe()
    process = place.start(*TRAIN, stderr=writing)
    assert place.wait_for(place.checkpoints, process)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:  # until there is no room
            os.write(writing, b".")
    time.sleep(1.5)  # an epoch ends, and is told
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert time.monotonic() - began < 5
    assert place.checkpoints()[-1].name > "step-00000000.json"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("streams", [">&- 2>&- <&-", ">/dev/full 2>/dev/full", "| true", "2>&1 | true"])
def test_whatever_its_streams_are_a_training_ends_with_0_and_the_same_weights(place, undisturbed, streams):
    script = f'"$0" "$@" {streams}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", script, SEQPIPE, *TRAIN], cwd=place.root, env=place.environ, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert place.result() == undisturbed


@pytest.mark.parametrize(("close", "code"), [(True, 129), (False, 0)])
def test_the_ui_serves_on_without_a_reader_and_ends_with_its_terminal(place, close, code):
    place.set(MLFLOW_TRACKING_URI=None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = 'exec "$0" "$@"' if close else '"$0" "$@" | true; exit ${PIPESTATUS[0]}'
    terminal = Terminal(place, "/bin/bash", "-c", script, SEQPIPE, "ui", "--port", str(port))

    def answers():
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", port)) == 0

    assert place.wait_for(answers, terminal)
    time.sleep(1)
    below = psutil.Process(terminal.pid).children(recursive=True)
    if close:
        terminal.close()
    else:
        terminal.type(b"\x03")
    assert terminal.wait() in (code, -signal.SIGINT)  # of a shell that heard Ctrl-C too
    assert psutil.wait_procs(below, timeout=10)[1] == []
