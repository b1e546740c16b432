import contextlib
import os
import time

import psutil
import pytest
from capped_calls import is_gone


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch):
    """Every process that a test has started has to end with it."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("CAPPED_TEST", mark)
    yield
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("CAPPED_TEST") == mark and not is_gone(process.pid, 0.5):
                left.append(process.cmdline())
    assert left == []
