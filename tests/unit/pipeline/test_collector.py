"""Python's garbage collector waits while large libraries are loaded."""

import gc
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipeline import collector

LOAD = """
import gc
import pipeline
from pipeline.errors import SeqpipeError
before = gc.get_stats()[0]["collections"]
try:
    pipeline.load_model()
except SeqpipeError:
    print(gc.get_stats()[0]["collections"] - before)
"""
OF_TORCH = 100
"""Less than a third of what loading makes where nothing is paused."""


def test_it_goes_on_after_an_error() -> None:
    seen = []
    with suppress(RuntimeError), collector.paused():
        seen.append(gc.isenabled())
        raise RuntimeError
    assert [*seen, gc.isenabled()] == [False, True]


def test_who_had_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with collector.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_torch_is_loaded_without_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) < OF_TORCH
