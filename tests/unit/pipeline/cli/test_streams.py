"""Standard streams whose reader goes, stalls, or was never there."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import stop
from pipeline.cli.app import _is_work
from pipeline.cli.streams import Output

SAID = b"what was said\n"
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")


@pytest.fixture
def pipe():
    """The two ends of a pipe, as files."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


def fill(writer):
    """Leave no room in a pipe; how much it holds now."""
    os.set_blocking(writer.fileno(), False)
    held = 0
    while written := writer.write(b"." * 4096):
        held += written
    return held


def stream(output):
    return io.BufferedWriter(output)


def say(out):
    out.write(SAID)
    out.flush()


def test_what_nobody_reads_any_more_is_left_out_and_children_are_spared_it(pipe):
    reader, writer = pipe
    output = Output(writer.fileno())
    out = stream(output)
    say(out)
    assert reader.read(100) == SAID
    reader.close()
    for _ in range(3):
        say(out)
    assert not output.has_reader
    assert writer.write(b"a child's, which would have died of it") > 0


@needs_full
def test_a_full_disk_is_noted_and_tried_again():
    with FULL.open("wb", buffering=0) as full:
        output = Output(full.fileno())
        say(stream(output))
        assert output.failure.strerror == "No space left on device"
        assert output.has_reader
        with pytest.raises(OSError, match="No space left"):
            full.write(SAID)


def test_a_pipe_that_does_not_wait_loses_nothing(pipe):
    reader, writer = pipe
    held = fill(writer)
    threading.Timer(0.1, reader.read, [held]).start()
    say(stream(Output(writer.fileno())))
    assert reader.read(100) == SAID


def test_a_reader_that_stalls_holds_progress_up_for_so_long_and_is_told_later(pipe):
    reader, writer = pipe
    held = fill(writer)
    out = stream(Output(writer.fileno(), patience_s=0.1))
    for _ in range(2):
        say(out)
    assert reader.read(held) == b"." * held
    say(out)
    assert reader.read(1000) == b"\n[28 bytes that nobody read were left out]\n" + SAID


def test_a_signal_ends_the_waiting_for_a_reader_that_stalls(pipe, monkeypatch):
    _, writer = pipe
    fill(writer)
    monkeypatch.setattr(stop, "_received", True)
    output = Output(writer.fileno())
    say(stream(output))
    assert output.failure is None


COMMAND = """
import logging, os, sys, warnings
from pipeline.cli import streams
streams.take_over()
file = open(os.devnull)
assert file.fileno() > 2, "a file of the command's where its output goes"
from pipeline.cli.console import Watcher, emit, emit_json, table
for _ in range(2):
    emit("Ж \\udce9")
    emit_json({"a": "\\udce9"})
    table(["a"], [["Ж"]])
    Watcher().note("Ж")
    print("Ж", file=sys.stderr)
    logging.warning("Ж")
    warnings.warn("Ж")
    os.system("echo a child")
sys.stdout.write("the rest")
sys.exit(7)
"""


@pytest.mark.parametrize(
    "streams",
    [
        ">&- 2>&-",
        "<&- >&- 2>&-",
        pytest.param(">/dev/full 2>/dev/full", marks=needs_full),
        "2>&-",
        "| true",
        "2>&1 | true",
    ],
)
def test_whatever_is_wrong_with_the_streams_the_command_goes_on_to_its_end(streams):
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {streams}; exit ${{PIPESTATUS[0]}}', sys.executable, COMMAND],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_letters_that_the_encoding_does_not_have_are_shown_by_their_numbers():
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[0] == rb"\u0416 \udce9"
    assert rb"\u0416" in done.stderr


@pytest.mark.parametrize(
    ("words", "is_work"),
    [
        ("run all", True),
        ("--debug tune -m small", True),
        ("run all --json", False),
        ("tune --dry-run", False),
        ("status", False),
        ("cluster up", True),
        ("cluster status", False),
        ("", False),
    ],
)
def test_a_training_is_worth_something_without_its_table_a_report_is_not(words, is_work):
    assert _is_work(words.split()) is is_work
