"""Poor conditions: a folder that is gone or read-only, a narrow terminal, no memory, a full disk."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest
import torch
from product import SEQPIPE, fill, sha256, tiny

from pipeline.errors import WorkspaceError
from pipeline.training import checkpoint

ONE_EPOCH = tiny("vanilla", train__epochs=1)


def test_a_working_directory_that_is_gone_is_told(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"rmdir {gone}; exec {SEQPIPE} run all"
    done = subprocess.run(["sh", "-c", script], cwd=gone, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["seqpipe: the working directory no longer exists; change to another one"]


def test_a_terminal_of_40_columns_shows_readable_lines(place):
    words = tiny(train__epochs=3, train__batch_size=8, data__fraction=1.0)
    shown, code = in_terminal(place, 40, "run", "train", *words)
    assert code == 0, shown
    assert "Traceback" not in shown
    assert re.search(r"epoch 1/3 +\d+% \d+/s, [\d.]+ s left", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
    shown, code = in_terminal(place, 40, "status")
    assert code == 0
    assert "vanilla" in shown


def in_terminal(place, columns, *words):
    """Run a command in a terminal; all that it showed, and its exit code."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {key: value for key, value in place.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [SEQPIPE, *words], cwd=place.root, env={**environ, "TERM": "xterm"},
        stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    place.started.append(process)
    os.close(follower)
    shown = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
        elif process.poll() is not None:
            break
    os.close(leader)
    return shown.decode(errors="replace"), process.wait(10)


LIMITED = """
import resource, sys, torch
import pipeline.training.loop, pipeline.stages.train, pipeline.evaluation.plots, mlflow
from pipeline.cli.app import main
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 400_000_000,) * 2)
sys.argv = ["seqpipe", *sys.argv[1:]]
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_out_of_memory_ends_with_5_and_the_setting_that_needs_less(place):
    words = tiny(
        "small", train__batch_size=512, data__fraction=1.0, compute__threads=1, model__dims="[192,384]",
        compute__checkpoint_every_s=60,
    )  # fmt: skip
    assert place.run("run", "prepare", *words).code == 0
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "run", "train", *words],
        cwd=place.root, env=place.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    *_, first, second = done.stderr.splitlines()
    assert first.startswith("seqpipe: out of memory with 512 images at once")
    assert second.startswith("--set compute.micro_batch_size=256")


def test_weights_that_do_not_fit_leave_the_former_ones_whole_and_no_torn_file(mounted):
    path = mounted.root / "last.safetensors"
    weights = {"matrix": torch.ones(500, 500)}
    checkpoint.save_weights(path, weights)
    kept = sha256(path)
    fill(mounted.root / "filler")
    with pytest.raises(WorkspaceError, match="No space left on device; free some space"):
        checkpoint.save_weights(path, {"matrix": torch.zeros(500, 500)})
    assert sha256(path) == kept
    assert sorted(one.name for one in mounted.root.iterdir()) == ["filler", "last.safetensors", "mlflow.yaml"]


def test_a_read_only_workspace_is_told_in_one_line(mounted):
    subprocess.run(["mount", "-o", "remount,ro", mounted.root], check=True)
    done = mounted.run("run", "all", *ONE_EPOCH)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "Read-only file system; make it writable, or work in another folder" in done.err
    assert mounted.run("status").code == 0
    assert mounted.run("run", "all", *ONE_EPOCH, "--dry-run").code == 0
